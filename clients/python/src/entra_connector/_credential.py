from __future__ import annotations

import functools
import json
import re
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Protocol, cast

from ._errors import (
    EntraConnectorError,
    MalformedSecretError,
    NotFoundError,
    NotPermittedError,
    RefusedError,
    TokenExpiredError,
    UnavailableError,
)
from ._kept import Kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

    from azure.core.credentials import AccessToken as AzureToken
    from azure.core.credentials import AccessTokenInfo as AzureTokenInfo
    from azure.core.credentials import TokenRequestOptions
    from typing_extensions import Self

_PART = r"[a-z0-9][a-z0-9._-]*"
_NAME = re.compile(rf"([A-Za-z0-9/_+=.@-]+/connections/)?({_PART}/{_PART})")
_ARN = re.compile(
    rf"arn:[^:]+:secretsmanager:([^:]+):[0-9]{{12}}:secret:.+/connections/({_PART}/{_PART})-[A-Za-z0-9]{{6}}"
)
_KEY = "PAN_SEC_MICROSOFT_ENTRA_"
_NUMBER = re.compile(r"[0-9]{1,10}")
_TEXT = re.compile(r".+", re.DOTALL)
_SIX = {
    _KEY + "TOKEN_TYPE": re.compile("Bearer"),
    _KEY + "EXPIRES_AT": _NUMBER,
    _KEY + "EXPIRES_IN": _NUMBER,
    _KEY + "EXT_EXPIRES_IN": _NUMBER,
    _KEY + "ACCESS_TOKEN": _TEXT,
    _KEY + "TENANT_ID": _TEXT,
}
_NO_SECRET = (NotFoundError, "there is no such secret, or it has no token")
_MEANINGS: dict[str, tuple[type[EntraConnectorError], str]] = {
    "ResourceNotFoundException": _NO_SECRET,
    "InvalidRequestException": _NO_SECRET,  # while it is being deleted
    "AccessDeniedException": (NotPermittedError, "AWS does not permit it"),
}
_SCOPE_TAG = "entra-connector:scope"
_SWEEP = 5 * 60 + 60  # seconds: the connector sweeps every five minutes, and a sweep takes a moment
_NEVER = float("inf")


class SecretsManager(Protocol):
    """What is asked of a client. boto3's also has describe_secret, for the connection's scope."""

    def get_secret_value(self, *, SecretId: str) -> Mapping[str, Any]: ...


class Values(dict[str, str]):
    """The six values by their keys. It prints without them."""

    def __repr__(self) -> str:
        return f"<{len(self)} values>"


@dataclass(frozen=True)
class AccessToken:
    """A token and its expiry, in the form of both kinds of token of azure-core. It prints without the token."""

    token: str = field(repr=False)
    expires_on: int  # Unix time
    token_type: str
    refresh_on: int  # when a newer one may be there

    def __iter__(self) -> Iterator[Any]:
        return iter((self.token, self.expires_on))

    def __getitem__(self, index: int) -> Any:
        return (self.token, self.expires_on)[index]


def azure_form(token: AccessToken) -> AzureToken:
    """Return a token as azure-core's own class where that is loaded: msgraph-sdk takes no other."""
    azure: Any = sys.modules.get("azure.core.credentials")
    if azure is None:
        return cast("AzureToken", token)
    form = _quiet(azure.AccessToken)(token.token, token.expires_on)
    form.token_type, form.refresh_on = token.token_type, token.refresh_on
    return cast("AzureToken", form)


@functools.cache
def _quiet(azure: type) -> Any:
    """Return a subclass of azure-core's named tuple that prints as ours, without the token."""
    return type("AccessToken", (azure,), {"__repr__": AccessToken.__repr__})


class ConnectionCredential:
    """The token of one connection, as a credential of the Azure SDK or by itself.

    connection: "app/connection", or the full name or the ARN of its secret.
    prefix: the connector's SECRET_PREFIX.
    window: the connector's REFRESH_WINDOW, in seconds.
    scope: the connection's scope. Without it, the first call that asks for a scope looks it up.
    client: a boto3 client for Secrets Manager, with its time limits and retries.
    """

    def __init__(
        self,
        connection: str,
        *,
        prefix: str = "entra",
        window: int = 1800,
        scope: str | None = None,
        client: SecretsManager | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        arn, name = _ARN.fullmatch(connection), _NAME.fullmatch(connection)
        found = arn or name
        if not found or ".." in found[2]:
            raise ValueError(f"{connection!r} is neither app/connection nor the name or ARN of a connection's secret")
        self.connection = found[2]
        self._secret = connection if found[1] else f"{prefix}/connections/{connection}"
        self._window = window
        self._own_client = _client(arn and arn[1]) if client is None else None
        self._client: Any = client if self._own_client is None else self._own_client
        self._values = Kept(clock, self._read_values, self._refreshed, _ends, self._expired)
        self._scope = Kept(clock, self._read_scope, lambda _: _NEVER, lambda _: _NEVER, MalformedSecretError, scope)

    def __repr__(self) -> str:
        return f"ConnectionCredential({self.connection!r})"

    def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,  # noqa: ARG002
        **_: Any,
    ) -> AzureToken:
        """Return a token that has not expired. Without scopes, it is the connection's whatever its scope."""
        return azure_form(self._token(scopes, claims, tenant_id))

    def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AzureTokenInfo:
        """Do the same as get_token."""
        o = options or {}
        return cast("AzureTokenInfo", self._token(scopes, o.get("claims"), o.get("tenant_id")))

    def values(self) -> Values:
        """Return the six values, of a token that has not expired."""
        return Values(self._values.get()[0])

    def close(self) -> None:
        """Close the client, unless it was the caller's."""
        if self._own_client:
            self._own_client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.close()

    def _token(
        self, scopes: tuple[str, ...], claims: str | None, tenant_id: str | None, *, may_read: bool = True
    ) -> AccessToken:
        if claims:
            raise self._fail(RefusedError, "a stored token cannot answer a claims challenge")
        if scopes:
            scope, _ = self._scope.get(may_read=may_read)
            if len(scopes) > 1 or _normal(scopes[0]) != _normal(scope):
                raise self._fail(RefusedError, f"its scope is {scope}, not {' '.join(scopes)}")
        values, again = self._values.get(may_read=may_read)
        tenant = values[_KEY + "TENANT_ID"]
        if tenant_id and tenant_id.lower() != tenant.lower():
            raise self._fail(RefusedError, f"its tenant is {tenant}, not {tenant_id}")
        return AccessToken(
            values[_KEY + "ACCESS_TOKEN"], int(values[_KEY + "EXPIRES_AT"]), values[_KEY + "TOKEN_TYPE"], int(again)
        )

    def _refreshed(self, values: Values) -> float:
        """Tell when the connector will have refreshed a token.

        It is due with less than the window left, or than half of its life where that is shorter, and the
        next sweep refreshes it.
        """
        left = min(self._window, int(values[_KEY + "EXPIRES_IN"]) // 2) - _SWEEP
        return _ends(values) - max(left, 0)

    def _expired(self, values: Values) -> EntraConnectorError:
        at = datetime.fromtimestamp(_ends(values), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        return self._fail(TokenExpiredError, f"the stored token has expired: the connector is behind: it ended at {at}")

    def _read_values(self) -> Values:
        stored = _json_object(self._call("get_secret_value").get("SecretString"))
        if stored is None:
            raise self._malformed("it is not a JSON object")
        for key, form in _SIX.items():
            if not isinstance(value := stored.get(key), str) or not form.fullmatch(value):
                raise self._malformed(f"{key} is missing or wrong")
        return Values({key: stored[key] for key in _SIX})

    def _read_scope(self) -> str:
        for tag in self._call("describe_secret").get("Tags", []):
            if tag["Key"] == _SCOPE_TAG:
                resource = re.sub("=([0-9A-F]{2})", lambda m: chr(int(m[1], 16)), tag["Value"])
                return f"{resource}/.default"
        raise self._malformed(f"it has no tag {_SCOPE_TAG}")

    def _call(self, operation: str) -> Mapping[str, Any]:
        try:
            return cast("Mapping[str, Any]", getattr(self._client, operation)(SecretId=self._secret))
        except Exception as error:  # boto3 has many, and so may another client
            code = getattr(error, "response", {}).get("Error", {}).get("Code")
            kind, what = _MEANINGS.get(code, (UnavailableError, "the secret cannot be read"))
            raise self._fail(kind, f"{what}: {self._secret}: {error}") from error

    def _malformed(self, what: str) -> EntraConnectorError:
        return self._fail(MalformedSecretError, f"the secret is not as the connector writes it: {what}")

    def _fail(self, kind: type[EntraConnectorError], what: str) -> EntraConnectorError:
        return kind(f"entra-connector: connection {self.connection}: {what}")


def _ends(values: Values) -> int:
    return int(values[_KEY + "EXPIRES_AT"])


def _normal(scope: str) -> str:
    """Make scopes that Entra takes for the same equal."""
    return scope.lower().replace("//.default", "/.default", 1)


def _json_object(text: object) -> dict[str, Any] | None:
    """Return nothing instead of json's error, which holds the whole text."""
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _client(region: str | None) -> Any:
    import boto3  # which takes a while, and a caller with a client may not need it
    from botocore.config import Config

    retries = {"mode": "standard", "total_max_attempts": 3}
    config = Config(connect_timeout=3, read_timeout=3, retries=retries)
    return boto3.session.Session().client("secretsmanager", region_name=region, config=config)
