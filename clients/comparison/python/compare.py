"""Lives through the days of ../../days.json with each Python client, and prints a line of JSON for each."""

import json
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import time_machine
from aws_lambda_powertools.utilities.parameters import SecretsProvider
from aws_secretsmanager_caching import SecretCache
from botocore.exceptions import ClientError

from entra_connector import ConnectionCredential

SECRET = "entra/connections/default/contoso"
START = datetime(2026, 11, 23, tzinfo=timezone.utc).timestamp()
Ask = Callable[[], int]  # when the token that was handed out ends


class Manager:
    """Secrets Manager, as boto3 shows it."""

    def __init__(self, day: dict[str, Any]) -> None:
        self.day, self.at, self.calls = day, 0, 0

    def current(self) -> int:
        return max(n for n, (at, _) in enumerate(self.day["stored"]) if at <= self.at)

    def _stored(self) -> int:
        self.calls += 1
        if any(a <= self.at < b for a, b in self.day["failing"]):
            raise ClientError({"Error": {"Code": "InternalServiceError"}}, "GetSecretValue")
        return self.current()

    def get_secret_value(self, **_: str) -> dict[str, Any]:
        stored, life = self._stored(), str(self.day["life"])
        values = {
            "TOKEN_TYPE": "Bearer",
            "EXPIRES_AT": str(int(START) + self.day["stored"][stored][1]),
            "EXPIRES_IN": life,
            "EXT_EXPIRES_IN": life,
            "ACCESS_TOKEN": "x",
            "TENANT_ID": "x",
        }
        return {"SecretString": json.dumps({f"PAN_SEC_MICROSOFT_ENTRA_{key}": value for key, value in values.items()})}

    def describe_secret(self, **_: str) -> dict[str, Any]:
        return {"VersionIdsToStages": {str(self._stored()): ["AWSCURRENT"]}}


def ends(text: str) -> int:
    return int(json.loads(text)["PAN_SEC_MICROSOFT_ENTRA_EXPIRES_AT"])


def entra_connector(manager: Manager) -> Ask:
    credential = ConnectionCredential("default/contoso", client=manager)
    return lambda: credential.get_token().expires_on


def caching(manager: Manager) -> Ask:
    cache = SecretCache(client=manager)
    return lambda: ends(cache.get_secret_string(SECRET))


def powertools(manager: Manager) -> Ask:
    provider = SecretsProvider(boto3_client=manager)
    return lambda: ends(provider.get(SECRET))


for day in json.loads(Path(sys.argv[1]).read_text()):
    for name, make in {
        "this client, Python": entra_connector,
        "aws-secretsmanager-caching, Python": caching,
        "Powertools, Python": powertools,
    }.items():
        manager, expired, errors = Manager(day), 0, 0
        with time_machine.travel(START, tick=False) as clock:
            ask = make(manager)
            for manager.at in range(0, 86400, 10):
                clock.move_to(START + manager.at)
                try:
                    expired += ask() <= START + manager.at
                except Exception:
                    errors += day["stored"][manager.current()][1] > manager.at
        calls = manager.calls
        print(json.dumps({"client": name, "day": day["name"], "calls": calls, "expired": expired, "errors": errors}))
