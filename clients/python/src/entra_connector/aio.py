"""The same for asyncio. boto3 is not asynchronous, so a read runs in a thread."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar, cast

from . import ConnectionCredential as _ConnectionCredential
from . import Values
from ._credential import AccessToken, azure_form
from ._errors import EntraConnectorError
from ._kept import Kept, WouldReadError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from azure.core.credentials import AccessToken as AzureToken
    from azure.core.credentials import AccessTokenInfo as AzureTokenInfo
    from azure.core.credentials import TokenRequestOptions
    from typing_extensions import Self

T = TypeVar("T")


class ConnectionCredential:
    """An entra_connector.ConnectionCredential for asyncio, with the same arguments."""

    def __init__(self, connection: str, **options: Any) -> None:
        self._sync = _ConnectionCredential(connection, **options)
        self._reads: dict[Kept[Any], asyncio.Task[None]] = {}

    @property
    def connection(self) -> str:
        return self._sync.connection

    def __repr__(self) -> str:
        return f"aio.{self._sync!r}"

    async def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,  # noqa: ARG002
        **_: Any,
    ) -> AzureToken:
        return azure_form(await self._token(scopes, claims, tenant_id))

    async def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AzureTokenInfo:
        o = options or {}
        return cast("AzureTokenInfo", await self._token(scopes, o.get("claims"), o.get("tenant_id")))

    async def _token(self, scopes: tuple[str, ...], claims: str | None, tenant_id: str | None) -> AccessToken:
        return await self._get(lambda: self._sync._token(scopes, claims, tenant_id, may_read=False))

    async def values(self) -> Values:
        values, _ = await self._get(lambda: self._sync._values.get(may_read=False))
        return Values(values)

    async def close(self) -> None:
        self._sync.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.close()

    async def _get(self, get: Callable[[], T]) -> T:
        while True:
            try:
                return get()
            except WouldReadError as would:
                await asyncio.shield(self._read(would.kept))  # a caller that is cancelled spoils it for nobody

    def _read(self, kept: Kept[Any]) -> asyncio.Task[None]:
        """Return the read that is under way in this event loop, or begin one."""
        task = self._reads.get(kept)
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            task = self._reads[kept] = asyncio.create_task(_in_thread(kept))
        return task


async def _in_thread(kept: Kept[Any]) -> None:
    with contextlib.suppress(EntraConnectorError):  # everybody who waits gets it from kept
        await asyncio.to_thread(kept.get)
