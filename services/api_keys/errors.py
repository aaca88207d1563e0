"""Refusals about API keys."""

from core.errors import DomainError, ErrorKind, NotFound
from services.auth.errors import CredentialsRefused


class ApiKeyNotFound(NotFound):
    """The tenant has no such key."""

    message = "API key not found"


class TooManyApiKeys(DomainError):
    """The tenant has as many keys that work as it may have."""

    kind = ErrorKind.CONFLICT
    code = "API_KEY_LIMIT"
    message = "This tenant has as many API keys as it may; revoke one first"


class ExpiryInThePast(DomainError):
    """A key was to be made whose time is over already."""

    kind = ErrorKind.INVALID
    code = "VALIDATION_ERROR"
    message = "expires_at lies in the past"


class ApiKeyRevoked(CredentialsRefused):
    """The key was good once, and somebody has ended it."""

    code = "API_KEY_REVOKED"
    message = "This API key has been revoked"


class ApiKeyExpired(CredentialsRefused):
    """The key was good once, and its time is over."""

    code = "API_KEY_EXPIRED"
    message = "This API key has expired"
