// Lives through the days of ../../days.json with each client for Node, and prints a line of JSON for each.
import { readFileSync } from "node:fs";
import { mock } from "node:test";
import { SecretsProvider } from "@aws-lambda-powertools/parameters/secrets";
import { SecretsManagerClient } from "@aws-sdk/client-secrets-manager";
import { ConnectionCredential } from "entra-connector";

const START = Date.UTC(2026, 10, 23) / 1000;

const clients = {
  "this client, TypeScript": (client) => {
    const credential = new ConnectionCredential("default/contoso", { client });
    return async () => (await credential.getToken()).expiresOnTimestamp / 1000;
  },
  "Powertools, TypeScript": (awsSdkV3Client) => {
    const provider = new SecretsProvider({ awsSdkV3Client });
    return async () => {
      const values = JSON.parse(await provider.get("entra/connections/default/contoso"));
      return Number(values.PAN_SEC_MICROSOFT_ENTRA_EXPIRES_AT);
    };
  },
};

mock.timers.enable({ apis: ["Date"], now: START * 1000 });
for (const day of JSON.parse(readFileSync(process.argv[2], "utf8"))) {
  for (const [name, make] of Object.entries(clients)) {
    let [at, calls, expired, errors] = [0, 0, 0, 0];
    mock.timers.setTime(START * 1000);
    const current = () => day.stored.findLast(([stored]) => stored <= at)[1]; // the end of the stored token
    const client = new SecretsManagerClient({ region: "us-east-1" });
    client.send = async () => {
      calls++;
      if (day.failing.some(([from, to]) => from <= at && at < to)) throw new Error("InternalServiceError");
      const values = { TOKEN_TYPE: "Bearer", ACCESS_TOKEN: "x", TENANT_ID: "x", EXPIRES_AT: `${START + current()}` };
      values.EXPIRES_IN = values.EXT_EXPIRES_IN = `${day.life}`;
      const six = Object.entries(values).map(([key, value]) => [`PAN_SEC_MICROSOFT_ENTRA_${key}`, value]);
      return { SecretString: JSON.stringify(Object.fromEntries(six)) };
    };
    const ask = make(client);
    for (; at < 86400; at += 10) {
      mock.timers.setTime((START + at) * 1000);
      try {
        if ((await ask()) <= START + at) expired++;
      } catch {
        if (current() > at) errors++;
      }
    }
    console.log(JSON.stringify({ client: name, day: day.name, calls, expired, errors }));
  }
}
