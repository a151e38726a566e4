// Reads the open work items of a project in Azure DevOps, every few minutes.
import { setTimeout as sleep } from "node:timers/promises";
import { getBearerHandler, WebApi } from "azure-devops-node-api";
import { ConnectionCredential } from "entra-connector";

const { CONNECTION, SECRET_PREFIX, ORGANIZATION_URL, PROJECT, EVERY_SECONDS } = process.env;
const credential = new ConnectionCredential(CONNECTION, { prefix: SECRET_PREFIX });
const query = "SELECT [System.Id] FROM WorkItems WHERE [System.TeamProject] = @project AND [System.State] <> 'Closed'";

// The handler keeps the token that it is made with, so make a new one each time.
async function openWorkItems() {
  const { token } = await credential.getToken();
  const api = await new WebApi(ORGANIZATION_URL, getBearerHandler(token)).getWorkItemTrackingApi();
  const { workItems } = await api.queryByWiql({ query }, { project: PROJECT });
  const ids = workItems.map((item) => item.id).slice(0, 200); // which one call can read
  return ids.length ? api.getWorkItems(ids, ["System.Title"]) : [];
}

for (;;) {
  try {
    const items = await openWorkItems();
    console.log(`${items.length} open work items, the first is ${items[0]?.fields["System.Title"]}`);
  } catch (error) {
    console.error(error.message); // it may pass, and says what is wrong
  }
  await sleep(Number(EVERY_SECONDS) * 1000);
}
