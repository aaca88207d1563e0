"""What an order amounts to: its state, what the merchant has kept of it, and what must go back to the customer.

All of it follows from the rows of the order and from nothing else, so it does not matter in which order they came to be
what they are (providers.md 1.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from core.money import share_of
from models.credits import CreditReason
from models.orders import Order, OrderDispute, OrderInvoice, OrderRefund, OrderStatus, RefundState
from models.payment_progress import CheckoutState

_NOTHING: Final = Decimal(0)
_GIVEN: Final = (RefundState.PENDING, RefundState.MADE)
# Of several invoices that are not paid, the one that is furthest tells where the order stands.
_UNPAID: Final = (
    (CheckoutState.PROCESSING, OrderStatus.PROCESSING),
    (CheckoutState.APPROVED, OrderStatus.PENDING),
    (CheckoutState.PENDING, OrderStatus.PENDING),
    (CheckoutState.UNDERPAID, OrderStatus.UNDERPAID),
    (CheckoutState.FAILED, OrderStatus.FAILED),
    (CheckoutState.EXPIRED, OrderStatus.EXPIRED),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """What the merchant owes the customer of one invoice, because it has bought nothing."""

    invoice_id: UUID
    reason: CreditReason
    amount: Decimal


@dataclass(slots=True)
class Book:
    """An order with every row about it."""

    order: Order
    invoices: list[OrderInvoice] = field(default_factory=list)
    disputes: list[OrderDispute] = field(default_factory=list)
    refunds: list[OrderRefund] = field(default_factory=list)

    @property
    def paying(self) -> OrderInvoice | None:
        """The invoice that has paid the order: of several the one that was paid first."""
        paid = [invoice for invoice in self.invoices if invoice.state is CheckoutState.PAID]
        return min(paid, key=_place_in_time, default=None)

    @property
    def is_disputed(self) -> bool:
        """Whether a bank has yet to decide."""
        return any(dispute.outcome is None for dispute in self.disputes)

    @property
    def gone(self) -> Decimal:
        """How much of the price has gone back: by refunds beyond what nobody asked for, and by disputes not won."""
        paying = self.paying
        if paying is None:
            return _NOTHING
        beyond = max(self.given_back(paying) - paying.overpaid, _NOTHING)
        return min(beyond + self._taken_back(paying), self.order.amount)

    @property
    def kept(self) -> Decimal:
        """What the merchant has of the price."""
        return _NOTHING if self.paying is None else self.order.amount - self.gone

    @property
    def commission(self) -> Decimal:
        """What is ours of it, at the percentage that was agreed when the invoice was opened."""
        paying = self.paying
        return _NOTHING if paying is None else share_of(self.kept, paying.commission_percent, self.order.currency)

    @property
    def status(self) -> OrderStatus:
        """Where the order stands."""
        if self.paying is None:
            states = {invoice.state for invoice in self.invoices}
            return next((status for state, status in _UNPAID if state in states), OrderStatus.PENDING)
        if self.is_disputed:
            return OrderStatus.DISPUTED
        if self.gone == _NOTHING:
            return OrderStatus.PAID
        return OrderStatus.REFUNDED if self.gone >= self.order.amount else OrderStatus.PARTIALLY_REFUNDED

    @property
    def owed(self) -> tuple[Owed, ...]:
        """What must go back to the customer, by invoice in the order in which they were begun."""
        ordered = sorted(self.invoices, key=lambda invoice: (invoice.created_at, invoice.id))
        return tuple(owed for invoice in ordered if (owed := self._owed_of(invoice)) is not None)

    def given_back(self, invoice: OrderInvoice) -> Decimal:
        """Return how much went back of an invoice: what its provider tells, or what we know to have been refunded."""
        return max(invoice.refunded, self._refunds_of(invoice, *_GIVEN))

    def refundable(self, invoice: OrderInvoice) -> Decimal:
        """Return what may still be given back of an invoice; what was asked for counts as gone."""
        has_money = invoice.state in (CheckoutState.PAID, CheckoutState.UNDERPAID)
        received = invoice.received if has_money else _NOTHING
        asked = self._refunds_of(invoice, RefundState.ASKED)
        return max(received - self.given_back(invoice) - asked - self._taken_back(invoice), _NOTHING)

    def _owed_of(self, invoice: OrderInvoice) -> Owed | None:
        back = self.given_back(invoice)
        if invoice is self.paying:
            reason, amount = CreditReason.OVERPAID, invoice.overpaid - back
        elif invoice.state is CheckoutState.PAID:
            reason, amount = CreditReason.DUPLICATE, invoice.received - back - self._taken_back(invoice)
        elif invoice.state is CheckoutState.UNDERPAID:
            reason, amount = CreditReason.UNDERPAID, invoice.received - back
        else:
            return None
        return Owed(invoice_id=invoice.id, reason=reason, amount=amount) if amount > 0 else None

    def _refunds_of(self, invoice: OrderInvoice, *states: RefundState) -> Decimal:
        mine = (row.amount for row in self.refunds if row.invoice_id == invoice.id and row.state in states)
        return sum(mine, _NOTHING)

    def _taken_back(self, invoice: OrderInvoice) -> Decimal:
        mine = (row.amount for row in self.disputes if row.invoice_id == invoice.id and row.outcome != "won")
        return sum(mine, _NOTHING)


def books_of(
    orders: Sequence[Order],
    *,
    invoices: Sequence[OrderInvoice],
    disputes: Sequence[OrderDispute],
    refunds: Sequence[OrderRefund],
) -> list[Book]:
    """Put the rows to their orders."""
    books = {order.id: Book(order) for order in orders}
    for invoice in invoices:
        books[invoice.order_id].invoices.append(invoice)
    for dispute in disputes:
        books[dispute.order_id].disputes.append(dispute)
    for refund in refunds:
        books[refund.order_id].refunds.append(refund)
    return list(books.values())


def _place_in_time(invoice: OrderInvoice) -> tuple[datetime, datetime, str]:
    # Providers count whole seconds: of two paid in one second, the one that was begun first is meant.
    return invoice.completed_at or invoice.created_at, invoice.created_at, invoice.session_id or ""
