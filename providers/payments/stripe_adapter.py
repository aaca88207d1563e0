"""Stripe by its official SDK, asynchronous over aiohttp.

The SDK's `async` extra would bring httpx, which is not needed: its aiohttp client does the same. Wire facts
are in providers.md 2.1; what events mean is in `stripe_events.py`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Final

import aiohttp
import stripe

from providers.payments.contract import (
    BadPayload,
    BadSignature,
    Capabilities,
    CheckoutCreated,
    CheckoutRequest,
    PayloadFault,
    ProviderRejected,
    ProviderUnavailable,
    SignatureFault,
    VerifiedEvent,
)
from providers.payments.facts import BillingPeriod, Fact, SubscriptionState
from providers.payments.reading import Node, read_envelope
from providers.payments.signature import (
    SignatureHeader,
    find_header,
    parse_signature_header,
    refuse_wrong_time,
)
from providers.payments.stripe_events import PROVIDER, interpret_stripe
from providers.payments.stripe_money import AmountNotPayable, to_stripe
from providers.payments.stripe_objects import read_subscription

if TYPE_CHECKING:
    # The SDK loads its 1,500 parameter classes on demand; at run time none of them is needed.
    from stripe.params.checkout import SessionCreateParams

API_VERSION: Final = "2026-10-28.endive"
"""Pinned here and not left to the SDK, so that upgrading the SDK does not change shapes behind our back."""

DEFAULT_API_BASE: Final = "https://api.stripe.com"

_INTERVALS: Final[dict[BillingPeriod, str]] = {"monthly": "month", "yearly": "year"}
# Of Stripe's error codes, those that the person who pays can do something about.
_SAFE_TEXTS: Final = {
    "amount_too_large": "The amount is above what the payment provider can charge",
    "amount_too_small": "The amount is below what the payment provider can charge",
    "email_invalid": "The payment provider does not accept this e-mail address",
    "url_invalid": "The payment provider does not accept the return address",
}
_OVER: Final = ("canceled", "incomplete_expired")
_log = logging.getLogger(__name__)


class StripeProvider:
    """The adapter for one Stripe account.

    Args:
        secret_key: the API key; a live key (`sk_live_`, `rk_live_`) ignores test-mode events.
        webhook_secrets: the endpoint's signing secrets, several while one is rolled; empty refuses every
            webhook.
        api_base: where the API is.
        timeout_s: bounds each call as a whole, the SDK's retries included.
        max_network_retries: how often the SDK repeats a call that failed on the network or with 409 or 5xx.
            Its automatic idempotency key makes that safe.
    """

    def __init__(
        self,
        *,
        secret_key: str,
        webhook_secrets: Sequence[str],
        api_base: str = DEFAULT_API_BASE,
        timeout_s: float = 30.0,
        max_network_retries: int = 2,
    ) -> None:
        # A switch of the whole SDK. Left on, it writes an id into the home directory, reads the interpreter's
        # binary on the event loop, and reports our latencies.
        stripe.enable_telemetry = False
        self._webhook_secrets = tuple(webhook_secrets)
        self._is_live = secret_key.startswith(("sk_live_", "rk_live_"))
        self._timeout_s = timeout_s
        # Longer than the bound on the whole call: two limits that end in the same turn of the loop cancel each other,
        # and the SDK would try again beyond the time.
        self._http = stripe.AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=timeout_s * 2))
        self._client = stripe.StripeClient(
            secret_key,
            stripe_version=API_VERSION,
            base_addresses={"api": api_base.rstrip("/")},
            max_network_retries=max_network_retries,
            http_client=self._http,
        )

    @property
    def name(self) -> str:
        return PROVIDER

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(recurring=True, fetch_subscription=True, development_only=False)

    def verify(self, *, body: bytes, headers: Mapping[str, str], now: datetime) -> VerifiedEvent:
        """See `PaymentProvider.verify`."""
        if not self._webhook_secrets:
            raise BadSignature(SignatureFault.NOT_CONFIGURED, "Stripe webhook secret is not configured")
        signed = parse_signature_header(find_header(headers, "Stripe-Signature"), provider="Stripe")
        if not any(_is_signed(body, signed, secret) for secret in self._webhook_secrets):
            raise BadSignature(SignatureFault.INVALID_SIGNATURE, "Invalid Stripe webhook signature")
        refuse_wrong_time(signed.timestamp, now=now, provider="Stripe")
        event = read_envelope(body, provider="Stripe", signed_at=signed.signed_at)
        # Thin events (`v2.core.event`) name an object without showing it; our endpoint asks for snapshots
        # only.
        if event.payload.get("object", "event") != "event":
            raise BadPayload(PayloadFault.NOT_AN_EVENT, "Invalid Stripe webhook payload")
        return event

    def interpret(self, event: VerifiedEvent) -> tuple[Fact, ...]:
        """See `PaymentProvider.interpret`."""
        if self._is_live and event.payload.get("livemode") is False:
            # Anybody with access to test mode can make a test payment; it must never activate anything real.
            return ()
        return interpret_stripe(event)

    async def create_checkout(self, request: CheckoutRequest) -> CheckoutCreated:
        """See `PaymentProvider.create_checkout`."""
        params = _checkout_params(request)
        async with self._calling("create_checkout"):
            answer = await self._client.v1.checkout.sessions.create_async(
                params, {"idempotency_key": f"checkout-{request.checkout_id}"}
            )
            session = _node(answer, "session")
            return CheckoutCreated(
                session_id=session.ref("id"),
                url=session.text("url"),
                customer_ref=session.ref_or_none("customer"),
                expires_at=session.moment("expires_at"),
            )

    async def cancel(self, subscription_ref: str, *, at_period_end: bool) -> None:
        """See `PaymentProvider.cancel`."""
        subscriptions = self._client.v1.subscriptions
        try:
            async with self._calling("cancel"):
                # No idempotency key of ours: cancelling, taking it back and cancelling again within a day
                # must not be answered from Stripe's memory of the first time.
                if at_period_end:
                    await subscriptions.update_async(subscription_ref, {"cancel_at_period_end": True})
                else:
                    await subscriptions.cancel_async(subscription_ref)
        except ProviderRejected:
            # Stripe refuses to cancel what is over already, which is all that was asked for.
            subscription = await self._retrieve(subscription_ref)
            if subscription is None or subscription.data.get("status") not in _OVER:
                raise

    async def fetch_subscription(self, subscription_ref: str) -> SubscriptionState | None:
        """See `PaymentProvider.fetch_subscription`."""
        subscription = await self._retrieve(subscription_ref)
        try:
            return None if subscription is None else read_subscription(subscription)
        except BadPayload as nonsense:
            raise ProviderUnavailable(retryable=True) from nonsense

    async def aclose(self) -> None:
        """See `PaymentProvider.aclose`."""
        await self._http.close_async()  # type: ignore[no-untyped-call]

    async def _retrieve(self, subscription_ref: str) -> Node | None:
        try:
            async with self._calling("fetch_subscription"):
                answer = await self._client.v1.subscriptions.retrieve_async(subscription_ref)
                return _node(answer, "subscription")
        except ProviderRejected as refusal:
            if refusal.details.get("reason") == "resource_missing":
                return None
            raise

    @asynccontextmanager
    async def _calling(self, operation: str) -> AsyncIterator[None]:
        """Bound one call in time and turn whatever goes wrong into the contract's errors."""
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        # The SDK wraps only what fails before the answer's head: a connection that breaks inside the body
        # shows aiohttp's own error. It also trusts the shape of what it is told, and trips over any other.
        except (TimeoutError, aiohttp.ClientError, BadPayload, AttributeError, TypeError, KeyError) as broken:
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


def _translate(error: stripe.StripeError) -> ProviderRejected | ProviderUnavailable:
    if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
        return ProviderUnavailable(retryable=False)
    if isinstance(error, stripe.CardError):
        # Stripe words these for the cardholder.
        return ProviderRejected(error.user_message, details={"reason": error.code})
    if isinstance(error, stripe.InvalidRequestError | stripe.IdempotencyError):
        return ProviderRejected(_SAFE_TEXTS.get(error.code or ""), details={"reason": error.code})
    return ProviderUnavailable(retryable=True)


def _checkout_params(request: CheckoutRequest) -> "SessionCreateParams":
    try:
        unit_amount = to_stripe(request.amount, request.currency)
    except AmountNotPayable as unpayable:
        raise ProviderRejected(str(unpayable), details={"reason": "amount_not_payable"}) from unpayable
    # On the session for the checkout's own events; on the subscription because its invoices, and so every
    # renewal, carry a copy of that and never of the session's (contract.md 4.4).
    metadata = {
        "checkout_id": str(request.checkout_id),
        "tenant_id": str(request.tenant_id),
        "plan_id": str(request.plan_id),
        "billing_period": request.billing_period,
    }
    params: SessionCreateParams = {
        "mode": "subscription",
        "line_items": [
            {
                "quantity": 1,
                "price_data": {
                    "currency": request.currency.lower(),
                    "unit_amount": unit_amount,
                    "recurring": {"interval": _INTERVALS[request.billing_period]},
                    "product_data": {"name": request.plan_name},
                },
            }
        ],
        "client_reference_id": str(request.checkout_id),
        "metadata": metadata,
        "subscription_data": {"metadata": metadata},
        "success_url": request.success_url,
        "cancel_url": request.cancel_url,
    }
    # Stripe takes one or the other: a known customer already has an e-mail address.
    if request.customer_ref is not None:
        params["customer"] = request.customer_ref
    elif request.customer_email is not None:
        params["customer_email"] = request.customer_email
    return params


def _node(answer: object, path: str) -> Node:
    if not isinstance(answer, stripe.StripeObject):
        raise BadPayload(PayloadFault.MALFORMED_OBJECT, f"{path} is not an object")
    return Node(answer.to_dict(), path)


def _is_signed(body: bytes, signed: SignatureHeader, secret: str) -> bool:
    # The SDK is given what we read, not what was sent, so that its parser and ours can never differ.
    header = f"t={signed.timestamp}" + "".join(f",v1={signature}" for signature in signed.signatures)
    try:
        # Without a tolerance: the SDK would read the machine's clock and let the future pass.
        return bool(stripe.WebhookSignature.verify_header(body, header, secret))
    except (stripe.SignatureVerificationError, UnicodeDecodeError):
        # The SDK signs text, so bytes that are none cannot carry Stripe's signature.
        return False
