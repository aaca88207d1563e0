"""Which papers the money book calls for that have not been issued; nothing here but arithmetic.

A paper cannot be taken back, and facts come in any order. So papers follow from what the book holds, not from the fact
that has just come: each movement is brought to its amount by what is issued for it, as the journal does it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from core.money import round_money
from models.billing import PaymentEvent, PaymentEventType
from models.documents import Document, DocumentKind, DocumentReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A paper to be issued: `total` is below zero when it takes something back; see `Document` for `part`."""

    reason: DocumentReason
    movement: PaymentEvent
    total: Decimal
    part: int

    @property
    def kind(self) -> DocumentKind:
        if self.reason is DocumentReason.PAYMENT:
            return DocumentKind.INVOICE
        return DocumentKind.CREDIT_NOTE if self.total < 0 else DocumentKind.CANCELLATION


def due_papers(payment: PaymentEvent, movements: Sequence[PaymentEvent], issued: Sequence[Document]) -> list[Due]:
    """Return what is to be issued for a payment and the refunds and disputes of it, in the order of issue.

    A paper tells of the price, which cannot fall below nothing: what a dispute takes beside what was refunded is in the
    journal alone (docs/billing.md).
    """
    found = _towards(payment, DocumentReason.PAYMENT, payment.amount, issued)
    refunds = [row for row in movements if row.event_type is PaymentEventType.REFUND]
    found += _refunds(refunds, issued) or _failed_refunds(refunds, issued)
    disputes = [row for row in movements if row.event_type is PaymentEventType.CHARGEBACK]
    left = payment.amount - _refunded(refunds)
    for row in sorted(disputes, key=lambda row: (row.created_at, row.fact_key)):
        if row.event_metadata.get("outcome") == "won":
            # Its credit note stands as it was issued, and is voided by as much.
            taken = won = -_total(_issued(row, DocumentReason.DISPUTE, issued)) or row.amount
        else:
            taken, won = max(min(row.amount, left), Decimal(0)), Decimal(0)
            left -= taken
        found += _towards(row, DocumentReason.DISPUTE, -taken, issued)
        found += _towards(row, DocumentReason.DISPUTE_WON, won, issued)
    return found


def tax_of(total: Decimal, rate: Decimal, currency: str) -> Decimal:
    """Return the tax within a price that includes it, `rate` in percent, a half rounded away from zero.

    >>> tax_of(Decimal("49.99"), Decimal(20), "USD")
    Decimal('8.33')
    """
    return round_money(total * rate / (100 + rate), currency)


def _towards(movement: PaymentEvent, reason: DocumentReason, target: Decimal, issued: Sequence[Document]) -> list[Due]:
    known = _issued(movement, reason, issued)
    step = round_money(target, movement.currency) - round_money(_total(known), movement.currency)
    return [Due(reason=reason, movement=movement, total=step, part=len(known) + 1)] if step else []


def _issued(movement: PaymentEvent, reason: DocumentReason, issued: Sequence[Document]) -> list[Document]:
    return [paper for paper in issued if (paper.movement_id, paper.reason) == (movement.id, reason)]


def _total(papers: Iterable[Document]) -> Decimal:
    return sum((paper.total for paper in papers), Decimal(0))


def _refunds(refunds: Sequence[PaymentEvent], issued: Sequence[Document]) -> list[Due]:
    """Follow the running total of what was refunded; a total below what papers tell already is old news."""
    told, now = _told(issued), _refunded(refunds)
    found = []
    for row in sorted(refunds, key=_running_total):
        total = min(_running_total(row), now)
        if total > told:
            step = round_money(told - total, row.currency)
            found.append(_due_refund(row, step, issued))
            told = total
    return found


def _failed_refunds(refunds: Sequence[PaymentEvent], issued: Sequence[Document]) -> list[Due]:
    """Cancel what papers tell beyond what has gone back in the end, of the highest totals first."""
    over = _told(issued) - _refunded(refunds)
    found = []
    for row in sorted(refunds, key=_running_total, reverse=True):
        step = round_money(min(over, _told(paper for paper in issued if paper.movement_id == row.id)), row.currency)
        if step > 0:
            found.append(_due_refund(row, step, issued))
            over -= step
    return found


def _due_refund(row: PaymentEvent, step: Decimal, issued: Sequence[Document]) -> Due:
    known = _issued(row, DocumentReason.REFUND, issued)
    return Due(reason=DocumentReason.REFUND, movement=row, total=step, part=len(known) + 1)


def _told(papers: Iterable[Document]) -> Decimal:
    return -_total(paper for paper in papers if paper.reason is DocumentReason.REFUND)


def _refunded(refunds: Sequence[PaymentEvent]) -> Decimal:
    """Return what has gone back: rows of refunds that failed hold less than their totals say."""
    return sum((round_money(row.amount, row.currency) for row in refunds), Decimal(0))


def _running_total(refund: PaymentEvent) -> Decimal:
    return round_money(Decimal(refund.event_metadata["refunded_total"]), refund.currency)
