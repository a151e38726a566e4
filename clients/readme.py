"""Runs the lines of a README, and provisions the connection that they read. For test.sh."""

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

CONTOSO = {
    # NOT A REAL SECRET: the stand-in Entra of "make local" knows it
    "tenant_id": "contoso.example",
    "connection": "contoso",
    "client_id": "11111111-aaaa-4aaa-8aaa-111111111111",
    "client_secret": "not-a-real-secret-1",
    "service": "azure-storage",
}
# What follows a block: the lines must have got a token, and an SDK must be given one for the connection's
# scope and none for another.
PYTHON = """
import entra_connector
credential = entra_connector.ConnectionCredential("default/contoso")
assert headers["Authorization"] == "Bearer " + credential.get_token("https://storage.azure.com/.default").token
try:
    credential.get_token("https://graph.microsoft.com/.default")
    raise SystemExit("a token for another scope")
except entra_connector.RefusedError as error:
    print(error)
"""
JS = """
const { token: again } = await contoso.getToken("https://storage.azure.com/.default");
if (headers.Authorization !== `Bearer ${again}`) throw new Error("another token");
const refusal = await contoso.getToken("https://graph.microsoft.com/.default").catch((error) => error);
if (refusal.kind !== "refused") throw refusal;
console.log(refusal.message);
"""


def provision(api: str) -> None:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{api}/connections", json.dumps(CONTOSO).encode(), headers)
    with urllib.request.urlopen(request) as response:
        print(response.status, json.load(response)["secret"]["name"])


def run(language: str, readme: str, wanted: str = "") -> None:
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", Path(readme).read_text(), re.DOTALL | re.MULTILINE)
    chosen = [block for block in blocks if ("azure" in block) == bool(wanted)]
    assert chosen
    for block in chosen:
        if "headers" in block:
            block += PYTHON if language == "python" else JS
        interpreter = [sys.executable, "-"] if language == "python" else ["node", "--input-type=module", "-"]
        subprocess.run(interpreter, input=block, text=True, check=True)
    print(f"{len(chosen)} blocks of {readme} ran")


if __name__ == "__main__":
    {"provision": provision, "run": run}[sys.argv[1]](*sys.argv[2:])
