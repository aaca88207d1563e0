"""Reading Stripe's objects: what the facts need, in the pinned API version's shape and in the older ones.

CHANGELOG 2025-03-31.basil moved the periods from the subscription to its items, the subscription's link from
the invoice to `invoice.parent`, and the payment from the invoice to `invoice_payment`.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final

from core.money import round_money
from providers.payments.errors import BadPayload
from providers.payments.facts import (
    BillingPeriod,
    BillingReason,
    Fee,
    GoneBack,
    Purchase,
    SubscriptionState,
    SubscriptionStatus,
)
from providers.payments.reading import Node
from providers.payments.stripe_money import from_stripe

# `incomplete` and `incomplete_expired` are absent: such a subscription never began, so it must not touch the
# one in force (laravel/cashier #1759 is the bug that comes of it). `unpaid` and `paused` give no service
# until they are paid or resumed, which is what our `expired` means.
_STATUSES: Final[dict[str, SubscriptionStatus]] = {
    "trialing": "trial",
    "active": "active",
    "past_due": "past_due",
    "unpaid": "expired",
    "paused": "expired",
    "canceled": "cancelled",
}
FAILED_REFUNDS: Final = frozenset({"failed", "canceled"})
NEVER_BEGAN: Final = frozenset({"incomplete", "incomplete_expired"})
# What a session that asks for one payment carries and one that sells a plan does not.
ORDER_KEY: Final = "order_id"
_PERIODS: Final[dict[str, BillingPeriod]] = {"monthly": "monthly", "yearly": "yearly"}
_REASONS: Final[dict[str, BillingReason]] = {
    "subscription_create": "start",
    "subscription_cycle": "renewal",
    "subscription_update": "change",
}


def read_subscription(subscription: Node) -> SubscriptionState | None:
    """Read a subscription object; None for one that never began."""
    provider_status = subscription.text("status")
    if provider_status in NEVER_BEGAN:
        return None
    status = _STATUSES.get(provider_status)
    if status is None:
        subscription.refuse("status", "is not a known status")
    cancel_at = subscription.moment_or_none("cancel_at")
    period_start, period_end = _subscription_period(subscription)
    return SubscriptionState(
        subscription_ref=subscription.ref("id"),
        customer_ref=subscription.ref_or_none("customer"),
        purchase=purchase_if_readable(subscription.node_or_none("metadata")),
        status=status,
        provider_status=provider_status,
        # Flexible billing expresses "at period end" as `cancel_at` and leaves the flag false.
        cancel_at_period_end=subscription.flag("cancel_at_period_end") or cancel_at is not None,
        cancel_at=cancel_at,
        cancelled_at=subscription.moment_or_none("canceled_at"),
        ended_at=subscription.moment_or_none("ended_at"),
        period_start=period_start,
        period_end=period_end,
    )


def purchase_of_session(session: Node) -> Purchase | None:
    """Read our ids; None for a session that is not ours, an error for one that is ours but garbled.

    A garbled session is refused because its metadata is all that leads to the tenant who has paid.
    """
    metadata = session.node_or_none("metadata")
    if metadata is None or "tenant_id" not in metadata or ORDER_KEY in metadata:
        return None
    return _read_purchase(metadata)


def is_of_order(subject: Node) -> bool:
    """Tell whether a session or a charge is of one payment that was asked for, not of a plan."""
    metadata = subject.node_or_none("metadata")
    return metadata is not None and ORDER_KEY in metadata


def purchase_if_readable(metadata: Node | None) -> Purchase | None:
    """Read our ids where they only help; None if they are absent or garbled.

    A subscription is known by its reference too, and operators can edit its metadata in Stripe's dashboard.
    """
    if metadata is None or "tenant_id" not in metadata:
        return None
    try:
        return _read_purchase(metadata)
    except BadPayload:
        return None


def _read_purchase(metadata: Node) -> Purchase:
    period = _PERIODS.get(metadata.text("billing_period").lower())
    if period is None:
        metadata.refuse("billing_period", "is neither monthly nor yearly")
    return Purchase(
        checkout_id=metadata.uuid("checkout_id") if "checkout_id" in metadata else None,
        tenant_id=metadata.uuid("tenant_id"),
        plan_id=metadata.uuid("plan_id"),
        billing_period=period,
    )


def purchase_of_invoice(invoice: Node) -> Purchase | None:
    details = _subscription_details(invoice) or invoice.node_or_none("subscription_details")
    return None if details is None else purchase_if_readable(details.node_or_none("metadata"))


def subscription_of_invoice(invoice: Node) -> str | None:
    details = _subscription_details(invoice)
    return invoice.ref_or_none("subscription") if details is None else details.ref_or_none("subscription")


def _subscription_details(invoice: Node) -> Node | None:
    parent = invoice.node_or_none("parent")
    return None if parent is None else parent.node_or_none("subscription_details")


def payment_of_invoice(invoice: Node) -> str | None:
    for link in invoice.listed("payments"):
        if link.text_or_none("status") == "paid":
            return payment_of_link(link)
    return invoice.ref_or_none("payment_intent") or invoice.ref_or_none("charge")


def payment_of_link(link: Node) -> str | None:
    payment = link.node_or_none("payment")
    return None if payment is None else payment.ref_or_none("payment_intent") or payment.ref_or_none("charge")


def paid_period(invoice: Node) -> tuple[datetime | None, datetime | None]:
    """Find the service period that an invoice pays for, which stands on its lines.

    `invoice.period_start` and `period_end` are no help: on a renewal they name the period that has just
    ended.
    """
    periods = [
        (period.moment("start"), period.moment("end"))
        for line in invoice.listed("lines")
        if _is_subscription_line(line) and (period := line.node_or_none("period")) is not None
    ]
    # With several lines (a proration beside the next period) the one that reaches furthest is what was
    # bought.
    return max(periods, key=lambda period: period[1], default=(None, None))


def _is_subscription_line(line: Node) -> bool:
    parent = line.node_or_none("parent")
    if parent is not None:
        return parent.text_or_none("type") == "subscription_item_details"
    return line.text_or_none("type") == "subscription"


def _subscription_period(subscription: Node) -> tuple[datetime | None, datetime | None]:
    holders = [*subscription.listed("items"), subscription]
    return _first_moment(holders, "current_period_start"), _first_moment(holders, "current_period_end")


def _first_moment(holders: list[Node], key: str) -> datetime | None:
    moments = (node.moment_or_none(key) for node in holders)
    return next((moment for moment in moments if moment is not None), None)


def billing_reason(invoice: Node) -> BillingReason:
    return _REASONS.get(invoice.text_or_none("billing_reason") or "", "other")


def disputed_payment(dispute: Node) -> tuple[str | None, str | None]:
    payment_ref = dispute.ref_or_none("payment_intent")
    # Older disputes name the charge alone; one of the two must be there, or nobody can tell what is disputed.
    return payment_ref, dispute.ref_or_none("charge") if payment_ref else dispute.ref("charge")


def fee_of_charge(charge: Node | None) -> Fee | None:
    """Read what Stripe kept of a charge; None where its entry in the account's books was not asked for or made yet."""
    entry = None if charge is None else charge.data.get("balance_transaction")
    if charge is None or not isinstance(entry, Mapping):
        return None
    booked = charge.node("balance_transaction")
    return Fee(amount=read_amount(booked, "fee"), currency=read_currency(booked))


def refunded_of_charge(charge: Node | None) -> GoneBack | None:
    """Read what has gone back of a charge whose refunds are expanded; None where there is no charge (yet)."""
    if charge is None:
        return None
    return GoneBack(total=read_amount(charge, "amount_refunded"), failed=failed_refunds(charge))


def failed_refunds(charge: Node) -> frozenset[str]:
    """Name the refunds of a charge that have failed, of the newest ten, which Stripe expands."""
    return frozenset(row.ref("id") for row in charge.listed("refunds") if row.text("status") in FAILED_REFUNDS)


def fee_of_dispute(dispute: Node) -> Fee | None:
    """Add up what Stripe has taken for a dispute and given back of that; None where it has booked nothing yet."""
    booked = list(dispute.rows("balance_transactions"))
    if not booked:
        return None
    currency = read_currency(booked[0])
    return Fee(amount=from_stripe(max(sum(row.integer("fee") for row in booked), 0), currency), currency=currency)


def returned_of_dispute(dispute: Node) -> Decimal:
    """Return how much of a dispute Stripe has given back, in the dispute's currency.

    The entries in the account's books that tell it may be in another one, so it is their share that counts.
    """
    booked = [row.integer("amount") for row in dispute.rows("balance_transactions")]
    taken, back = -sum(min(amount, 0) for amount in booked), sum(max(amount, 0) for amount in booked)
    if not taken:
        return Decimal(0)
    amount, currency = read_amount(dispute, "amount"), read_currency(dispute)
    return round_money(amount * min(back, taken) / taken, currency)


def read_amount(node: Node, *keys: str) -> Decimal:
    """Read the first of several amounts that is there."""
    key = next((key for key in keys if key in node), keys[0])
    minor = node.integer(key)
    if minor < 0:
        node.refuse(key, "is negative")
    return from_stripe(minor, read_currency(node))


def read_currency(node: Node) -> str:
    code = node.text("currency").upper()
    if len(code) != 3 or not code.isascii() or not code.isalpha():
        node.refuse("currency", "is not a currency code")
    return code
