"""What payment providers tell us, in our own words: the frozen facts that adapters read from their events.

Rules for whoever applies them (contract.md 4.4, providers.md 1.2):

* Events arrive twice, late and out of order. A fact says what was true at `occurred_at`, not what to do now.
* Money is booked once per `payment_key`. The first payment of a subscription is told twice, by the checkout
  (`CheckoutPaid`) and by its invoice (`InvoicePaid`), and both carry the same key.
* Refunds are told as the running total of the payment (`PaymentRefunded.refunded_total`): book the total less
  what is booked already, and ignore a smaller total that arrives late. Never add the totals up.
* One dispute is one `dispute_ref`, however many events speak of it.

Amounts are Decimals in the currency's major unit (99.00 USD), currencies upper-case ISO 4217 codes, moments
aware UTC. References (`*_ref`) are the provider's own ids, opaque and at most 255 characters long.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal, TypedDict
from uuid import UUID

BillingPeriod = Literal["monthly", "yearly"]
SubscriptionStatus = Literal["trial", "active", "past_due", "cancelled", "expired"]
BillingReason = Literal["start", "renewal", "change", "other"]
DisputeOutcome = Literal["won", "lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """What was sold to whom: our own ids, which travel through the provider as metadata and come back signed.

    `checkout_id` is None for checkouts that the system before this one began; those are found by their
    session. The ids are only as good as the provider's account: compare them with the stored checkout before
    acting.
    """

    checkout_id: UUID | None
    tenant_id: UUID
    plan_id: UUID
    billing_period: BillingPeriod


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionState:
    """A subscription as the provider holds it.

    `status` is contract.md 4.1's; `provider_status` is the provider's own finer word. `cancel_at_period_end`
    is True when an end is set, at the period's end or at any other moment (`cancel_at`), and `cancelled_at` when that
    was decided; `ended_at` is when it ended for good. Moments and period bounds are None when the provider does not
    tell them. `purchase` is None when the subscription does not carry our
    metadata: it is then found by `subscription_ref` or `customer_ref`, or is not ours at all.
    """

    subscription_ref: str
    customer_ref: str | None
    purchase: Purchase | None
    status: SubscriptionStatus
    provider_status: str
    cancel_at_period_end: bool
    cancel_at: datetime | None
    cancelled_at: datetime | None
    ended_at: datetime | None
    period_start: datetime | None
    period_end: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fee:
    """What a provider keeps for itself, which may be in another currency than the payment: the account's own."""

    amount: Decimal
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GoneBack:
    """How much of a payment has gone back by now, without the refunds that have `failed`, which are named."""

    total: Decimal
    failed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderFact:
    """What every fact carries: who told it, in which event, and when it happened by the provider's clock."""

    provider: str
    event_id: str
    occurred_at: datetime


class Source(TypedDict):
    """The fields of `ProviderFact`, as an adapter passes them on to the facts of one event."""

    provider: str
    event_id: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutPaid(ProviderFact):
    """A checkout is complete and its money is there, at once or after a delayed payment succeeded.

    `payment_ref` is what refunds and disputes will name, where the provider tells it this early, and so is `fee`.
    """

    session_id: str
    purchase: Purchase
    customer_ref: str | None
    subscription_ref: str | None
    invoice_ref: str | None
    payment_ref: str | None
    payment_key: str
    amount: Decimal
    currency: str
    fee: Fee | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutPending(ProviderFact):
    """A checkout is complete but not paid: a slow payment is on its way, so nothing may be activated yet."""

    session_id: str
    purchase: Purchase
    customer_ref: str | None
    subscription_ref: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutFailed(ProviderFact):
    """The payment of a checkout was declined or did not arrive."""

    session_id: str
    purchase: Purchase
    amount: Decimal
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutExpired(ProviderFact):
    """A checkout was left unfinished until it expired."""

    session_id: str
    purchase: Purchase


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoicePaid(ProviderFact):
    """An invoice of a subscription is paid: the first one (`start`), a renewal, or one for a change of plan.

    `period_start` and `period_end` are the service period that the money buys, None where the invoice buys
    none. `amount` may be zero (a free period).
    """

    invoice_ref: str
    payment_key: str
    payment_ref: str | None
    subscription_ref: str
    customer_ref: str | None
    purchase: Purchase | None
    amount: Decimal
    currency: str
    period_start: datetime | None
    period_end: datetime | None
    billing_reason: BillingReason
    number: str | None
    hosted_invoice_url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoicePaymentFailed(ProviderFact):
    """An attempt to collect an invoice failed; `amount` is what is due.

    `next_attempt_at` is None if no further attempt is planned.
    A failed `start` invoice belongs to a checkout that never began: it must not touch the subscription in
    force.
    """

    invoice_ref: str
    subscription_ref: str
    customer_ref: str | None
    purchase: Purchase | None
    amount: Decimal
    currency: str
    billing_reason: BillingReason
    attempt_count: int
    next_attempt_at: datetime | None
    hosted_invoice_url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentLinked(ProviderFact):
    """An invoice was paid by `payment_ref`, which is the reference that refunds and disputes will name.

    `fee` is what the provider kept of it, None where that is not known (yet).
    """

    invoice_ref: str
    payment_ref: str
    fee: Fee | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionChanged(ProviderFact):
    """A subscription was created or changed; `state` is all of it, so the newest fact wins."""

    state: SubscriptionState


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionEnded(ProviderFact):
    """A subscription is over at the provider and will never be charged again."""

    subscription_ref: str
    customer_ref: str | None
    purchase: Purchase | None
    ended_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentRefunded(ProviderFact):
    """Of the amount `charged`, `refunded_total` has gone back so far, all refunds of it together.

    `refunds_failed` names refunds that had failed when the total was read: it counts without them. `is_reversal` tells
    that the provider took it back: where a dispute names the payment, it is that one's money.
    """

    payment_ref: str | None
    charge_ref: str
    invoice_ref: str | None
    customer_ref: str | None
    charged: Decimal
    refunded_total: Decimal
    currency: str
    refunds_failed: frozenset[str] = frozenset()
    is_reversal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundFailed(ProviderFact):
    """Money that was on its way back to the payer has not arrived, and is with the provider again.

    `refunded_total` is what has gone back of the payment without it, None until the provider is asked.
    """

    refund_ref: str
    payment_ref: str | None
    charge_ref: str | None
    currency: str
    refunded_total: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputeOpened(ProviderFact):
    """The payer disputes a payment. An `inquiry` only asks: it takes no money (yet).

    `beside_refunds` tells that the provider takes the amount whatever was refunded: both have left. Without it what is
    refunded of a disputed payment is a part of its dispute. `fee` is what the provider takes for a dispute, None where
    it does not say.
    """

    dispute_ref: str
    payment_ref: str | None
    charge_ref: str | None
    amount: Decimal
    currency: str
    reason: str | None
    inquiry: bool
    beside_refunds: bool = False
    fee: Fee | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputeClosed(ProviderFact):
    """A dispute is decided: `won` leaves the money with us, `lost` keeps it with the payer.

    `returned` is what the provider has given back of a lost one: what had been refunded when it was disputed. `fee` is
    what it has taken for it all in all, zero where it has given its fee back. See `DisputeOpened` for the rest.
    """

    dispute_ref: str
    payment_ref: str | None
    charge_ref: str | None
    amount: Decimal
    currency: str
    outcome: DisputeOutcome
    inquiry: bool
    beside_refunds: bool = False
    returned: Decimal = Decimal(0)
    fee: Fee | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceVoided(ProviderFact):
    """An invoice was withdrawn: nobody can pay it any more."""

    invoice_ref: str
    subscription_ref: str
    customer_ref: str | None
    purchase: Purchase | None
    amount: Decimal
    currency: str


Fact = (
    CheckoutPaid
    | CheckoutPending
    | CheckoutFailed
    | CheckoutExpired
    | InvoicePaid
    | InvoicePaymentFailed
    | InvoiceVoided
    | PaymentLinked
    | SubscriptionChanged
    | SubscriptionEnded
    | PaymentRefunded
    | RefundFailed
    | DisputeOpened
    | DisputeClosed
)
