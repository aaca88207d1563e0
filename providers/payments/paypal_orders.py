"""What PayPal's orders and disputes amount to (providers.md 2.3). Approved is not paid: the money must be captured."""

from datetime import datetime
from decimal import Decimal
from typing import Final

from providers.payments.facts import DisputeClosed, DisputeOpened, DisputeOutcome, Fact, Fee, Source
from providers.payments.orders import read_compact_tags
from providers.payments.payment_state import PaymentState, PaymentStatus
from providers.payments.reading import Node

_ORDERS: Final = {
    "CREATED": PaymentStatus.PENDING,
    "SAVED": PaymentStatus.PENDING,
    "PAYER_ACTION_REQUIRED": PaymentStatus.PENDING,
    "APPROVED": PaymentStatus.APPROVED,
    "VOIDED": PaymentStatus.CANCELLED,
}
_CAPTURES: Final = {
    "COMPLETED": PaymentStatus.PAID,
    "PARTIALLY_REFUNDED": PaymentStatus.PAID,
    "REFUNDED": PaymentStatus.PAID,
    # Taken back by PayPal or by the payer's bank; it was paid, and all of it has gone back.
    "REVERSED": PaymentStatus.PAID,
    "PENDING": PaymentStatus.PROCESSING,
    "DECLINED": PaymentStatus.FAILED,
    "FAILED": PaymentStatus.FAILED,
}
_GONE_BACK: Final = frozenset({"REFUNDED", "REVERSED"})
_LOST_REFUNDS: Final = frozenset({"FAILED", "CANCELLED"})
_OUTCOMES: Final[dict[str, DisputeOutcome]] = {
    "RESOLVED_BUYER_FAVOUR": "lost",
    "ACCEPTED": "lost",
    "RESOLVED_WITH_PAYOUT": "won",
    "RESOLVED_SELLER_FAVOUR": "won",
    "CANCELED_BY_BUYER": "won",
    "DENIED": "won",
    "NONE": "won",
}


def read_order(order: Node) -> PaymentState:
    """Read an order with its captures and refunds into a state.

    Raises:
        BadPayload: something is missing or garbled.
    """
    unit = next(order.rows("purchase_units"), None)
    if unit is None:
        order.refuse("purchase_units", "is empty")
    price = unit.node("amount")
    asked, currency = price.amount("value"), price.currency("currency_code")
    capture = _newest_capture(unit)
    word = order.text("status")
    status = _ORDERS.get(word, PaymentStatus.PENDING)
    if capture is not None:
        capture_word = capture.text("status")
        status = _CAPTURES.get(capture_word, PaymentStatus.PROCESSING)
        word = f"{word}/{capture_word}"
    has_money = capture is not None and status in (PaymentStatus.PAID, PaymentStatus.PROCESSING)
    received = _money(capture, currency) if capture is not None and has_money else Decimal(0)
    order_id = order.ref("id")
    payer = order.node_or_none("payer")
    return PaymentState(
        session_id=order_id,
        tags=read_compact_tags(unit.text_or_none("custom_id")),
        status=status,
        provider_status=word,
        asked=asked,
        received=received,
        refunded=_refunded(unit, capture, received=received, currency=currency),
        currency=currency,
        payment_key=order_id,
        payment_ref=None if capture is None else capture.ref("id"),
        invoice_ref=None,
        subscription_ref=None,
        customer_ref=None if payer is None else payer.ref_or_none("payer_id"),
        is_late=False,
        is_test=False,
        changed_at=max(_moments(order, unit)),
        # A refund changes the capture, but not when it was made.
        paid_at=capture.instant_or_none("create_time") if capture is not None and has_money else None,
        fee=None if capture is None else _fee(capture),
        refunds_failed=frozenset(refund.ref("id") for refund in _refunds(unit) if _is_lost(refund)),
        is_reversed=capture is not None and capture.text("status") == "REVERSED",
    )


def read_dispute(dispute: Node, source: Source, *, is_closed: bool) -> Fact | None:
    """Read a dispute; None where it names no payment of ours.

    Raises:
        BadPayload: something is missing or garbled.
    """
    transaction = next(dispute.rows("disputed_transactions"), None)
    payment_ref = None if transaction is None else transaction.ref_or_none("seller_transaction_id")
    if payment_ref is None:
        return None
    money = dispute.node("dispute_amount")
    is_inquiry = dispute.text_or_none("dispute_life_cycle_stage") == "INQUIRY"
    if not is_closed:
        return DisputeOpened(
            **source,
            dispute_ref=dispute.ref("dispute_id"),
            payment_ref=payment_ref,
            charge_ref=payment_ref,
            amount=money.amount("value"),
            currency=money.currency("currency_code"),
            reason=dispute.text_or_none("reason"),
            inquiry=is_inquiry,
        )
    outcome = dispute.node_or_none("dispute_outcome")
    code = None if outcome is None else outcome.text_or_none("outcome_code")
    decided = _OUTCOMES.get(code or "NONE")
    if decided is None:
        dispute.refuse("dispute_outcome", "is not a known one")
    return DisputeClosed(
        **source,
        dispute_ref=dispute.ref("dispute_id"),
        payment_ref=payment_ref,
        charge_ref=payment_ref,
        amount=money.amount("value"),
        currency=money.currency("currency_code"),
        outcome=decided,
        inquiry=is_inquiry,
    )


def _newest_capture(unit: Node) -> Node | None:
    payments = unit.node_or_none("payments")
    captures = [] if payments is None else list(payments.rows("captures"))
    # After a declined capture the payer may try again; the newest attempt counts, unless one has succeeded.
    good = [capture for capture in captures if _CAPTURES.get(capture.text("status")) is PaymentStatus.PAID]
    return (good or captures)[-1] if captures else None


def _refunded(unit: Node, capture: Node | None, *, received: Decimal, currency: str) -> Decimal:
    if capture is not None and capture.text("status") in _GONE_BACK:
        return received
    good = (refund for refund in _refunds(unit) if not _is_lost(refund))
    return sum((_money(refund, currency) for refund in good), Decimal(0))


def _refunds(unit: Node) -> list[Node]:
    payments = unit.node_or_none("payments")
    return [] if payments is None else list(payments.rows("refunds"))


def _is_lost(refund: Node) -> bool:
    return refund.text("status") in _LOST_REFUNDS


def _fee(capture: Node) -> Fee | None:
    """Read what PayPal keeps of a capture, also when it is refunded; None while the money is held."""
    breakdown = capture.node_or_none("seller_receivable_breakdown")
    money = None if breakdown is None else breakdown.node_or_none("paypal_fee")
    return None if money is None else Fee(amount=money.amount("value"), currency=money.currency("currency_code"))


def _money(holder: Node, currency: str) -> Decimal:
    money = holder.node("amount")
    if money.currency("currency_code") != currency:
        money.refuse("currency_code", "is another than the order's")
    return money.amount("value")


def _moments(order: Node, unit: Node) -> list[datetime]:
    payments = unit.node_or_none("payments")
    holders = [order]
    if payments is not None:
        holders += [*payments.rows("captures"), *payments.rows("refunds")]
    found = [holder.instant_or_none(name) for holder in holders for name in ("create_time", "update_time")]
    return [moment for moment in found if moment is not None] or [order.instant("create_time")]
