"""Stripe by its official SDK, asynchronous over aiohttp.

The SDK's `async` extra would bring httpx, which is not needed: its aiohttp client does the same. Wire facts
are in providers.md 2.1; what events mean is in `stripe_events.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeVar

import aiohttp
import stripe

from providers.circuit import Circuit
from providers.payments.api import known_ref, reading_answer
from providers.payments.contract import (
    Capabilities,
    CheckoutCreated,
    CheckoutRequest,
    EventPage,
    InvoiceRequest,
    RefundCreated,
    RefundRequest,
    RefundStatus,
    Terms,
    VerifiedEvent,
)
from providers.payments.errors import (
    BadPayload,
    BadSignature,
    PayloadFault,
    ProviderRejected,
    SignatureFault,
)
from providers.payments.facts import Fact, Fee, GoneBack, SubscriptionState
from providers.payments.payment_state import PaymentState, PaymentStatus
from providers.payments.reading import Node, envelope_of, read_envelope
from providers.payments.signature import (
    SignatureHeader,
    find_header,
    parse_signature_header,
    refuse_wrong_time,
)
from providers.payments.stripe_calls import StripeCalls
from providers.payments.stripe_events import EVENT_TYPES, PROVIDER, interpret_stripe, order_to_fetch
from providers.payments.stripe_objects import fee_of_charge, read_amount, read_subscription, refunded_of_charge
from providers.payments.stripe_params import checkout_params, invoice_params, minor_units, reprice_params
from providers.payments.stripe_payments import payment_of_session, read_session

if TYPE_CHECKING:
    # The SDK loads its 1,500 parameter classes on demand; at run time none of them is needed.
    from stripe.params import EventListParams, PaymentIntentRetrieveParams, RefundCreateParams
    from stripe.params.checkout import SessionCreateParams

SIGNATURE_HEADER: Final = "Stripe-Signature"
API_VERSION: Final = "2026-10-28.endive"
"""Pinned here and not left to the SDK, so that upgrading the SDK does not change shapes behind our back."""

DEFAULT_API_BASE: Final = "https://api.stripe.com"

_OVER: Final = ("canceled", "incomplete_expired")
_REFUNDS: Final = {"succeeded": RefundStatus.SUCCEEDED, "failed": RefundStatus.FAILED, "canceled": RefundStatus.FAILED}
_Read = TypeVar("_Read")
_CHARGE: Final["PaymentIntentRetrieveParams"] = {
    "expand": ["latest_charge.balance_transaction", "latest_charge.refunds"]
}


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
        circuit: leaves Stripe alone for a while when calls keep failing; made with `counts_against_stripe`.
    """

    def __init__(
        self,
        *,
        secret_key: str,
        webhook_secrets: Sequence[str],
        api_base: str = DEFAULT_API_BASE,
        timeout_s: float = 30.0,
        max_network_retries: int = 2,
        circuit: Circuit | None = None,
    ) -> None:
        # A switch of the whole SDK. Left on, it writes an id into the home directory, reads the interpreter's
        # binary on the event loop, and reports our latencies.
        stripe.enable_telemetry = False
        self._webhook_secrets = tuple(webhook_secrets)
        self._is_live = secret_key.startswith(("sk_live_", "rk_live_"))
        self._calling = StripeCalls(timeout_s=timeout_s, circuit=circuit)
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
        return Capabilities(
            recurring=True,
            fetch_subscription=True,
            fetch_payment=True,
            list_events=True,
            capture=False,
            refund=True,
            tells_refunds=True,
            withdraw=True,
            tells_expiry=True,
            may_differ=False,
            currencies=None,
            signature_header=SIGNATURE_HEADER,
            development_only=False,
        )

    async def prepare(self, headers: Mapping[str, str]) -> None:
        """See `PaymentProvider.prepare`: there is nothing to fetch."""

    def verify(self, *, body: bytes, headers: Mapping[str, str], now: datetime) -> VerifiedEvent:
        """See `PaymentProvider.verify`."""
        if not self._webhook_secrets:
            raise BadSignature(SignatureFault.NOT_CONFIGURED, "Stripe webhook secret is not configured")
        signed = parse_signature_header(find_header(headers, SIGNATURE_HEADER), provider="Stripe")
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
        return () if self._is_play(event) else interpret_stripe(event)

    def to_fetch(self, event: VerifiedEvent) -> str | None:
        """See `PaymentProvider.to_fetch`: only what is asked for by `create_invoice`; plans tell all by facts."""
        return None if self._is_play(event) else order_to_fetch(event)

    def _is_play(self, event: VerifiedEvent) -> bool:
        # Anybody with access to test mode can make a test payment; it must never activate anything real.
        return self._is_live and event.payload.get("livemode") is False

    async def create_checkout(self, request: CheckoutRequest) -> CheckoutCreated:
        """See `PaymentProvider.create_checkout`."""
        return await self._open("create_checkout", checkout_params(request), key=f"checkout-{request.checkout_id}")

    async def create_invoice(self, request: InvoiceRequest) -> CheckoutCreated:
        """See `PaymentProvider.create_invoice`."""
        return await self._open("create_invoice", invoice_params(request), key=f"invoice-{request.invoice_id}")

    async def fetch_payment(self, reference: str) -> PaymentState | None:
        """See `PaymentProvider.fetch_payment`; also takes the payment intent of a session."""
        sessions = self._client.v1.checkout.sessions
        if not known_ref(reference):
            return None
        try:
            async with self._calling("fetch_payment"):
                if reference.startswith("pi_"):
                    found = _node(await sessions.list_async({"payment_intent": reference, "limit": 1}), "sessions")
                    session = next(found.rows("data"), None)
                else:
                    session = _node(await sessions.retrieve_async(reference), "session")
                return None if session is None else await self._read_payment(session)
        except ProviderRejected as refusal:
            if refusal.details.get("reason") == "resource_missing":
                return None
            raise

    async def _read_payment(self, session: Node) -> PaymentState:
        v1 = self._client.v1
        invoice_ref, payment = session.ref_or_none("invoice"), None
        invoice = None
        if invoice_ref is not None:
            invoice = _node(await v1.invoices.retrieve_async(invoice_ref, {"expand": ["payments"]}), "invoice")
        payment_ref = payment_of_session(session, invoice)
        if payment_ref is not None and payment_ref.startswith("pi_"):
            payment = _node(await v1.payment_intents.retrieve_async(payment_ref, _CHARGE), "payment_intent")
        return read_session(session, payment_ref=payment_ref, payment=payment)

    async def fetch_fee(self, payment_ref: str) -> Fee | None:
        """See `PaymentProvider.fetch_fee`: it stands in the account's own books."""
        return await self._ask_charge("fetch_fee", payment_ref, fee_of_charge)

    async def fetch_refunded(self, payment_ref: str) -> GoneBack | None:
        """See `PaymentProvider.fetch_refunded`: the charge holds the running total, less what has failed."""
        return await self._ask_charge("fetch_refunded", payment_ref, refunded_of_charge)

    async def _ask_charge(
        self, operation: str, payment_ref: str, read: Callable[[Node | None], _Read | None]
    ) -> _Read | None:
        """Read the charge behind a payment; None when Stripe knows no such payment."""
        v1 = self._client.v1
        if not known_ref(payment_ref):
            return None
        try:
            async with self._calling(operation):
                if payment_ref.startswith("ch_"):
                    answer = await v1.charges.retrieve_async(
                        payment_ref, {"expand": ["balance_transaction", "refunds"]}
                    )
                    return read(_refuse_other(answer, payment_ref))
                payment = _refuse_other(await v1.payment_intents.retrieve_async(payment_ref, _CHARGE), payment_ref)
                return read(payment.node_or_none("latest_charge"))
        except ProviderRejected as refusal:
            if refusal.details.get("reason") == "resource_missing":
                return None
            raise

    async def capture(self, session_id: str) -> PaymentState:
        """See `PaymentProvider.capture`: Stripe takes the money by itself."""
        state = await self.fetch_payment(session_id)
        if state is None:
            raise ProviderRejected(details={"reason": "resource_missing"})
        return state

    async def refund(self, request: RefundRequest) -> RefundCreated:
        """See `PaymentProvider.refund`."""
        payment_ref = request.payment_ref or (await self.capture(request.session_id)).payment_ref
        if payment_ref is None:
            raise ProviderRejected("The refund is not possible", details={"reason": "refund_not_possible"})
        params: RefundCreateParams = {
            "amount": minor_units(request.amount, request.currency),
            "metadata": {"refund_id": str(request.refund_id)},
        }
        params["charge" if payment_ref.startswith("ch_") else "payment_intent"] = payment_ref
        async with self._calling("refund"):
            answer = await self._client.v1.refunds.create_async(
                params, {"idempotency_key": f"refund-{request.refund_id}"}
            )
            made = _node(answer, "refund")
            return RefundCreated(
                refund_ref=made.ref("id"),
                status=_REFUNDS.get(made.text("status"), RefundStatus.PENDING),
                amount=read_amount(made, "amount"),
                claim_url=None,
            )

    async def withdraw(self, session_id: str) -> None:
        """See `PaymentProvider.withdraw`."""
        try:
            async with self._calling("withdraw"):
                _refuse_other(await self._client.v1.checkout.sessions.expire_async(session_id), session_id)
        except ProviderRejected:
            # Only an open session can be closed; one that has expired already is all that was asked for.
            state = await self.fetch_payment(session_id)
            if state is None or state.status is not PaymentStatus.EXPIRED:
                raise

    async def _open(self, operation: str, params: "SessionCreateParams", *, key: str) -> CheckoutCreated:
        async with self._calling(operation):
            answer = await self._client.v1.checkout.sessions.create_async(params, {"idempotency_key": key})
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
                    answer = await subscriptions.update_async(subscription_ref, {"cancel_at_period_end": True})
                else:
                    answer = await subscriptions.cancel_async(subscription_ref)
                _refuse_other(answer, subscription_ref)
        except ProviderRejected:
            # Stripe refuses to cancel what is over already, which is all that was asked for.
            subscription = await self._retrieve(subscription_ref)
            if subscription is None or subscription.data.get("status") not in _OVER:
                raise

    async def resume(self, subscription_ref: str) -> None:
        """See `PaymentProvider.resume`."""
        async with self._calling("resume"):
            answer = await self._client.v1.subscriptions.update_async(subscription_ref, {"cancel_at_period_end": False})
            _refuse_other(answer, subscription_ref)

    async def reprice(self, subscription_ref: str, terms: Terms) -> None:
        """See `PaymentProvider.reprice`."""
        subscription = await self._retrieve(subscription_ref)
        if subscription is None or subscription.data.get("status") in _OVER:
            raise ProviderRejected(details={"reason": "resource_missing"})
        async with self._calling("reprice"):
            item = next(subscription.listed("items"), None)
            if item is None:
                subscription.refuse("items", "is empty")
            price = item.node("price")
            params = reprice_params(
                terms,
                item_id=item.ref("id"),
                product=price.ref("product"),
                interval=price.node("recurring").text("interval"),
            )
            _refuse_other(await self._client.v1.subscriptions.update_async(subscription_ref, params), subscription_ref)

    async def collect(self, invoice_ref: str) -> None:
        """See `PaymentProvider.collect`."""
        async with self._calling("collect"):
            _refuse_other(await self._client.v1.invoices.pay_async(invoice_ref), invoice_ref)

    async def fetch_subscription(self, subscription_ref: str) -> SubscriptionState | None:
        """See `PaymentProvider.fetch_subscription`."""
        subscription = await self._retrieve(subscription_ref)
        with reading_answer():
            return None if subscription is None else read_subscription(subscription)

    async def list_events(self, *, since: datetime, until: datetime, cursor: str | None = None) -> EventPage:
        """See `PaymentProvider.list_events`: Stripe keeps its events for 30 days, each as its webhook had it."""
        params: EventListParams = {
            "created": {"gte": int(since.timestamp()), "lte": int(until.timestamp())},
            "types": list(EVENT_TYPES),
            "limit": 100,
        }
        if cursor is not None:
            params["starting_after"] = cursor
        async with self._calling("list_events"):
            answer = _node(await self._client.v1.events.list_async(params), "events")
            # Those of one page are told apart by their ids alone, so a garbled one spoils the page.
            events = tuple(envelope_of(row.data, provider="Stripe", at=until) for row in answer.required_rows("data"))
            more = events[-1].event_id if events and answer.flag("has_more") else None
            return EventPage(events=events, next_cursor=more)

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


def _node(answer: object, path: str) -> Node:
    if not isinstance(answer, stripe.StripeObject):
        raise BadPayload(PayloadFault.MALFORMED_OBJECT, f"{path} is not an object")
    return Node(answer.to_dict(), path)


def _refuse_other(answer: object, ref: str) -> Node:
    """Return an answer; one that is not about what was asked for tells nothing, and is refused."""
    node = _node(answer, "answer")
    if node.ref("id") != ref:
        raise BadPayload(PayloadFault.MALFORMED_OBJECT, "the answer is about another object")
    return node


def _is_signed(body: bytes, signed: SignatureHeader, secret: str) -> bool:
    # The SDK is given what we read, not what was sent, so that its parser and ours can never differ.
    header = f"t={signed.timestamp}" + "".join(f",v1={signature}" for signature in signed.signatures)
    try:
        # Without a tolerance: the SDK would read the machine's clock and let the future pass.
        return bool(stripe.WebhookSignature.verify_header(body, header, secret))
    except (stripe.SignatureVerificationError, UnicodeDecodeError):
        # The SDK signs text, so bytes that are none cannot carry Stripe's signature.
        return False
