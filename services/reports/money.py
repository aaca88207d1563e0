"""Money by month, from the journal alone (models/journal.py): lines are sums of entries, and no entry counts twice."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, ScalarSelect, String, and_, cast, func, null, select

from models.journal import SIDES, EntryKind, JournalEntry
from models.plans import Plan
from services.billing.journal import plan_of_entry
from services.reports.months import Months
from services.reports.views import CommissionView, MoneyView, RevenueView
from services.unit_of_work import UnitOfWork

COMMISSION: Final = "commission"
_COMMISSIONS: Final = "commissions"

# The columns that a kind changes, and whether it is added to them or taken away.
_COLUMNS: Final[Mapping[EntryKind, Mapping[str, int]]] = {
    EntryKind.CHARGE: {"charged": 1, "net": 1},
    EntryKind.REFUND: {"refunded": 1, "net": -1},
    EntryKind.DISPUTE: {"disputed": 1, "net": -1},
    EntryKind.DISPUTE_WON: {"disputed": -1, "net": 1},
    EntryKind.CREDIT: {"credits": 1},
    EntryKind.CREDIT_SETTLED: {"credits": -1},
    # It was charged for a change that came to nothing, and is owed to the tenant since.
    EntryKind.UNEARNED: {"credits": 1, "net": -1},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """Entries of one sort added up; kinds and accounts are texts, so that new ones are no surprise."""

    month: date
    provider: str
    currency: str
    plan: str | None
    kind: str
    debit: str
    credit: str
    amount: Decimal


async def revenue(uow: UnitOfWork, months: Months) -> list[RevenueView]:
    """Report what all tenants paid, by month, provider, plan and currency. Needs a PlatformScope."""
    return revenue_lines(await _sums(uow, _of_months(months), by_plan=True))


async def spending(uow: UnitOfWork, tenant_id: UUID, months: Months) -> list[MoneyView]:
    """Report what one tenant paid, by month and currency."""
    return spending_lines(await _sums(uow, and_(JournalEntry.tenant_id == tenant_id, _of_months(months))))


async def commission(uow: UnitOfWork, months: Months) -> list[CommissionView]:
    """Report commission on merchants' orders, by month, provider and currency. Needs a PlatformScope."""
    of_commission = cast(JournalEntry.kind, String) == COMMISSION
    return commission_lines(await _sums(uow, and_(of_commission, _of_months(months))))


def revenue_lines(sums: Iterable[Sum]) -> list[RevenueView]:
    """Fold sums into lines by month, provider, plan and currency."""
    found: defaultdict[tuple[date, str, str, str], list[Sum]] = defaultdict(list)
    for part in _of_service(sums):
        found[part.month, part.provider, part.plan or "", part.currency].append(part)
    return [
        RevenueView(month=month, provider=provider, plan=plan or None, currency=currency, **_columns(parts))
        for (month, provider, plan, currency), parts in sorted(found.items())
    ]


def spending_lines(sums: Iterable[Sum]) -> list[MoneyView]:
    """Fold sums into lines by month and currency."""
    found: defaultdict[tuple[date, str], list[Sum]] = defaultdict(list)
    for part in _of_service(sums):
        found[part.month, part.currency].append(part)
    return [
        MoneyView(month=month, currency=currency, **_columns(parts))
        for (month, currency), parts in sorted(found.items())
    ]


def commission_lines(sums: Iterable[Sum]) -> list[CommissionView]:
    """Fold sums into lines by month, provider and currency; what is taken from the account went back."""
    found: defaultdict[tuple[date, str, str], list[Decimal]] = defaultdict(lambda: [Decimal(0), Decimal(0)])
    for part in sums:
        if part.kind == COMMISSION and _COMMISSIONS in (part.credit, part.debit):
            found[part.month, part.provider, part.currency][part.debit == _COMMISSIONS] += part.amount
    return [
        CommissionView(
            month=month, provider=provider, currency=currency, earned=earned, reversed=back, net=earned - back
        )
        for (month, provider, currency), (earned, back) in sorted(found.items())
    ]


def _of_service(sums: Iterable[Sum]) -> Iterable[Sum]:
    """Leave out what is not about what tenants pay for service, such as commission on their own sales."""
    return (part for part in sums if part.kind in _COLUMNS)


def _columns(sums: Iterable[Sum]) -> dict[str, Decimal]:
    found = dict.fromkeys(("charged", "refunded", "disputed", "credits", "net"), Decimal(0))
    for part in sums:
        kind = EntryKind(part.kind)
        for column, sign in _COLUMNS[kind].items():
            # An entry with its sides exchanged takes back what one of the same fact posted too much.
            found[column] += sign * (part.amount if part.debit == SIDES[kind][0] else -part.amount)
    return found


def _of_months(months: Months) -> ColumnElement[bool]:
    return and_(JournalEntry.occurred_at >= months.begins_at, JournalEntry.occurred_at < months.ends_before)


async def _sums(uow: UnitOfWork, condition: ColumnElement[bool], *, by_plan: bool = False) -> list[Sum]:
    # The month of UTC, whatever zone the database's session is in.
    month = func.date_trunc("month", JournalEntry.occurred_at, "UTC")
    sides = [cast(column, String) for column in (JournalEntry.kind, JournalEntry.debit, JournalEntry.credit)]
    plan = _plan().label("plan") if by_plan else cast(null(), String).label("plan")
    each = (
        select(
            month.label("month"),
            JournalEntry.provider,
            JournalEntry.currency,
            plan,
            *(side.label(name) for side, name in zip(sides, ("kind", "debit", "credit"), strict=True)),
            JournalEntry.amount,
        )
        .where(condition)
        .subquery()
    )
    keys = [column for column in each.c if column.name != "amount"]
    rows = await uow.session.execute(select(*keys, func.sum(each.c.amount).label("amount")).group_by(*keys))
    return [
        Sum(
            month=row.month.date(),
            provider=row.provider,
            currency=row.currency,
            plan=row.plan,
            kind=row.kind,
            debit=row.debit,
            credit=row.credit,
            amount=row.amount,
        )
        for row in rows
    ]


def _plan() -> ScalarSelect[str]:
    """Select the slug of the plan that an entry's payment was for."""
    of_entry = select(Plan.slug).where(Plan.id == func.coalesce(JournalEntry.plan_id, plan_of_entry()))
    return of_entry.correlate(JournalEntry).scalar_subquery()
