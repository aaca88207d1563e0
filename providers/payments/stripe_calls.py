"""A call of Stripe's API: bounded in time, left alone while Stripe is down, and failing in the contract's own words."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from decimal import InvalidOperation
from typing import Final

import aiohttp
import stripe

from providers.circuit import Circuit, CircuitOpen
from providers.payments.errors import BadPayload, ProviderRejected, ProviderUnavailable
from providers.payments.signature import find_header

# Of Stripe's error codes, those that the person who pays can do something about.
_SAFE_TEXTS: Final = {
    "amount_too_large": "The amount is above what the payment provider can charge",
    "amount_too_small": "The amount is below what the payment provider can charge",
    "email_invalid": "The payment provider does not accept this e-mail address",
    "url_invalid": "The payment provider does not accept the return address",
}
_log = logging.getLogger(__name__)


class StripeCalls:
    """Bounds each call in time, and turns whatever goes wrong into the contract's errors.

    Args:
        timeout_s: bounds a call as a whole, the SDK's retries included.
        circuit: leaves Stripe alone for a while when calls keep failing; made with `counts_against_stripe`.
    """

    def __init__(self, *, timeout_s: float, circuit: Circuit | None) -> None:
        self._timeout_s = timeout_s
        self._circuit = circuit

    @asynccontextmanager
    async def __call__(self, operation: str) -> AsyncIterator[None]:
        """Make the call that is the body."""
        try:
            with nullcontext() if self._circuit is None else self._circuit.call():
                async with self._translating(operation):
                    yield
        except CircuitOpen as left_alone:
            _log.warning("stripe %s failed: left alone", operation)
            raise ProviderUnavailable(retryable=True, retry_after_s=left_alone.retry_after_s) from left_alone

    @asynccontextmanager
    async def _translating(self, operation: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        # The SDK wraps only what fails before the answer's head: a connection that breaks inside the body
        # shows aiohttp's own error. It also trusts the shape of what it is told, and trips over any other.
        except (
            TimeoutError,
            aiohttp.ClientError,
            BadPayload,
            AttributeError,
            TypeError,
            KeyError,
            InvalidOperation,
        ) as broken:
            _log.warning("stripe %s failed: %s", operation, type(broken).__name__)
            raise ProviderUnavailable(retryable=True) from broken
        except stripe.StripeError as error:
            _log.warning(
                "stripe %s failed: %s status=%s code=%s request=%s",
                operation,
                type(error).__name__,
                error.http_status,
                error.code,
                error.request_id,
            )
            raise _translate(error) from error


def counts_against_stripe(error: BaseException) -> bool:
    """Tell whether a failure speaks against Stripe itself: for its circuit."""
    is_throttled = isinstance(error.__cause__, stripe.RateLimitError)
    return isinstance(error, ProviderUnavailable) and error.retryable and not is_throttled


def _translate(error: stripe.StripeError) -> ProviderRejected | ProviderUnavailable:
    if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
        return ProviderUnavailable(retryable=False)
    if isinstance(error, stripe.CardError):
        # Stripe words these for the cardholder.
        return ProviderRejected(error.user_message, details={"reason": error.code})
    if isinstance(error, stripe.InvalidRequestError | stripe.IdempotencyError):
        return ProviderRejected(_SAFE_TEXTS.get(error.code or ""), details={"reason": error.code})
    wait = find_header(error.headers or {}, "Retry-After") or ""
    return ProviderUnavailable(retryable=True, retry_after_s=int(wait[:6]) if wait.isdecimal() else None)
