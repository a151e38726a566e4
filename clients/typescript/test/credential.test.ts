import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import type { SecretsManagerClient } from "@aws-sdk/client-secrets-manager";
import type { TokenCredential } from "@azure/core-auth";
import { ConnectionCredential, EntraConnectorError } from "../src/index.js";
import { days, epoch, Manager, six } from "./manager.js";

const now = () => epoch * 1000;

function newManager(): Manager {
  const manager = new Manager({});
  manager.store = { token: "one", ends: 3600, life: 3600 };
  return manager;
}

test("the Azure SDK takes it", async () => {
  const credential: TokenCredential = new ConnectionCredential("default/contoso", { client: newManager().client, now });
  const token = await credential.getToken("https://graph.microsoft.com/.default", { enableCae: true });
  assert.equal(token?.token, "token-one");
  assert.equal(token?.tokenType, "Bearer");
});

test("nothing prints a token", async () => {
  const manager = newManager();
  const credential = new ConnectionCredential("default/contoso", { client: manager.client, now });
  const token = await credential.getToken();
  const values = await credential.values();
  assert.equal(values.PAN_SEC_MICROSOFT_ENTRA_ACCESS_TOKEN, token.token);
  assert.equal(Object.keys(values).length, 6);
  for (const thing of [credential, token, values, [token]]) {
    assert(!`${thing} ${inspect(thing, { depth: 9, showHidden: true })} ${JSON.stringify(thing)}`.includes("token-"));
  }
  manager.store = { string: "token-of-another-program" };
  const other = new ConnectionCredential("default/contoso", { client: manager.client, now });
  await assert.rejects(other.getToken(), (error) => !inspect(error, { depth: 9 }).includes("token-"));
});

for (const day of days) {
  test(`a program that asks every ten seconds always gets a live token, for few reads: ${day.name}`, async () => {
    let at = 0;
    let reads = 0;
    let readAt = -60;
    const client = {
      async send() {
        assert(at - readAt >= 60);
        readAt = at;
        reads++;
        if (day.failing.some(([from, to]) => from <= at && at < to)) {
          throw new Error("no answer");
        }
        const number = day.stored.findLastIndex(([stored]) => stored <= at);
        return { SecretString: JSON.stringify(six(`${number}`, epoch + (day.stored[number]?.[1] ?? 0), day.life)) };
      },
    } as unknown as SecretsManagerClient;
    const credential = new ConnectionCredential("default/contoso", { client, now: () => (epoch + at) * 1000 });
    let refused = 0;
    for (; at < 86400; at += 10) {
      try {
        const { token } = await credential.getToken();
        assert((day.stored[Number(token)]?.[1] ?? 0) > at, "an expired token was handed out");
      } catch (error) {
        assert(error instanceof EntraConnectorError);
        refused++;
      }
    }
    if (day === days[0]) {
      assert.equal(refused, 0);
      assert((reads * day.life) / 86400 <= 2.2, `${reads} reads`);
    }
  });
}

test("who holds a valid token does not wait", async () => {
  const manager = newManager();
  let at = 0;
  let hang: Promise<void> | undefined;
  const client = {
    async send() {
      await hang;
      return manager.value();
    },
  } as unknown as SecretsManagerClient;
  const credential = new ConnectionCredential("default/contoso", { client, now: () => (epoch + at) * 1000 });
  await credential.getToken();
  let answer = () => {};
  hang = new Promise((resolve) => {
    answer = resolve;
  });
  at = 2160;
  manager.store = { token: "two", ends: 5000, life: 3600 };
  const reader = credential.getToken();
  assert.equal((await credential.getToken()).token, "token-one");
  answer();
  assert.equal((await reader).token, "token-two");
});
