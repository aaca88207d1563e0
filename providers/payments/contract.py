"""The contract of a payment provider: what the services ask of it, and what an adapter must answer.

One suite, `tests/providers/payments/test_contract.py`, runs on every adapter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from providers.payments.facts import BillingPeriod, Fact, Fee, GoneBack, SubscriptionState
from providers.payments.payment_state import PaymentState

TOLERANCE = timedelta(seconds=300)
"""How far a signature's time may lie from ours, in both directions (contract.md 4.4, providers.md 2.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutRequest:
    """One attempt to sell a plan.

    `checkout_id` is ours: asking twice with the same id yields the same session. `begun_at` is when it was first to be
    asked for, the same each time. `amount` is for one billing period and must fit the currency's minor unit.
    `customer_ref` is the provider's customer from an earlier purchase. With `renews` a provider that charges by itself
    goes on charging; without it this is one payment.
    """

    checkout_id: UUID
    begun_at: datetime
    tenant_id: UUID
    plan_id: UUID
    plan_name: str
    billing_period: BillingPeriod
    amount: Decimal
    currency: str
    customer_email: str | None
    customer_ref: str | None
    success_url: str
    cancel_url: str
    renews: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a subscription shall cost from `charge_from` on, which is when its next period begins.

    `amount` is for one period and must fit the currency's minor unit.
    """

    amount: Decimal
    currency: str
    billing_period: BillingPeriod
    charge_from: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceRequest:
    """One payment to ask for, of nobody's subscription: an order of a merchant's customer, a correction.

    `invoice_id` is ours: asking twice with the same id yields the same session. `begun_at` is when it was first to be
    asked for, the same each time. `amount` must fit the currency's minor unit.
    """

    invoice_id: UUID
    begun_at: datetime
    tenant_id: UUID
    description: str
    amount: Decimal
    currency: str
    customer_email: str | None
    success_url: str
    cancel_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutCreated:
    """A session waits for its payer at `url` until `expires_at`.

    `session_id` has at most 255 characters; `url` may be much longer. `customer_ref` is None where the
    provider makes the customer only when the checkout completes.
    """

    session_id: str
    url: str
    customer_ref: str | None
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedEvent:
    """An event whose signature holds. (provider, `account`, `event_id`) is its identity in the inbox.

    `account` is the provider's account that the event speaks of, empty for our own. `payload` is the whole
    event as JSON values, so that storing it and building this object again from the stored row loses nothing.
    """

    event_id: str
    account: str
    type: str
    occurred_at: datetime
    payload: dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """Some of what has happened; `next_cursor` asks for more, None when this was the last page."""

    events: tuple[VerifiedEvent, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What differs between providers and matters to a service.

    * `recurring`: the provider charges renewals by itself and tells of them; otherwise our own clock must.
    * `fetch_subscription`: the provider can be asked for a subscription's present state.
    * `fetch_payment`: the provider can be asked for a payment's present state.
    * `list_events`: the provider can be asked what has happened of late.
    * `capture`: the payer only approves; `capture` takes the money.
    * `refund`: money can be given back through the provider, all of it or a part.
    * `tells_refunds`: it tells what has gone back of a payment, whoever gave it back; otherwise only we know.
    * `withdraw`: a session that nobody has paid can be closed before its time.
    * `tells_expiry`: the provider says when a session has run out; otherwise our own clock must.
    * `may_differ`: what arrives may be less or more than what was asked, or late (crypto).
    * `currencies`: the only ones that it takes, in upper case; None for any.
    * `signature_header`: the header that its webhooks are known by; None where the signature stands in the body.
    * `development_only`: nobody really pays; production refuses to wire it.
    """

    recurring: bool
    fetch_subscription: bool
    fetch_payment: bool
    list_events: bool
    capture: bool
    refund: bool
    tells_refunds: bool
    withdraw: bool
    tells_expiry: bool
    may_differ: bool
    currencies: frozenset[str] | None
    signature_header: str | None
    development_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundRequest:
    """Money to give back.

    `refund_id` is ours: asking twice with the same id gives back once. `amount` may be all of the payment or a part.
    `refunded_before` is what we hold to be refunded already, without this one: a provider that has no idempotency
    keys is asked only while it agrees with us. `payment_ref` is the payment's reference where we know it.
    """

    refund_id: UUID
    session_id: str
    payment_ref: str | None
    amount: Decimal
    currency: str
    refunded_before: Decimal


class RefundStatus(StrEnum):
    """What has become of a refund; `PENDING` ends in one of the others, which the provider tells later."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundCreated:
    """The provider has taken a refund on.

    `claim_url` is where the payer must say where to send the money, None where the provider knows that.
    """

    refund_ref: str
    status: RefundStatus
    amount: Decimal
    claim_url: str | None


class PaymentProvider(Protocol):
    """A payment provider. Adapters hold their settings and connections, and no state of ours."""

    @property
    def name(self) -> str:
        """The provider's name in routes, rows and facts: lower case, stable for ever."""

    @property
    def capabilities(self) -> Capabilities:
        """What this provider can do."""

    async def prepare(self, headers: Mapping[str, str]) -> None:
        """Fetch what `verify` will need for these headers (a certificate), if it is not known yet.

        Called before `verify`, outside any unit of work; does nothing for most providers. Whatever strangers' headers
        say, nothing is fetched but from the provider's own addresses. To refuse them is `verify`'s part.

        Raises:
            ProviderUnavailable: what is needed cannot be had now; the provider will deliver again.
        """

    def verify(self, *, body: bytes, headers: Mapping[str, str], now: datetime) -> VerifiedEvent:
        """Prove that the provider sent these raw bytes, near `now` where it signs the time, and read their envelope.

        Header names are matched whatever their case.

        Raises:
            BadSignature: the header is missing or malformed, or the signature is wrong, too old or from the
                future.
            BadPayload: the signature holds but the body is not this provider's event.
        """

    def interpret(self, event: VerifiedEvent) -> tuple[Fact, ...]:
        """Turn an event into facts, purely: no I/O, no clock. Empty means that it is no business of ours.

        Raises:
            BadPayload: the object inside lacks what the fact needs. Repeating will not help.
        """

    def to_fetch(self, event: VerifiedEvent) -> str | None:
        """Name the payment that must be fetched before this event is acted on; None when the event says all.

        Pure. The name is for `fetch_payment` of the same provider and nobody else.

        Raises:
            BadPayload: the object inside lacks it. Repeating will not help.
        """

    async def create_checkout(self, request: CheckoutRequest) -> CheckoutCreated:
        """Open a hosted checkout for a plan; idempotent by `request.checkout_id`.

        Raises:
            ProviderUnavailable: the provider cannot be reached or is broken.
            ProviderRejected: the provider refused this request, or the amount does not fit its currency.
        """

    async def create_invoice(self, request: InvoiceRequest) -> CheckoutCreated:
        """Open a hosted page for one payment; idempotent by `request.invoice_id`.

        Raises:
            ProviderUnavailable: the provider cannot be reached or is broken.
            ProviderRejected: the provider refused this request, or the amount does not fit its currency.
        """

    async def fetch_payment(self, reference: str) -> PaymentState | None:
        """Ask for a payment's present state, by its session's id or by what `to_fetch` named; None if unknown.

        Raises:
            ProviderUnavailable: the provider cannot be reached or is broken.
            ProviderRejected: this provider cannot tell (`capabilities.fetch_payment`), or refused.
        """

    async def fetch_fee(self, payment_ref: str) -> Fee | None:
        """Ask what the provider kept of a payment that a fact names; None where it does not say (yet).

        Raises:
            ProviderUnavailable: the provider cannot be reached or is broken.
            ProviderRejected: the provider refused.
        """

    async def fetch_refunded(self, payment_ref: str) -> GoneBack | None:
        """Ask how much has gone back by now of a payment that a fact names; None where nobody knows it.

        Raises:
            ProviderUnavailable: the provider cannot be reached or is broken.
            ProviderRejected: the provider refused.
        """

    async def capture(self, session_id: str) -> PaymentState:
        """Take the money of an `APPROVED` payment; idempotent, and for others the same as `fetch_payment`.

        Raises:
            ProviderUnavailable: the provider cannot be reached or is broken.
            ProviderRejected: the payer's side declined, nobody has approved yet, or there is no such payment.
        """

    async def refund(self, request: RefundRequest) -> RefundCreated:
        """Give money back; idempotent by `request.refund_id`.

        Raises:
            ProviderUnavailable: the provider cannot be reached or is broken.
            ProviderRejected: there is nothing to refund, or less than asked, or this provider cannot
                (`capabilities.refund`).
        """

    async def withdraw(self, session_id: str) -> None:
        """Close a session that nobody has paid, so that nobody can; one that is closed already is left in peace.

        Raises:
            ProviderUnavailable: the provider cannot be reached or is broken.
            ProviderRejected: it is being paid, there is no such session, or this provider cannot
                (`capabilities.withdraw`).
        """

    async def cancel(self, subscription_ref: str, *, at_period_end: bool) -> None:
        """Stop charging, now or when the paid period ends; one that is over already is left in peace.

        Raises:
            ProviderUnavailable: the provider cannot be reached or is broken.
            ProviderRejected: the provider knows no such subscription, or keeps none.
        """

    async def resume(self, subscription_ref: str) -> None:
        """Charge on, where `cancel` at the period's end was told before; harmless where it was not.

        Raises:
            ProviderUnavailable: the provider cannot be reached or is broken.
            ProviderRejected: it is over, or the provider knows no such subscription, or keeps none.
        """

    async def reprice(self, subscription_ref: str, terms: Terms) -> None:
        """Charge other terms from the next period on, and nothing for the present one; the same terms twice are one.

        Raises:
            ProviderUnavailable: the provider cannot be reached or is broken.
            ProviderRejected: it is over, or the provider knows no such subscription, or keeps none.
        """

    async def collect(self, invoice_ref: str) -> None:
        """Try once more to collect a bill that is open; what comes of it is told by events as ever.

        Raises:
            ProviderUnavailable: the provider cannot be reached or is broken.
            ProviderRejected: it was declined, or there is no such bill, or this provider collects none by itself.
        """

    async def fetch_subscription(self, subscription_ref: str) -> SubscriptionState | None:
        """Ask for a subscription's present state: None if there is no such subscription or it never began.

        Raises:
            ProviderUnavailable: the provider cannot be reached or is broken.
            ProviderRejected: this provider cannot tell (`capabilities.fetch_subscription`), or refused.
        """

    async def list_events(self, *, since: datetime, until: datetime, cursor: str | None = None) -> EventPage:
        """List what happened between two moments, a page at a time and in any order, as if webhooks had told it.

        A provider that keeps its events lists those, under the ids that their webhooks bear. One that keeps none
        lists its payments as they stand (`sightings.py`), also those that began before `since` and may have changed.

        Raises:
            ProviderUnavailable: the provider cannot be reached or is broken.
            ProviderRejected: this provider cannot tell (`capabilities.list_events`), or refused.
        """

    async def aclose(self) -> None:
        """Close connections; may be called more than once."""
