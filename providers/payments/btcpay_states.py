"""What a BTCPay invoice amounts to: its own amounts, in the currency asked, decide (providers.md 1.2 and 2.5)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from core.money import round_money
from providers.payments.orders import tags_of_metadata
from providers.payments.payment_state import PaymentState, PaymentStatus
from providers.payments.reading import Node

_MARKED: Final = "Marked"


@dataclass(frozen=True, slots=True)
class _Coins:
    """One transfer: its worth in the invoice's currency by the invoice's own rate."""

    worth: Decimal
    received_at: datetime
    is_certain: bool


@dataclass(frozen=True, slots=True)
class _Sum:
    """All transfers of an invoice; `is_enough` is the server's own word that nothing is due any more."""

    coins: tuple[_Coins, ...]
    received: Decimal
    is_enough: bool

    @property
    def is_certain(self) -> bool:
        return all(coins.is_certain for coins in self.coins)


def read_invoice(invoice: Node, methods: Sequence[Node]) -> PaymentState:
    """Read an invoice and its payment methods into a state.

    Raises:
        BadPayload: something is missing or garbled.
    """
    asked, currency = invoice.amount("amount"), invoice.currency("currency")
    total = _add_up(methods, asked=asked, currency=currency)
    word, more = invoice.text("status"), invoice.text_or_none("additionalStatus") or "None"
    expires_at = invoice.moment("expirationTime")
    status = _status(word, more, total)
    received = total.received
    if status is PaymentStatus.PAID:
        # Within the store's tolerance, or by an operator's word, less counts as all of it.
        received = max(received, asked)
    in_time = sum((coins.worth for coins in total.coins if coins.received_at <= expires_at), Decimal(0))
    invoice_id = invoice.ref("id")
    return PaymentState(
        session_id=invoice_id,
        tags=tags_of_metadata(invoice.node_or_none("metadata")),
        status=status,
        provider_status=f"{word}/{more}",
        asked=asked,
        received=received,
        refunded=Decimal(0),
        currency=currency,
        payment_key=invoice_id,
        payment_ref=invoice_id,
        invoice_ref=None,
        subscription_ref=None,
        customer_ref=None,
        is_late=total.is_enough and bool(total.coins) and round_money(in_time, currency) < asked and word == "Expired",
        is_test=False,
        paid_at=_paid_at(invoice, total) if status is PaymentStatus.PAID else None,
        changed_at=_changed_at(invoice, methods, expires_at, is_over=word == "Expired"),
    )


def paid_by(methods: Sequence[Node]) -> str | None:
    """Name the method through which money came, which is the way for it to go back."""
    for method in methods:
        if next(method.rows("payments"), None) is not None:
            return method.text_or_none("paymentMethodId") or method.text_or_none("paymentMethod")
    return None


def _status(word: str, more: str, total: _Sum) -> PaymentStatus:
    match word:
        case "Settled":
            return PaymentStatus.PAID
        case "Processing":
            return PaymentStatus.PROCESSING
        case "Invalid":
            return PaymentStatus.CANCELLED if more == _MARKED and not total.coins else PaymentStatus.FAILED
        case "Expired" if total.is_enough:
            # Paid in full, but late: the server leaves it expired and only the amounts tell (#3966, #4146).
            return PaymentStatus.PAID if total.is_certain else PaymentStatus.PROCESSING
        case "Expired":
            return PaymentStatus.UNDERPAID if total.coins else PaymentStatus.EXPIRED
        case _:
            return PaymentStatus.PENDING


def _add_up(methods: Sequence[Node], *, asked: Decimal, currency: str) -> _Sum:
    coins: list[_Coins] = []
    is_enough = False
    for method in methods:
        payments = [payment for payment in method.rows("payments") if payment.text("status") != "Invalid"]
        if not payments:
            continue
        rate = method.amount("rate")
        coins += [_read_coins(payment, rate) for payment in payments]
        is_enough |= _is_nothing_due(method)
    received = round_money(sum((found.worth for found in coins), Decimal(0)), currency)
    # What is due is counted in coins, so the worth of a full payment may be a hair less than was asked.
    return _Sum(tuple(coins), max(received, asked) if is_enough else received, is_enough)


def _is_nothing_due(method: Node) -> bool:
    due = method.data.get("due")
    # More than was asked is a negative due, which `Node.amount` would refuse.
    if isinstance(due, str) and due.strip().startswith("-"):
        return True
    return method.amount("due") == 0


def _read_coins(payment: Node, rate: Decimal) -> _Coins:
    # The network's fee is charged on top of the price, so it pays for nothing.
    net = payment.amount("value") - (payment.amount_or_none("fee") or Decimal(0))
    return _Coins(
        worth=max(net, Decimal(0)) * rate,
        received_at=payment.moment("receivedDate"),
        is_certain=payment.text("status") == "Settled",
    )


def _changed_at(invoice: Node, methods: Sequence[Node], expires_at: datetime, *, is_over: bool) -> datetime:
    """Tell when the invoice last changed, which the server does not say: its newest transfer, end or beginning.

    A transfer that became invalid counts too, or what is known last would look older than what was known before.
    """
    transfers = [payment.moment("receivedDate") for method in methods for payment in method.rows("payments")]
    moments = [invoice.moment("createdTime"), *transfers]
    return max([*moments, expires_at] if is_over else moments)


def _paid_at(invoice: Node, total: _Sum) -> datetime:
    return max((coins.received_at for coins in total.coins), default=invoice.moment("createdTime"))
