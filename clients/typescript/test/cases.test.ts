import assert from "node:assert/strict";
import { test } from "node:test";
import { ConnectionCredential, EntraConnectorError } from "../src/index.js";
import { cases, epoch, Manager } from "./manager.js";

for (const c of cases) {
  test(c.name, async () => {
    const manager = new Manager(c);
    let at = 0;
    const make = () =>
      new ConnectionCredential(c.connection ?? "default/contoso", {
        ...(c.prefix !== undefined && { prefix: c.prefix }),
        ...(c.scope !== undefined && { scope: c.scope }),
        ...(c.window !== undefined && { window: c.window * 1000 }),
        client: manager.client,
        now: () => (epoch + at) * 1000,
      });
    if (c.invalid) {
      assert.throws(make, TypeError);
      return;
    }
    const credential = make();
    for (const step of c.steps ?? []) {
      at = step.at;
      manager.store = step.store ?? manager.store;
      const { scopes = [], tenant: tenantId, claims } = step.ask ?? {};
      const options = { ...(tenantId !== undefined && { tenantId }), ...(claims !== undefined && { claims }) };
      const asks = Array.from({ length: step.callers ?? 1 }, () => credential.getToken(scopes, options));
      for (const result of await Promise.allSettled(asks)) {
        const { token, ends, again, error, says = "" } = step.answer;
        if (result.status === "rejected") {
          const { reason } = result;
          assert(reason instanceof EntraConnectorError, reason);
          assert.equal(reason.kind, error, reason.message);
          assert(reason.message.includes(says), reason.message);
          assert(reason.message.includes("default/contoso") && !reason.message.includes("token-"), reason.message);
          continue;
        }
        assert.equal(result.value.token, `token-${token}`);
        if (ends !== undefined) {
          assert.equal(result.value.expiresOnTimestamp / 1000 - epoch, ends);
        }
        if (again !== undefined) {
          assert.equal(result.value.refreshAfterTimestamp / 1000 - epoch, again);
        }
      }
      assert.equal(manager.reads, step.reads ?? manager.reads, `reads at ${at}`);
      assert.equal(manager.describes, step.describes ?? manager.describes, `looks at the tags at ${at}`);
    }
  });
}
