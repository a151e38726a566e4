"""A Secrets Manager with one secret, and the cases that the clients of all languages share."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

CLIENTS = Path(__file__).parents[2]
TABLE = json.loads(CLIENTS.joinpath("cases.json").read_text())
DAYS = json.loads(CLIENTS.joinpath("days.json").read_text())
EPOCH = TABLE["epoch"]
TENANT = "c0000000-0000-4000-8000-000000000001"
GRAPH = "https://graph.microsoft.com"


def six(token: str, ends: int, life: int) -> dict[str, Any]:
    values = {
        "TOKEN_TYPE": "Bearer",
        "EXPIRES_AT": str(ends),
        "EXPIRES_IN": str(life),
        "EXT_EXPIRES_IN": str(life),
        "ACCESS_TOKEN": token,
        "TENANT_ID": TENANT,
    }
    return {f"PAN_SEC_MICROSOFT_ENTRA_{key}": value for key, value in values.items()}


class AWSError(Exception):
    """Has the form of botocore's ClientError."""

    def __init__(self, operation: str, code: str) -> None:
        super().__init__(f"{code} when calling {operation}: not authorized to perform secretsmanager:{operation}")
        self.response = {"Error": {"Code": code}}


class Manager:
    def __init__(self, secret: str = "entra/connections/default/contoso", tag: Any = GRAPH) -> None:
        self.secret, self.tag, self.takes = secret, tag, 0.0
        self.store: dict[str, Any] = {}
        self.reads = self.describes = 0
        self.threads: set[int] = set()
        self.lock = threading.Lock()

    def get_secret_value(self, *, SecretId: str) -> dict[str, Any]:
        assert SecretId == self.secret
        with self.lock:
            self.reads += 1
            self.threads.add(threading.get_ident())
        time.sleep(self.takes)
        if code := self.store.get("error"):
            raise AWSError("GetSecretValue", code)
        if "binary" in self.store:
            return {"SecretBinary": b"{}"}
        if "string" in self.store:
            return {"SecretString": self.store["string"]}
        values = six("token-" + self.store["token"], EPOCH + self.store["ends"], self.store["life"])
        values |= self.store.get("set", {})
        return {"SecretString": json.dumps({key: value for key, value in values.items() if value is not None})}

    def describe_secret(self, *, SecretId: str) -> dict[str, Any]:
        assert SecretId == self.secret
        self.describes += 1
        if isinstance(self.tag, dict):
            raise AWSError("DescribeSecret", self.tag["error"])
        tags = [{"Key": "another", "Value": "x"}]
        return {"Tags": tags if self.tag is None else [*tags, {"Key": "entra-connector:scope", "Value": self.tag}]}


class Clock:
    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return float(EPOCH + self.at)
