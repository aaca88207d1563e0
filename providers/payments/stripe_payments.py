"""What Stripe's checkout sessions amount to, read from the session, its payment and the charge behind it."""

from decimal import Decimal
from typing import Final

from providers.payments.orders import tags_of_metadata
from providers.payments.payment_state import OrderTags, PaymentState, PaymentStatus
from providers.payments.reading import Node
from providers.payments.stripe_objects import (
    FAILED_REFUNDS,
    failed_refunds,
    fee_of_charge,
    is_of_order,
    payment_of_invoice,
    purchase_if_readable,
    read_amount,
    read_currency,
)

_PAID: Final = frozenset({"paid", "no_payment_required"})
# A slow payment that came back: the session stays complete and unpaid for ever.
_CAME_BACK: Final = frozenset({"requires_payment_method", "canceled"})


def payment_of_session(session: Node, invoice: Node | None) -> str | None:
    """Name the payment behind a session: its own, or its first invoice's."""
    return session.ref_or_none("payment_intent") or (None if invoice is None else payment_of_invoice(invoice))


def read_session(session: Node, *, payment_ref: str | None, payment: Node | None) -> PaymentState:
    """Read a session into a state.

    Args:
        session: the checkout session.
        payment_ref: the payment intent behind it, where there is one.
        payment: that payment intent, with its latest charge, and of that its entry in the books and its refunds
            expanded.

    Raises:
        BadPayload: something is missing or garbled.
    """
    session_id = session.ref("id")
    invoice_ref = session.ref_or_none("invoice")
    asked = read_amount(session, "amount_total")
    status, word = _status(session, payment)
    charge = None if payment is None else payment.node_or_none("latest_charge")
    has_money = status in (PaymentStatus.PAID, PaymentStatus.PROCESSING)
    created_at = session.moment("created")
    # Stripe does not say when a session expired; that it was created is the last thing known.
    changed_at = created_at if charge is None else max(created_at, charge.moment("created"))
    # What has gone back is as old as the newest refund that holds, not as the charge.
    refunds = () if charge is None else charge.listed("refunds")
    refunded_at = [refund.moment("created") for refund in refunds if refund.text("status") not in FAILED_REFUNDS]
    return PaymentState(
        session_id=session_id,
        tags=_tags(session),
        status=status,
        provider_status=word,
        asked=asked,
        received=asked if has_money else Decimal(0),
        refunded=Decimal(0) if charge is None else read_amount(charge, "amount_refunded"),
        currency=read_currency(session),
        payment_key=invoice_ref or payment_ref or session_id,
        payment_ref=payment_ref,
        invoice_ref=invoice_ref,
        subscription_ref=session.ref_or_none("subscription"),
        customer_ref=session.ref_or_none("customer"),
        is_late=False,
        is_test=not session.flag("livemode"),
        changed_at=max([changed_at, *refunded_at]),
        paid_at=changed_at if status is PaymentStatus.PAID else None,
        fee=fee_of_charge(charge),
        refunds_failed=frozenset() if charge is None else failed_refunds(charge),
    )


def _status(session: Node, payment: Node | None) -> tuple[PaymentStatus, str]:
    word, paid = session.text("status"), session.text("payment_status")
    both = f"{word}/{paid}"
    match word:
        case "open":
            return PaymentStatus.PENDING, both
        case "expired":
            return PaymentStatus.EXPIRED, both
        case "complete" if paid in _PAID:
            return PaymentStatus.PAID, both
        case "complete":
            came_back = payment is not None and payment.text("status") in _CAME_BACK
            return PaymentStatus.FAILED if came_back else PaymentStatus.PROCESSING, both
        case _:
            return session.refuse("status", "is not a known status")


def _tags(session: Node) -> OrderTags | None:
    metadata = session.node_or_none("metadata")
    if is_of_order(session):
        return tags_of_metadata(metadata)
    purchase = purchase_if_readable(metadata)
    # Checkouts of the system before this one carry no id of ours.
    if purchase is None or purchase.checkout_id is None:
        return None
    return OrderTags(order_id=purchase.checkout_id, tenant_id=purchase.tenant_id, purchase=purchase)
