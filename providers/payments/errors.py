"""How a payment provider, or what claims to come from one, fails."""

from enum import StrEnum

from core.errors import DomainError, ErrorKind


class SignatureFault(StrEnum):
    """Why a signature is refused."""

    NOT_CONFIGURED = "not_configured"
    INVALID_HEADER = "invalid_header"
    INVALID_SIGNATURE = "invalid_signature"
    STALE = "stale"
    FUTURE = "future"


class BadSignature(DomainError):
    """A webhook is not proven to be the provider's; `fault` says how, the text is contract.md 1.5's."""

    kind = ErrorKind.BAD_REQUEST
    code = "INVALID_SIGNATURE"
    message = "Invalid webhook signature"

    def __init__(self, fault: SignatureFault, text: str) -> None:
        self.fault = fault
        super().__init__(text)


class PayloadFault(StrEnum):
    """Why a signed body is refused."""

    NOT_AN_EVENT = "not_an_event"
    MISSING_FIELDS = "missing_fields"
    MALFORMED_OBJECT = "malformed_object"


class BadPayload(DomainError):
    """A webhook is the provider's but cannot be read; the text names the place, never the content."""

    kind = ErrorKind.BAD_REQUEST
    code = "INVALID_PAYLOAD"
    message = "Invalid webhook payload"

    def __init__(self, fault: PayloadFault, text: str) -> None:
        self.fault = fault
        super().__init__(text)


class ProviderUnavailable(DomainError):
    """The provider did not answer as it should; nothing is known of the outcome.

    `retryable` is False when repeating cannot help before an operator acts (refused credentials). `retry_after_s`
    is when it asked to be called again, in seconds, where it did.
    """

    kind = ErrorKind.UNAVAILABLE
    code = "PAYMENT_ERROR"
    message = "The payment provider is temporarily unavailable"

    def __init__(self, *, retryable: bool, retry_after_s: int | None = None) -> None:
        self.retryable = retryable
        super().__init__(retry_after_s=retry_after_s)


class ProviderRejected(DomainError):
    """The provider understood and refused; the text is safe to show to the user."""

    kind = ErrorKind.BAD_REQUEST
    code = "PAYMENT_ERROR"
    message = "The payment provider refused the request"
