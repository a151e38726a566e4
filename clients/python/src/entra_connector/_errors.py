class EntraConnectorError(Exception):
    """A connection's token could not be had. No message shows a token."""


class NotFoundError(EntraConnectorError):
    """There is no such secret. The connection may have no token yet, or is being deleted."""


class NotPermittedError(EntraConnectorError):
    """AWS does not permit the read."""


class MalformedSecretError(EntraConnectorError):
    """The secret is not as the connector writes it: not the six values, or no tag with the scope."""


class TokenExpiredError(EntraConnectorError):
    """The stored token has expired: the connector is behind."""


class RefusedError(EntraConnectorError):
    """A token was asked for that the connection does not have: another scope, another tenant, claims."""


class UnavailableError(EntraConnectorError):
    """Secrets Manager did not answer, or with an error that may pass."""
