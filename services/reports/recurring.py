"""Monthly recurring revenue, and how it comes and goes (models/recurring.py)."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.dialects.postgresql import distinct_on

from models.plans import Plan
from models.recurring import RecurringRevenue
from services.reports.months import Months, begin_of, end_of
from services.reports.views import PlanRecurringView, RecurringView
from services.unit_of_work import UnitOfWork

_RATE: Final = Decimal("0.0001")
_NOTHING: Final = Decimal(0)

Customer = tuple[UUID, str]
"""A tenant as far as it pays in one currency."""


@dataclass(slots=True)
class _Movement:
    """How the sums of one currency's customers changed over a month."""

    start: Decimal = _NOTHING
    sums: defaultdict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    heads: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def take(self, before: Decimal, after: Decimal, *, is_known: bool) -> None:
        """Take in one customer; `is_known` tells whether it has paid before."""
        self.start += before
        self.heads["start"] += before > 0
        self.heads["end"] += after > 0
        if before == 0 and after > 0:
            kind, amount = ("reactivation" if is_known else "new"), after
        elif before > 0 and after == 0:
            kind, amount = "churn", before
        else:
            kind, amount = ("expansion", after - before) if after >= before else ("contraction", before - after)
        self.sums[kind] += amount
        self.heads[kind] += 1

    def view(self, month: date, currency: str) -> RecurringView:
        sums, heads = self.sums, self.heads
        come = sums["new"] + sums["reactivation"] + sums["expansion"]
        return RecurringView(
            month=month,
            currency=currency,
            mrr_start=self.start,
            new=sums["new"],
            reactivation=sums["reactivation"],
            expansion=sums["expansion"],
            contraction=sums["contraction"],
            churn=sums["churn"],
            mrr_end=self.start + come - sums["contraction"] - sums["churn"],
            customers_start=heads["start"],
            customers_new=heads["new"],
            customers_reactivated=heads["reactivation"],
            customers_churned=heads["churn"],
            customers_end=heads["end"],
            customer_churn_rate=_rate(Decimal(heads["churn"]), Decimal(heads["start"])),
            revenue_churn_rate=_rate(sums["churn"], self.start),
        )


async def recurring(uow: UnitOfWork, months: Months) -> list[RecurringView]:
    """Report each month in each currency in which anybody paid or stopped paying. Needs a PlatformScope."""
    first_paid = await _first_paid(uow)
    views: list[RecurringView] = []
    before = await _standing(uow, months.begins_at)
    for month in months:
        if begin_of(month) > uow.now:
            break
        after = await _standing(uow, end_of(month))
        views += _compare(month, before, after, first_paid)
        before = after
    return views


async def recurring_by_plan(uow: UnitOfWork) -> list[PlanRecurringView]:
    """Report what each plan brings now. Needs a PlatformScope."""
    newest = _newest(uow.now).subquery()
    paying, revenue = func.count(), func.sum(newest.c.amount)
    rows = await uow.session.execute(
        select(Plan.slug, newest.c.currency, paying, revenue)
        .join(Plan, Plan.id == newest.c.plan_id)
        .where(newest.c.amount > 0)
        .group_by(Plan.slug, newest.c.currency)
        .order_by(Plan.slug, newest.c.currency)
    )
    return [PlanRecurringView(plan=row[0], currency=row[1], customers=row[2], mrr=row[3]) for row in rows]


def _compare(
    month: date,
    before: Mapping[Customer, Decimal],
    after: Mapping[Customer, Decimal],
    first_paid: Mapping[Customer, datetime],
) -> Iterable[RecurringView]:
    found: defaultdict[str, _Movement] = defaultdict(_Movement)
    for customer in before.keys() | after.keys():
        was, is_now = before.get(customer, _NOTHING), after.get(customer, _NOTHING)
        if was or is_now:
            is_known = first_paid[customer] < begin_of(month)
            found[customer[1]].take(was, is_now, is_known=is_known)
    return [found[currency].view(month, currency) for currency in sorted(found)]


async def _standing(uow: UnitOfWork, moment: datetime) -> dict[Customer, Decimal]:
    """Return what every customer brought just before a moment."""
    newest = _newest(moment).subquery()
    rows = await uow.session.execute(select(newest.c.tenant_id, newest.c.currency, newest.c.amount))
    return {(row.tenant_id, row.currency): row.amount for row in rows if row.amount > 0}


def _newest(moment: datetime) -> Select[UUID, UUID, str, Decimal]:
    """Select what every tenant's subscription brought just before a moment."""
    return (
        select(RecurringRevenue.tenant_id, RecurringRevenue.plan_id, RecurringRevenue.currency, RecurringRevenue.amount)
        .where(RecurringRevenue.since < moment)
        .ext(distinct_on(RecurringRevenue.tenant_id))
        .order_by(RecurringRevenue.tenant_id, RecurringRevenue.since.desc(), RecurringRevenue.id.desc())
    )


async def _first_paid(uow: UnitOfWork) -> dict[Customer, datetime]:
    rows = await uow.session.execute(
        select(RecurringRevenue.tenant_id, RecurringRevenue.currency, func.min(RecurringRevenue.since))
        .where(RecurringRevenue.amount > 0)
        .group_by(RecurringRevenue.tenant_id, RecurringRevenue.currency)
    )
    return {(row[0], row[1]): row[2] for row in rows}


def _rate(part: Decimal, whole: Decimal) -> Decimal | None:
    return (part / whole).quantize(_RATE) if whole else None
