"""Reads the Microsoft Entra tokens that entra-connector keeps fresh in AWS Secrets Manager."""

from ._credential import AccessToken, ConnectionCredential, SecretsManager, Values
from ._errors import (
    EntraConnectorError,
    MalformedSecretError,
    NotFoundError,
    NotPermittedError,
    RefusedError,
    TokenExpiredError,
    UnavailableError,
)

__all__ = [
    "AccessToken",
    "ConnectionCredential",
    "EntraConnectorError",
    "MalformedSecretError",
    "NotFoundError",
    "NotPermittedError",
    "RefusedError",
    "SecretsManager",
    "TokenExpiredError",
    "UnavailableError",
    "Values",
]
