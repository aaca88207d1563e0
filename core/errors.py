"""Domain errors: statements of what happened, with a stable code, that know nothing of HTTP or sockets.

Each door owns one table from `ErrorKind` to its own status or acknowledgement.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar


class ErrorKind(StrEnum):
    """What sort of refusal an error is; the doors translate this and nothing else."""

    BAD_REQUEST = "bad_request"
    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    GONE = "gone"
    PAYMENT_REQUIRED = "payment_required"
    TOO_LARGE = "too_large"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"


class DomainError(Exception):
    """Base of every refusal a use case can give.

    Subclasses set `kind`, `code` (contract.md 1.4) and a default `message` that is safe to show to a user.
    """

    kind: ClassVar[ErrorKind] = ErrorKind.BAD_REQUEST
    code: ClassVar[str] = "BAD_REQUEST"
    message: ClassVar[str] = "The request cannot be carried out"

    def __init__(
        self,
        text: str | None = None,
        *,
        details: Mapping[str, object] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        self.text = text or self.message
        self.details: Mapping[str, object] = details or {}
        self.retry_after_s = retry_after_s
        super().__init__(self.text)


class NotFound(DomainError):
    """The thing asked for does not exist for this caller."""

    kind = ErrorKind.NOT_FOUND
    code = "NOT_FOUND"
    message = "Not found"


class PermissionDenied(DomainError):
    """The caller is known but may not do this."""

    kind = ErrorKind.FORBIDDEN
    code = "PERMISSION_DENIED"
    message = "You don't have permission to do this"


class InvalidInput(DomainError):
    """The input is well-formed but its content is refused; `details["errors"]` names the fields."""

    kind = ErrorKind.INVALID
    code = "VALIDATION_ERROR"
    message = "Validation error"


class RateLimited(DomainError):
    """Too many requests; `retry_after_s` says how long to wait, in seconds."""

    kind = ErrorKind.RATE_LIMITED
    code = "RATE_LIMITED"
    message = "Too many requests"


class Unavailable(DomainError):
    """Something this request needs is away for now; it may be repeated."""

    kind = ErrorKind.UNAVAILABLE
    code = "UNAVAILABLE"
    message = "Service temporarily unavailable"
