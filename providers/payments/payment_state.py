"""One payment as its provider holds it now: the same whether a webhook led to it or a reconciliation asked.

Where an event cannot say all (BTCPay's carry no amounts), can be replayed (LiqPay's carry no time) or may be stale,
the payment is fetched and this is what comes of it. Fetched states need no order: the newest fetch is the truth.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from providers.payments.facts import (
    CheckoutExpired,
    CheckoutFailed,
    CheckoutPaid,
    CheckoutPending,
    Fact,
    Fee,
    PaymentRefunded,
    Purchase,
    RefundFailed,
    Source,
)


class PaymentStatus(StrEnum):
    """How far a payment is.

    * `PENDING`: waits for its payer; part of the money may have come.
    * `APPROVED`: the payer has agreed, and `PaymentProvider.capture` must take the money.
    * `PROCESSING`: the money is on its way and not certain; nothing may be activated.
    * `PAID`: what was asked has come for certain, perhaps late (`is_late`), perhaps more (`overpaid`).
    * `UNDERPAID`: time is out and less than what was asked has come; an operator must refund or credit it.
    * `EXPIRED`: time is out and nothing has come.
    * `FAILED`: declined by the payer's side, or never confirmed.
    * `CANCELLED`: withdrawn by us before anybody paid.
    """

    PENDING = "pending"
    APPROVED = "approved"
    PROCESSING = "processing"
    PAID = "paid"
    UNDERPAID = "underpaid"
    EXPIRED = "expired"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderTags:
    """Our own ids, which travel through the provider and come back.

    `order_id` is the checkout's (`CheckoutRequest.checkout_id`) or the invoice's (`InvoiceRequest.invoice_id`);
    `purchase` is None for the latter. They are only as good as the provider's account: compare them with what is
    stored before acting.
    """

    order_id: UUID
    tenant_id: UUID
    purchase: Purchase | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentState:
    """A payment at its provider.

    Amounts are in the major unit of `currency`, the one that was asked for: `asked`; `received` so far, certain or
    not; `refunded` of it, all refunds together, those under way included. `payment_key` is what the money is booked
    under, once; `payment_ref` what refunds and disputes will name. `provider_status` is the provider's own word.
    `tags` are None for a payment that is not ours. `is_test` marks play money, which buys nothing from a merchant. At
    the platform's own account it is for the adapter to tell it as failed, or to leave it out, unless all of it is play
    (a test key, `LIQPAY_SANDBOX`, the sandbox).
    `changed_at` is the provider's time of the newest change; `paid_at` when the money came, None before that. It stays
    the same whatever happens later, so that a service counts from it whenever it is told. `fee` is what the provider
    keeps of the payment, None where it does not say. `refunds_made` and `refunds_failed` are the references of refunds
    that have come to their end, as far as the provider tells. `is_reversed` tells that `refunded` was taken back by the
    provider, perhaps for a dispute.
    """

    session_id: str
    tags: OrderTags | None
    status: PaymentStatus
    provider_status: str
    asked: Decimal
    received: Decimal
    refunded: Decimal
    currency: str
    payment_key: str
    payment_ref: str | None
    invoice_ref: str | None
    subscription_ref: str | None
    customer_ref: str | None
    is_late: bool
    is_test: bool
    changed_at: datetime
    paid_at: datetime | None = None
    fee: Fee | None = None
    refunds_made: frozenset[str] = frozenset()
    refunds_failed: frozenset[str] = frozenset()
    is_reversed: bool = False

    @property
    def overpaid(self) -> Decimal:
        """How much more than asked has come for certain: to be credited or refunded."""
        return max(self.received - self.asked, Decimal(0)) if self.status is PaymentStatus.PAID else Decimal(0)


def facts_of_payment(state: PaymentState, source: Source) -> tuple[Fact, ...]:
    """Tell a state in the words of `facts.py`, for a payment that began as a checkout; others give no facts.

    A paid checkout counts with what was asked: what came beyond it is `PaymentState.overpaid`, and an underpaid one
    is told as expired. Whoever must know more reads the state itself.
    """
    purchase = None if state.tags is None else state.tags.purchase
    if purchase is None:
        return ()
    match state.status:
        case PaymentStatus.PAID:
            paid = CheckoutPaid(
                **_at(source, state.paid_at or source["occurred_at"]),
                session_id=state.session_id,
                purchase=purchase,
                customer_ref=state.customer_ref,
                subscription_ref=state.subscription_ref,
                invoice_ref=state.invoice_ref,
                payment_ref=state.payment_ref,
                payment_key=state.payment_key,
                amount=state.asked,
                currency=state.currency,
                fee=state.fee,
            )
            failed = tuple(_refund_failed(state, source, ref) for ref in sorted(state.refunds_failed))
            return (paid, *failed, _refunded(state, source)) if state.refunded else (paid, *failed)
        case PaymentStatus.PROCESSING:
            return (
                CheckoutPending(
                    **source,
                    session_id=state.session_id,
                    purchase=purchase,
                    customer_ref=state.customer_ref,
                    subscription_ref=state.subscription_ref,
                ),
            )
        case PaymentStatus.FAILED:
            return (
                CheckoutFailed(
                    **source,
                    session_id=state.session_id,
                    purchase=purchase,
                    amount=state.asked,
                    currency=state.currency,
                ),
            )
        case PaymentStatus.EXPIRED | PaymentStatus.UNDERPAID | PaymentStatus.CANCELLED:
            return (CheckoutExpired(**source, session_id=state.session_id, purchase=purchase),)
        case PaymentStatus.PENDING | PaymentStatus.APPROVED:
            return ()


def _at(source: Source, moment: datetime) -> Source:
    return Source(provider=source["provider"], event_id=source["event_id"], occurred_at=moment)


def _refund_failed(state: PaymentState, source: Source, refund_ref: str) -> RefundFailed:
    return RefundFailed(
        **source,
        refund_ref=refund_ref,
        payment_ref=state.payment_ref,
        charge_ref=state.payment_ref or state.payment_key,
        currency=state.currency,
        refunded_total=min(state.refunded, state.received),
    )


def _refunded(state: PaymentState, source: Source) -> PaymentRefunded:
    return PaymentRefunded(
        **source,
        payment_ref=state.payment_ref,
        charge_ref=state.payment_ref or state.payment_key,
        invoice_ref=state.invoice_ref,
        customer_ref=state.customer_ref,
        charged=state.received,
        refunded_total=min(state.refunded, state.received),
        currency=state.currency,
        refunds_failed=state.refunds_failed,
        is_reversal=state.is_reversed,
    )
