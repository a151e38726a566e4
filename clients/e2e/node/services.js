// Calls each service by its own client, again and again, until the time is up. Each client is made once,
// but for those that take a token and not a credential.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { BlobServiceClient } from "@azure/storage-blob";
import { Client } from "@microsoft/microsoft-graph-client";
import { TokenCredentialAuthenticationProvider } from "@microsoft/microsoft-graph-client/authProviders/azureTokenCredentials/index.js";
import { getBearerHandler, WebApi } from "azure-devops-node-api";
import { ConnectionCredential } from "entra-connector";
import { Connection, Request } from "tedious";

const { SERVICES, PAUSE, SECONDS_TO_RUN, TENANT } = process.env;
const end = Date.now() + Number(SECONDS_TO_RUN) * 1000;

// The handler sends the token that it was last given.
async function azureDevOps(url, credential) {
  const handler = getBearerHandler("");
  const fresh = async () => {
    handler.token = (await credential.getToken()).token;
  };
  await fresh();
  const client = await new WebApi(url, handler).getWorkItemTrackingApi();
  return async () => {
    await fresh();
    const found = await client.queryByWiql({ query: "SELECT [System.Id] FROM WorkItems" });
    const items = await client.getWorkItems(found.workItems.map((item) => item.id));
    assert.deepEqual(
      items.map((item) => item.fields["System.Title"]),
      ["One", "Two"],
    );
  };
}

// A connection logs in once, with the token of that moment.
async function azureSQL(url, credential) {
  return async () => {
    const { token } = await credential.getToken();
    const connection = new Connection({
      server: new URL(url).hostname,
      authentication: { type: "azure-active-directory-access-token", options: { token } },
      options: { port: Number(new URL(url).port), encrypt: false }, // so that the test can read the login
    });
    await new Promise((resolve, reject) => connection.connect((error) => (error ? reject(error) : resolve())));
    await new Promise((resolve, reject) =>
      connection.execSql(new Request("SELECT 1", (error) => (error ? reject(error) : resolve()))),
    );
    connection.close();
  };
}

async function azureStorage(url, credential) {
  const container = new BlobServiceClient(`${url}/devstoreaccount1`, credential).getContainerClient("typescript");
  await container.create();
  return async () => {
    const blob = container.getBlockBlobClient("time");
    const text = `${Date.now()}`;
    await blob.upload(text, text.length);
    assert.equal((await blob.downloadToBuffer()).toString(), text);
  };
}

async function businessCentral(url, credential) {
  return async () => {
    const { token } = await credential.getToken();
    const response = await fetch(`${url}/v2.0/${TENANT}/Production/ODataV4/Company('CRONUS')/Items?$top=1`, {
      headers: { Authorization: `Bearer ${token}` },
    });
    assert.equal((await response.json()).value[0].Description, "Bicycle");
  };
}

function graph(get) {
  return async (url, credential) => {
    const scopes = ["https://graph.microsoft.com/.default"];
    const client = Client.initWithMiddleware({
      authProvider: new TokenCredentialAuthenticationProvider(credential, { scopes }),
      baseUrl: url, // without these two, the public cloud
      customHosts: new Set([new URL(url).hostname]),
    });
    return () => get(client);
  };
}

async function users(client) {
  const first = await client.api("/users").get();
  const second = await client.api(first["@odata.nextLink"]).get();
  assert.deepEqual(
    [...first.value, ...second.value].map((user) => user.displayName),
    ["Adele", "Alex"],
  );
}

async function channels(client) {
  assert.equal((await client.api("/teams/1/channels").get()).value[0].displayName, "General");
}

async function site(client) {
  assert.equal((await client.api("/sites/root").get()).displayName, "Contoso");
}

const clients = {
  "azure-devops": azureDevOps,
  "azure-sql": azureSQL,
  "azure-storage": azureStorage,
  "business-central": businessCentral,
  "microsoft-365": graph(site),
  "microsoft-graph": graph(users),
  "microsoft-teams": graph(channels),
};

await Promise.all(
  Object.entries(JSON.parse(SERVICES)).map(async ([name, { connection, url }]) => {
    try {
      const call = await clients[name](url, new ConnectionCredential(connection));
      for (; Date.now() < end; await sleep(Number(PAUSE) * 1000)) await call();
    } catch (error) {
      console.error(name, error);
      process.exit(1);
    }
  }),
);
