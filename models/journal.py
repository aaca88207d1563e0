"""The journal: every movement of money as one row that takes from one account and gives to another.

A row cannot be out of balance, so neither can any sum of rows. Rows are never changed: what turns out to be another
amount is brought there by a further row (`difference`).
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Numeric, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Identified, OutlivesTenant, enum_column


class Account(StrEnum):
    """Where money is, or what it is for.

    * `cash`: what providers hold for us.
    * `revenue`: what was paid for service.
    * `refunds`, `disputes`: what went back of it, by us and by the payer's bank.
    * `credits`: what came without buying anything, which we owe to the tenant.
    * `fees`: what providers kept for themselves.
    * `receivables`: what a merchant owes us, as the commission stays with the order's price at the merchant's provider.
    * `commissions`: our commission on merchants' orders.
    """

    CASH = "cash"
    REVENUE = "revenue"
    REFUNDS = "refunds"
    DISPUTES = "disputes"
    CREDITS = "credits"
    RECEIVABLES = "receivables"
    COMMISSIONS = "commissions"
    FEES = "fees"


class EntryKind(StrEnum):
    """Which money fact an entry is of."""

    CHARGE = "charge"
    REFUND = "refund"
    DISPUTE = "dispute"
    DISPUTE_WON = "dispute_won"
    CREDIT = "credit"
    CREDIT_SETTLED = "credit_settled"
    UNEARNED = "unearned"
    COMMISSION = "commission"
    FEE = "fee"


SIDES: Final[Mapping[EntryKind, tuple[Account, Account]]] = {
    EntryKind.CHARGE: (Account.CASH, Account.REVENUE),
    EntryKind.REFUND: (Account.REFUNDS, Account.CASH),
    EntryKind.DISPUTE: (Account.DISPUTES, Account.CASH),
    EntryKind.DISPUTE_WON: (Account.CASH, Account.DISPUTES),
    EntryKind.CREDIT: (Account.CASH, Account.CREDITS),
    EntryKind.CREDIT_SETTLED: (Account.CREDITS, Account.CASH),
    EntryKind.UNEARNED: (Account.REVENUE, Account.CREDITS),
    EntryKind.FEE: (Account.FEES, Account.CASH),
    EntryKind.COMMISSION: (Account.RECEIVABLES, Account.COMMISSIONS),
}
"""Which account is debited and which is credited."""


def difference(kind: EntryKind, *, posted: Decimal, target: Decimal) -> tuple[Account, Account, Decimal] | None:
    """Return what must be posted for a fact of which `posted` is in the journal to come to `target`.

    That is (debited, credited, amount above zero), the sides exchanged where less is right than was posted; None when
    nothing is to be done.
    """
    debit, credit = SIDES[kind]
    if target > posted:
        return debit, credit, target - posted
    return (credit, debit, posted - target) if target < posted else None


class JournalEntry(Identified, OutlivesTenant, Base):
    """One movement; `fact_key` names the fact within its provider and kind, `number` counts the rows of one fact.

    `plan_id` is what its payment was for. It is noted when the tenant goes, and follows from the payment before
    (services/billing/journal.py).
    """

    __tablename__ = "journal_entries"
    __table_args__ = (
        UniqueConstraint("provider", "kind", "fact_key", "number"),
        CheckConstraint("amount > 0", name="amount"),
        CheckConstraint("debit <> credit", name="sides"),
        Index("ix_journal_entries_tenant_id", "tenant_id", "occurred_at"),
    )

    provider: Mapped[str] = mapped_column(String(50))
    kind: Mapped[EntryKind] = mapped_column(enum_column(EntryKind, name="kind"))
    fact_key: Mapped[str] = mapped_column(String(300))
    number: Mapped[int]
    debit: Mapped[Account] = mapped_column(enum_column(Account, name="debit"))
    credit: Mapped[Account] = mapped_column(enum_column(Account, name="credit"))
    # As fine as any coin is.
    amount: Mapped[Decimal] = mapped_column(Numeric())
    currency: Mapped[str] = mapped_column(String(10))
    occurred_at: Mapped[datetime]
    plan_id: Mapped[UUID | None] = mapped_column(ForeignKey("plans.id"))
