"""Lists the users of a customer's tenant through Microsoft Graph."""

import json
import os
import urllib.request

from entra_connector import ConnectionCredential

GRAPH = os.environ["GRAPH_URL"]
# Made once for each execution environment of Lambda, and asked before each request.
credential = ConnectionCredential(os.environ["CONNECTION"], prefix=os.environ["SECRET_PREFIX"])


def handler(event: object, context: object) -> dict[str, list[str]]:
    users: list[str] = []
    url = f"{GRAPH}/v1.0/users?$select=displayName&$top=999"
    while url.startswith(f"{GRAPH}/"):  # the token goes nowhere else
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {credential.get_token().token}"})
        with urllib.request.urlopen(request, timeout=10) as response:
            page = json.load(response)
        users += [user["displayName"] for user in page["value"]]
        url = page.get("@odata.nextLink", "")
    return {"users": users}
