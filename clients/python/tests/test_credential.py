from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from typing import Any

import pytest
from azure.core.credentials import AccessToken, SupportsTokenInfo, TokenCredential
from azure.core.credentials_async import AsyncSupportsTokenInfo, AsyncTokenCredential
from manager import DAYS, GRAPH, Clock, Manager, six

from entra_connector import ConnectionCredential, EntraConnectorError, TokenExpiredError, aio

STORE = {"token": "one", "ends": 3600, "life": 3600}


def test_azure_takes_them() -> None:
    sync: TokenCredential = ConnectionCredential("default/contoso", client=Manager())
    info: SupportsTokenInfo = ConnectionCredential("default/contoso", client=Manager())
    async_: AsyncTokenCredential = aio.ConnectionCredential("default/contoso", client=Manager())
    async_info: AsyncSupportsTokenInfo = aio.ConnectionCredential("default/contoso", client=Manager())
    assert isinstance(sync, TokenCredential)
    assert isinstance(info, SupportsTokenInfo)
    assert isinstance(async_, AsyncTokenCredential)
    assert isinstance(async_info, AsyncSupportsTokenInfo)


def test_a_token_is_what_get_token_promises() -> None:
    manager = Manager()
    manager.store = STORE
    with ConnectionCredential("default/contoso", client=manager, clock=Clock()) as credential:
        token = credential.get_token(f"{GRAPH}/.default", claims=None, tenant_id=None, enable_cae=True, later="x")
        value, expires_on = token[0], token[1]
        assert isinstance(token, AccessToken)  # msgraph-sdk sends nothing else
        assert (token.token, token.expires_on) == (value, expires_on) == tuple(token)
        assert credential.values()["PAN_SEC_MICROSOFT_ENTRA_ACCESS_TOKEN"] == value == "token-one"


def test_nothing_prints_a_token() -> None:
    manager = Manager()
    manager.store = STORE
    credential = ConnectionCredential("default/contoso", client=manager, clock=Clock())
    asynchronous = aio.ConnectionCredential("default/contoso", client=manager, clock=Clock())
    token, info = asyncio.run(asynchronous.get_token()), asyncio.run(asynchronous.get_token_info())
    assert isinstance(token, AccessToken)
    for thing in (credential, asynchronous, credential.get_token(), token, info, credential.values()):
        assert "token-" not in f"{thing} {thing!r} {[thing]}"
    with pytest.raises(TypeError):
        json.dumps(info)
    manager.store = {"string": '"token-of-another-program'}
    with pytest.raises(EntraConnectorError) as error:
        ConnectionCredential("default/contoso", client=manager, clock=Clock()).get_token()
    assert "token-" not in str(error.value)
    assert error.value.__cause__ is error.value.__context__ is None  # json's own error would hold the value


@pytest.mark.parametrize("day", DAYS, ids=lambda day: day["name"])
def test_day(day: dict[str, Any]) -> None:
    """A program that asks every ten seconds always gets a live token, if there is one, for few reads."""
    clock, reads = Clock(), [-60.0]

    class Day(Manager):
        def get_secret_value(self, *, SecretId: str) -> dict[str, Any]:  # noqa: ARG002
            assert clock.at - reads[-1] >= 60
            reads.append(clock.at)
            if any(a <= clock.at < b for a, b in day["failing"]):
                raise TimeoutError
            number = max(n for n, (at, _) in enumerate(day["stored"]) if at <= clock.at)
            ends = int(clock() - clock.at) + day["stored"][number][1]
            return {"SecretString": json.dumps(six(str(number), ends, day["life"]))}

    credential = ConnectionCredential("default/contoso", client=Day(), clock=clock)
    refused = 0
    for at in range(0, 86400, 10):
        clock.at = at
        try:
            token = credential.get_token()
            assert day["stored"][int(token.token)][1] > at, "an expired token was handed out"
        except EntraConnectorError:
            refused += 1
    if day is DAYS[0]:
        assert refused == 0
        assert (len(reads) - 1) * day["life"] / 86400 <= 2.2


def test_who_holds_a_valid_token_does_not_wait() -> None:
    hanging, answer = threading.Event(), threading.Event()

    class Hanging(Manager):
        def get_secret_value(self, *, SecretId: str) -> dict[str, Any]:
            if self.reads:
                hanging.set()
                answer.wait()
            return super().get_secret_value(SecretId=SecretId)

    manager, clock = Hanging(), Clock()
    manager.store = STORE
    credential = ConnectionCredential("default/contoso", client=manager, clock=clock)
    credential.get_token()
    clock.at = 2160
    manager.store = {"token": "two", "ends": 5000, "life": 3600}
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(credential.get_token().token))
    reader.start()
    hanging.wait()
    assert credential.get_token().token == "token-one"
    answer.set()
    reader.join()
    assert got == ["token-two"]


def test_a_read_that_is_interrupted_blocks_nobody() -> None:
    class Interrupted(Manager):
        def get_secret_value(self, *, SecretId: str) -> dict[str, Any]:
            if not self.reads:
                self.reads += 1
                raise KeyboardInterrupt
            return super().get_secret_value(SecretId=SecretId)

    manager, clock = Interrupted(), Clock()
    manager.store = STORE
    credential = ConnectionCredential("default/contoso", client=manager, clock=clock)
    with pytest.raises(KeyboardInterrupt):
        credential.get_token()
    with pytest.raises(EntraConnectorError, match="interrupted"):
        credential.get_token()
    clock.at = 60
    assert credential.get_token().token == "token-one"


def test_asyncio_reads_in_a_thread_and_survives_a_cancelled_caller() -> None:
    manager = Manager()
    manager.store, manager.takes = STORE, 0.05
    credential = aio.ConnectionCredential("default/contoso", client=manager, clock=Clock())

    async def main() -> None:
        async with credential:
            first = asyncio.create_task(credential.get_token())
            second = asyncio.create_task(credential.get_token())
            await asyncio.sleep(0.01)
            first.cancel()
            assert (await second).token == "token-one"
            assert (await credential.values())["PAN_SEC_MICROSOFT_ENTRA_TENANT_ID"]

    asyncio.run(main())
    assert manager.reads == 1
    assert manager.threads != {threading.get_ident()}
    assert asyncio.run(credential.get_token()).token == "token-one"  # in another event loop


def test_a_kept_token_is_not_handed_out_once_the_error_is_newer() -> None:
    manager, clock = Manager(), Clock()
    manager.store = {"token": "one", "ends": 30, "life": 3600}
    credential = ConnectionCredential("default/contoso", client=manager, clock=clock)
    credential.get_token()
    clock.at = 30
    with pytest.raises(TokenExpiredError):
        credential.get_token()


def test_import_needs_neither_boto3_nor_azure() -> None:
    code = "import sys, entra_connector.aio; print([m for m in sys.modules if 'boto' in m or 'azure' in m])"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout == "[]\n"
