from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from manager import EPOCH, TABLE, Clock, Manager

import entra_connector
from entra_connector import ConnectionCredential, aio

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = {
    "not_found": entra_connector.NotFoundError,
    "not_permitted": entra_connector.NotPermittedError,
    "malformed": entra_connector.MalformedSecretError,
    "expired": entra_connector.TokenExpiredError,
    "refused": entra_connector.RefusedError,
    "unavailable": entra_connector.UnavailableError,
}

Answer = Any  # a token, or the error


def by_threads(case: dict[str, Any], **options: Any) -> Callable[[int, dict[str, Any]], list[Answer]]:
    credential = ConnectionCredential(case.get("connection", "default/contoso"), **options)

    def ask(_: int, ask: dict[str, Any]) -> Answer:
        try:
            return credential.get_token_info(*ask.get("scopes", ()), options=request(ask))
        except entra_connector.EntraConnectorError as error:
            return error

    def ask_all(callers: int, what: dict[str, Any]) -> list[Answer]:
        with ThreadPoolExecutor(callers) as threads:
            return list(threads.map(ask, range(callers), [what] * callers))

    return ask_all


def by_tasks(case: dict[str, Any], **options: Any) -> Callable[[int, dict[str, Any]], list[Answer]]:
    credential = aio.ConnectionCredential(case.get("connection", "default/contoso"), **options)

    async def ask_all(callers: int, what: dict[str, Any]) -> list[Answer]:
        asks = [credential.get_token_info(*what.get("scopes", ()), options=request(what)) for _ in range(callers)]
        return await asyncio.gather(*asks, return_exceptions=True)

    return lambda callers, what: asyncio.run(ask_all(callers, what))


def request(ask: dict[str, Any]) -> Any:
    options = {"claims": ask.get("claims"), "tenant_id": ask.get("tenant"), "enable_cae": True}
    return {key: value for key, value in options.items() if value}


@pytest.mark.parametrize("way", [by_threads, by_tasks])
@pytest.mark.parametrize("case", TABLE["cases"], ids=lambda case: case["name"])
def test_case(case: dict[str, Any], way: Callable[..., Callable[[int, dict[str, Any]], list[Answer]]]) -> None:
    manager = Manager(case.get("secret", "entra/connections/default/contoso"))
    manager.tag = case.get("scope_tag", manager.tag)
    clock = Clock()
    options = {key: case[key] for key in ("prefix", "scope", "window") if key in case}
    if case.get("invalid"):
        with pytest.raises(ValueError, match="neither"):
            way(case, client=manager, clock=clock, **options)
        return
    ask_all = way(case, client=manager, clock=clock, **options)
    for step in case["steps"]:
        clock.at, manager.store = step["at"], step.get("store", manager.store)
        callers, want = step.get("callers", 1), step["answer"]
        manager.takes = 0.05 if callers > 1 else 0  # so that the others come meanwhile
        for got in ask_all(callers, step.get("ask", {})):
            if "error" in want:
                assert type(got) is KINDS[want["error"]], got
                assert want.get("says", "") in str(got)
                assert "default/contoso" in str(got)
                assert "token-" not in str(got)
                continue
            assert not isinstance(got, Exception), got
            assert got.token == "token-" + want["token"]
            assert got.expires_on == EPOCH + want.get("ends", got.expires_on - EPOCH)
            assert got.refresh_on == EPOCH + want.get("again", got.refresh_on - EPOCH)
        assert manager.reads == step.get("reads", manager.reads), step
        assert manager.describes == step.get("describes", manager.describes), step
