"""What Stripe's events mean: a pure reading of webhook payloads into facts.

Events that tell what another one tells are left unread on purpose, so that nothing is counted twice:
`invoice.payment_succeeded` (`invoice.paid` also covers invoices settled outside Stripe), `refund.created`
(`charge.refunded` carries the running total). That a refund has failed, days later, is told by up to three events, none
of which carries the running total. A dispute is `created` once, perhaps as an inquiry: that its money was taken after
all is told by `funds_withdrawn`.

A payment that was refunded in part can be disputed in full: Stripe withdraws all of it, beside the refund. Where the
dispute is lost for the rest alone, Stripe gives the refunded part back and still calls it `lost`
(support.stripe.com/questions/dispute-for-full-charge-amount-after-a-partial-refund-was-issued). That is told by
`funds_reinstated`, after `closed`; what is won comes back by `closed` alone.
"""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Final

from providers.payments.contract import VerifiedEvent
from providers.payments.facts import (
    CheckoutExpired,
    CheckoutFailed,
    CheckoutPaid,
    CheckoutPending,
    DisputeClosed,
    DisputeOpened,
    DisputeOutcome,
    Fact,
    InvoicePaid,
    InvoicePaymentFailed,
    InvoiceVoided,
    PaymentLinked,
    PaymentRefunded,
    RefundFailed,
    Source,
    SubscriptionChanged,
    SubscriptionEnded,
)
from providers.payments.reading import Node
from providers.payments.stripe_objects import (
    FAILED_REFUNDS,
    NEVER_BEGAN,
    billing_reason,
    disputed_payment,
    fee_of_dispute,
    is_of_order,
    paid_period,
    payment_of_invoice,
    payment_of_link,
    purchase_if_readable,
    purchase_of_invoice,
    purchase_of_session,
    read_amount,
    read_currency,
    read_subscription,
    returned_of_dispute,
    subscription_of_invoice,
)

PROVIDER: Final = "stripe"

# `prevented` disputes were settled by a refund, which has its own event; beyond it the dispute takes nothing.
_OUTCOMES: Final[dict[str, DisputeOutcome]] = {
    "won": "won",
    "warning_closed": "won",
    "prevented": "won",
    "lost": "lost",
}

_ORDER_EVENTS: Final = frozenset({"charge.refunded"})


def interpret_stripe(event: VerifiedEvent) -> tuple[Fact, ...]:
    """Read one event; see `PaymentProvider.interpret`."""
    reader = _READERS.get(event.type)
    if reader is None:
        return ()
    source = Source(provider=PROVIDER, event_id=event.event_id, occurred_at=event.occurred_at)
    fact = reader(Node(event.payload, "event").node("data").node("object"), source)
    return () if fact is None else (fact,)


def order_to_fetch(event: VerifiedEvent) -> str | None:
    """Name the payment of an order that an event is about, by its session or its payment; None for any other.

    Raises:
        BadPayload: the object inside lacks it.
    """
    if not event.type.startswith("checkout.session.") and event.type not in _ORDER_EVENTS:
        return None
    subject = Node(event.payload, "event").node("data").node("object")
    if not is_of_order(subject):
        return None
    return subject.ref("id") if event.type.startswith("checkout.") else subject.ref_or_none("payment_intent")


def _checkout_completed(session: Node, source: Source) -> Fact | None:
    purchase = purchase_of_session(session)
    if purchase is None:
        return None
    if session.text("payment_status") not in {"paid", "no_payment_required"}:
        return CheckoutPending(
            **source,
            session_id=session.ref("id"),
            purchase=purchase,
            customer_ref=session.ref_or_none("customer"),
            subscription_ref=session.ref_or_none("subscription"),
        )
    return _checkout_paid(session, source)


def _checkout_paid(session: Node, source: Source) -> Fact | None:
    purchase = purchase_of_session(session)
    if purchase is None:
        return None
    session_id = session.ref("id")
    invoice_ref = session.ref_or_none("invoice")
    payment_ref = session.ref_or_none("payment_intent")
    return CheckoutPaid(
        **source,
        session_id=session_id,
        purchase=purchase,
        customer_ref=session.ref_or_none("customer"),
        subscription_ref=session.ref_or_none("subscription"),
        invoice_ref=invoice_ref,
        payment_ref=payment_ref,
        payment_key=invoice_ref or payment_ref or session_id,
        amount=read_amount(session, "amount_total", "amount_paid"),
        currency=read_currency(session),
    )


def _checkout_failed(session: Node, source: Source) -> Fact | None:
    purchase = purchase_of_session(session)
    if purchase is None:
        return None
    return CheckoutFailed(
        **source,
        session_id=session.ref("id"),
        purchase=purchase,
        amount=read_amount(session, "amount_total", "amount_paid"),
        currency=read_currency(session),
    )


def _checkout_expired(session: Node, source: Source) -> Fact | None:
    purchase = purchase_of_session(session)
    if purchase is None:
        return None
    return CheckoutExpired(**source, session_id=session.ref("id"), purchase=purchase)


def _invoice_paid(invoice: Node, source: Source) -> Fact | None:
    subscription_ref = subscription_of_invoice(invoice)
    if subscription_ref is None:
        return None
    invoice_ref = invoice.ref("id")
    period_start, period_end = paid_period(invoice)
    return InvoicePaid(
        **source,
        invoice_ref=invoice_ref,
        payment_key=invoice_ref,
        payment_ref=payment_of_invoice(invoice),
        subscription_ref=subscription_ref,
        customer_ref=invoice.ref_or_none("customer"),
        purchase=purchase_of_invoice(invoice),
        amount=read_amount(invoice, "amount_paid", "amount_total"),
        currency=read_currency(invoice),
        period_start=period_start,
        period_end=period_end,
        billing_reason=billing_reason(invoice),
        number=invoice.text_or_none("number"),
        hosted_invoice_url=invoice.text_or_none("hosted_invoice_url"),
    )


def _invoice_payment_failed(invoice: Node, source: Source) -> Fact | None:
    subscription_ref = subscription_of_invoice(invoice)
    if subscription_ref is None:
        return None
    return InvoicePaymentFailed(
        **source,
        invoice_ref=invoice.ref("id"),
        subscription_ref=subscription_ref,
        customer_ref=invoice.ref_or_none("customer"),
        purchase=purchase_of_invoice(invoice),
        amount=read_amount(invoice, "amount_due"),
        currency=read_currency(invoice),
        billing_reason=billing_reason(invoice),
        attempt_count=invoice.integer_or_none("attempt_count") or 0,
        next_attempt_at=invoice.moment_or_none("next_payment_attempt"),
        hosted_invoice_url=invoice.text_or_none("hosted_invoice_url"),
    )


def _invoice_voided(invoice: Node, source: Source) -> Fact | None:
    subscription_ref = subscription_of_invoice(invoice)
    if subscription_ref is None:
        return None
    return InvoiceVoided(
        **source,
        invoice_ref=invoice.ref("id"),
        subscription_ref=subscription_ref,
        customer_ref=invoice.ref_or_none("customer"),
        purchase=purchase_of_invoice(invoice),
        amount=read_amount(invoice, "amount_due"),
        currency=read_currency(invoice),
    )


def _payment_linked(link: Node, source: Source) -> Fact | None:
    payment_ref = payment_of_link(link)
    if payment_ref is None:
        return None
    return PaymentLinked(**source, invoice_ref=link.ref("invoice"), payment_ref=payment_ref)


def _subscription_changed(subscription: Node, source: Source) -> Fact | None:
    state = read_subscription(subscription)
    return None if state is None else SubscriptionChanged(**source, state=state)


def _subscription_ended(subscription: Node, source: Source) -> Fact | None:
    if subscription.text("status") in NEVER_BEGAN:
        return None
    return SubscriptionEnded(
        **source,
        subscription_ref=subscription.ref("id"),
        customer_ref=subscription.ref_or_none("customer"),
        purchase=purchase_if_readable(subscription.node_or_none("metadata")),
        ended_at=subscription.moment_or_none("ended_at") or source["occurred_at"],
    )


def _payment_refunded(charge: Node, source: Source) -> Fact | None:
    if is_of_order(charge):
        return None
    return PaymentRefunded(
        **source,
        payment_ref=charge.ref_or_none("payment_intent"),
        charge_ref=charge.ref("id"),
        invoice_ref=charge.ref_or_none("invoice"),
        customer_ref=charge.ref_or_none("customer"),
        charged=read_amount(charge, "amount"),
        refunded_total=read_amount(charge, "amount_refunded"),
        currency=read_currency(charge),
    )


def _refund_failed(refund: Node, source: Source) -> Fact | None:
    payment_ref, charge_ref = refund.ref_or_none("payment_intent"), refund.ref_or_none("charge")
    if refund.text("status") not in FAILED_REFUNDS or (payment_ref is None and charge_ref is None):
        return None
    return RefundFailed(
        **source,
        refund_ref=refund.ref("id"),
        payment_ref=payment_ref,
        charge_ref=charge_ref,
        currency=read_currency(refund),
    )


def _dispute_opened(dispute: Node, source: Source) -> Fact:
    payment_ref, charge_ref = disputed_payment(dispute)
    return DisputeOpened(
        **source,
        dispute_ref=dispute.ref("id"),
        payment_ref=payment_ref,
        charge_ref=charge_ref,
        amount=read_amount(dispute, "amount"),
        currency=read_currency(dispute),
        reason=dispute.text_or_none("reason"),
        inquiry=dispute.text("status").startswith("warning_"),
        beside_refunds=True,
        fee=fee_of_dispute(dispute),
    )


def _dispute_closed(dispute: Node, source: Source) -> DisputeClosed:
    payment_ref, charge_ref = disputed_payment(dispute)
    status = dispute.text("status")
    outcome = _OUTCOMES.get(status)
    if outcome is None:
        dispute.refuse("status", "is not a closed one")
    return DisputeClosed(
        **source,
        dispute_ref=dispute.ref("id"),
        payment_ref=payment_ref,
        charge_ref=charge_ref,
        amount=read_amount(dispute, "amount"),
        currency=read_currency(dispute),
        outcome=outcome,
        inquiry=status.startswith("warning_"),
        beside_refunds=True,
        returned=returned_of_dispute(dispute) if outcome == "lost" else Decimal(0),
        fee=fee_of_dispute(dispute),
    )


def _dispute_returned(dispute: Node, source: Source) -> Fact | None:
    if dispute.text("status") != "lost":
        return None
    # Its fee was told with the decision.
    return replace(_dispute_closed(dispute, source), fee=None)


_READERS: Final[dict[str, Callable[[Node, Source], Fact | None]]] = {
    "checkout.session.completed": _checkout_completed,
    "checkout.session.async_payment_succeeded": _checkout_paid,
    "checkout.session.async_payment_failed": _checkout_failed,
    "checkout.session.expired": _checkout_expired,
    "invoice.paid": _invoice_paid,
    "invoice.payment_failed": _invoice_payment_failed,
    "invoice.voided": _invoice_voided,
    "invoice_payment.paid": _payment_linked,
    "customer.subscription.created": _subscription_changed,
    "customer.subscription.updated": _subscription_changed,
    "customer.subscription.paused": _subscription_changed,
    "customer.subscription.resumed": _subscription_changed,
    "customer.subscription.deleted": _subscription_ended,
    "charge.refunded": _payment_refunded,
    "charge.refund.updated": _refund_failed,
    "refund.updated": _refund_failed,
    "refund.failed": _refund_failed,
    "charge.dispute.created": _dispute_opened,
    "charge.dispute.funds_withdrawn": _dispute_opened,
    "charge.dispute.closed": _dispute_closed,
    "charge.dispute.funds_reinstated": _dispute_returned,
}

EVENT_TYPES: Final = tuple(kind for kind in _READERS if kind != "charge.refund.updated")
"""The events that are asked for when webhooks may be lost.

Stripe lists no more than 20 types of events at once; `refund.updated` tells of every refund, `charge.refund.updated` of
some of them.
"""
