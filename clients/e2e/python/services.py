"""Calls each service by its own client, again and again, until the time is up. Each client is made once."""

import asyncio
import json
import os
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlparse

from azure.devops.connection import Connection
from azure.devops.v7_1.work_item_tracking.models import Wiql
from azure.storage.blob import BlobServiceClient
from kiota_authentication_azure.azure_identity_authentication_provider import AzureIdentityAuthenticationProvider
from msgraph import GraphRequestAdapter, GraphServiceClient
from msrest.authentication import Authentication
from requests import Session

from entra_connector import ConnectionCredential

SERVICES = json.loads(os.environ["SERVICES"])
PAUSE = float(os.environ["PAUSE"])
END = time.time() + float(os.environ["SECONDS_TO_RUN"])


class DevOpsToken(Authentication):
    """Azure DevOps' client asks for this before each request."""

    def __init__(self, credential: ConnectionCredential) -> None:
        self.credential = credential

    def signed_session(self, session: Session | None = None) -> Session:
        session = super().signed_session(session)
        session.headers["Authorization"] = f"Bearer {self.credential.get_token().token}"
        return session


def azure_devops(url: str, credential: ConnectionCredential) -> Callable[[], None]:
    client = Connection(url, creds=DevOpsToken(credential)).clients_v7_1.get_work_item_tracking_client()

    def call() -> None:
        found = client.query_by_wiql(Wiql(query="SELECT [System.Id] FROM WorkItems"))
        items = client.get_work_items(ids=[item.id for item in found.work_items])
        assert [item.fields["System.Title"] for item in items] == ["One", "Two"]

    return call


def azure_storage(url: str, credential: ConnectionCredential) -> Callable[[], None]:
    service = BlobServiceClient(f"{url}/devstoreaccount1", credential)  # Azurite's account
    container = service.create_container("python")

    def call() -> None:
        blob = container.get_blob_client("time")
        blob.upload_blob(text := str(time.time()), overwrite=True)
        assert blob.download_blob().readall().decode() == text

    return call


def business_central(url: str, credential: ConnectionCredential) -> Callable[[], None]:
    items = f"{url}/v2.0/{os.environ['TENANT']}/Production/ODataV4/Company('CRONUS')/Items?$top=1"

    def call() -> None:
        request = urllib.request.Request(items, headers={"Authorization": f"Bearer {credential.get_token().token}"})
        with urllib.request.urlopen(request, timeout=10) as response:
            assert json.load(response)["value"][0]["Description"] == "Bicycle"

    return call


def graph(url: str, credential: ConnectionCredential, get: Callable[[GraphServiceClient], Any]) -> Callable[[], None]:
    # For the public cloud, GraphServiceClient(credential) is enough.
    hosts, scopes = [urlparse(url).hostname], ["https://graph.microsoft.com/.default"]
    adapter = GraphRequestAdapter(AzureIdentityAuthenticationProvider(credential, scopes=scopes, allowed_hosts=hosts))
    adapter.base_url = f"{url}/v1.0"
    client, loop = GraphServiceClient(request_adapter=adapter), asyncio.new_event_loop()

    def call() -> None:
        assert loop.run_until_complete(get(client))

    return call


async def users(client: GraphServiceClient) -> bool:
    first = await client.users.get()
    second = await client.users.with_url(first.odata_next_link).get()
    return [user.display_name for page in (first, second) for user in page.value] == ["Adele", "Alex"]


async def channels(client: GraphServiceClient) -> bool:
    found = await client.teams.by_team_id("1").channels.get()
    return found.value[0].display_name == "General"


async def site(client: GraphServiceClient) -> bool:
    return (await client.sites.by_site_id("root").get()).display_name == "Contoso"


CLIENTS: dict[str, Callable[[str, ConnectionCredential], Callable[[], None]]] = {
    "azure-devops": azure_devops,
    "azure-storage": azure_storage,
    "business-central": business_central,
    "microsoft-365": lambda url, credential: graph(url, credential, site),
    "microsoft-graph": lambda url, credential: graph(url, credential, users),
    "microsoft-teams": lambda url, credential: graph(url, credential, channels),
}


def keep_calling(name: str) -> None:
    target = SERVICES[name]
    call = CLIENTS[name](target["url"], ConnectionCredential(target["connection"]))
    while time.time() < END:
        call()
        time.sleep(PAUSE)


with ThreadPoolExecutor() as pool:
    for _ in pool.map(keep_calling, SERVICES):
        pass
