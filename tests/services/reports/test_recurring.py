"""Recurring revenue: what subscriptions in force bring, tied to the journal, and how it comes and goes."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from models.billing import BillingPeriod, Plan, Subscription, SubscriptionStatus
from models.recurring import RecurringRevenue, monthly_revenue
from models.tenants import Tenant, TenantStatus
from services.reports.months import Months, begin_of, end_of
from services.reports.recurring import recurring, recurring_by_plan
from services.reports.views import RecurringView
from services.unit_of_work import UnitOfWork
from tests.support.billing import PLATFORM, Shop, Till, press_sandbox
from tests.support.orders_of_facts import Undo

pytestmark = pytest.mark.embedded

BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
MONTHS = Months.asked(BEGIN.date(), BEGIN.date().replace(month=6), now=BEGIN)
EXAMPLES = settings().max_examples if settings().max_examples > 1000 else 30


@dataclass(frozen=True, slots=True)
class Change:
    """From this hour on a tenant brings so much."""

    tenant: int
    hour: int
    amount: int
    currency: str


changes = st.lists(
    st.builds(
        Change,
        tenant=st.integers(0, 3),
        hour=st.integers(0, 24 * 200),
        amount=st.sampled_from([0, 0, 10, 25, 40]),
        currency=st.sampled_from(["USD", "USD", "EUR"]),
    ),
    max_size=20,
)


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(history=changes)
async def test_movements_lead_from_one_month_to_the_next(till: Till, history: list[Change]) -> None:
    history = sorted(history, key=lambda change: change.hour)
    plan = await till.plan()
    views: list[RecurringView] = []
    rows: list[Any] = []
    try:
        async with till.units(PLATFORM) as uow:
            tenants = await founded(uow)
            for change in history:
                uow.session.add(
                    RecurringRevenue(
                        tenant_id=tenants[change.tenant],
                        plan_id=plan.id,
                        amount=Decimal(change.amount),
                        currency=change.currency,
                        since=BEGIN + timedelta(hours=change.hour),
                    )
                )
                # Flushed one by one, as facts are.
                await uow.session.flush()
            views = await recurring(uow, MONTHS)
            rows = list(await uow.session.execute(text("SELECT * FROM recurring_revenue ORDER BY since, id")))
            raise Undo
    except Undo:
        pass
    found = {(view.month, view.currency): view for view in views}
    assert len(found) == len(views)
    for month in MONTHS:
        expected = by_hand(rows, begin_of(month), end_of(month))
        assert {key[1]: shown(view) for key, view in found.items() if key[0] == month} == expected


async def founded(uow: UnitOfWork) -> list[UUID]:
    tenants = [
        Tenant(id=uuid4(), name="T", slug=f"t-{uuid4().hex}", status=TenantStatus.ACTIVE, settings={}) for _ in range(4)
    ]
    uow.session.add_all(tenants)
    await uow.session.flush()
    return [tenant.id for tenant in tenants]


def by_hand(rows: list[Any], begin: datetime, end: datetime) -> dict[str, dict[str, Any]]:
    """Reckon a month from all rows there are, tenant by tenant."""
    before: dict[Any, tuple[str, Decimal]] = {}
    after: dict[Any, tuple[str, Decimal]] = {}
    earlier: set[tuple[Any, str]] = set()
    for row in rows:
        if row.since < end:
            after[row.tenant_id] = (row.currency, row.amount)
        if row.since < begin:
            before[row.tenant_id] = (row.currency, row.amount)
            earlier |= {(row.tenant_id, row.currency)} if row.amount else set()
    found: defaultdict[str, defaultdict[str, Any]] = defaultdict(lambda: defaultdict(Decimal))
    for tenant in before.keys() | after.keys():
        for currency in {before.get(tenant, ("", 0))[0], after.get(tenant, ("", 0))[0]} - {""}:
            was = before[tenant][1] if before.get(tenant, ("", 0))[0] == currency else Decimal(0)
            now = after[tenant][1] if after.get(tenant, ("", 0))[0] == currency else Decimal(0)
            if not was and not now:
                continue
            line = found[currency]
            line["mrr_start"] += was
            line["mrr_end"] += now
            line["customers_start"] += was > 0
            line["customers_end"] += now > 0
            kind = "churn" if not now else ("expansion" if now > was else "contraction")
            if not was:
                kind = "reactivation" if (tenant, currency) in earlier else "new"
            line[kind] += abs(now - was)
            line["heads " + kind] += 1
    return {currency: nonzero(line) for currency, line in found.items()}


def shown(view: RecurringView) -> dict[str, Any]:
    assert (
        view.mrr_end == view.mrr_start + view.new + view.reactivation + view.expansion - view.contraction - view.churn
    )
    for rate, part, whole in (
        (view.customer_churn_rate, view.customers_churned, view.customers_start),
        (view.revenue_churn_rate, view.churn, view.mrr_start),
    ):
        assert (rate is None) == (whole == 0)
        assert rate is None or abs(rate - Decimal(part) / Decimal(whole)) <= Decimal("0.00005")
    names = ("mrr_start", "mrr_end", "new", "reactivation", "expansion", "contraction", "churn")
    heads = {"new": view.customers_new, "reactivation": view.customers_reactivated, "churn": view.customers_churned}
    return nonzero(
        {name: getattr(view, name) for name in names}
        | {"customers_start": view.customers_start, "customers_end": view.customers_end}
        | {f"heads {name}": count for name, count in heads.items()}
    )


def nonzero(line: Any) -> dict[str, Any]:
    # How many customers pay more or less is not shown.
    hidden = ("heads expansion", "heads contraction")
    return {name: value for name, value in line.items() if value and name not in hidden}


async def test_what_is_in_force_is_what_the_last_charges_were(till: Till) -> None:
    monthly, yearly, trial = await till.shop(), await till.shop(), await till.shop()
    await till.buy(monthly, plan="professional")
    await press_sandbox(till, yearly, "pay", plan="business", period=BillingPeriod.YEARLY)
    async with till.units(PLATFORM) as uow:
        rows = await uow.session.execute(
            text(
                "SELECT DISTINCT ON (j.tenant_id) j.tenant_id, j.amount, s.billing_period FROM journal_entries j"
                " JOIN subscriptions s ON s.tenant_id = j.tenant_id WHERE j.kind = 'charge'"
                " AND s.status IN ('active', 'past_due') ORDER BY j.tenant_id, j.occurred_at DESC"
            )
        )
        charged = {row.tenant_id: row.amount / (12 if row.billing_period == "yearly" else 1) for row in rows}
        newest = await uow.session.execute(
            text(
                "SELECT DISTINCT ON (tenant_id) tenant_id, amount, currency FROM recurring_revenue"
                " WHERE since < date_trunc('month', CAST(:now AS timestamptz)) + interval '1 month'"
                " ORDER BY tenant_id, since DESC, id DESC"
            ),
            {"now": till.now},
        )
        # Whoever pays in another currency now brings nothing in this one.
        brings = {row.tenant_id: row.amount for row in newest if row.currency == "USD"}
        by_plan = [line for line in await recurring_by_plan(uow) if line.currency == "USD"]
        months = Months.asked(till.now.date().replace(day=1), None, now=till.now)
        (now,) = [line for line in await recurring(uow, months) if line.currency == "USD"]
    assert {brings[shop.tenant_id] for shop in (monthly, yearly)} == {Decimal("49.99"), Decimal("82.50")}
    assert trial.tenant_id not in brings
    for shop in (monthly, yearly):
        assert brings[shop.tenant_id] == charged[shop.tenant_id]
    assert now.mrr_end == sum(brings.values()) == sum(line.mrr for line in by_plan)
    assert now.customers_end == sum(amount > 0 for amount in brings.values())


async def test_a_purchase_comes_and_its_end_goes(till: Till, shop: Shop) -> None:
    async def line() -> RecurringView | None:
        async with till.units(PLATFORM) as uow:
            views = await recurring(uow, Months.asked(till.now.date().replace(day=1), None, now=till.now))
        return next((view for view in views if view.currency == "USD"), None)

    before = await line()
    base = (before.new, before.customers_new) if before else (Decimal(0), 0)
    await till.buy(shop, plan="professional")
    bought = await line()
    assert bought is not None
    assert (bought.new, bought.customers_new) == (base[0] + Decimal("49.99"), base[1] + 1)
    till.travel(days=32)
    started = await line()
    await till.cancel(shop.owner, at_period_end=False)
    ended = await line()
    assert started is not None
    assert ended is not None
    assert (ended.churn - started.churn, started.mrr_end - ended.mrr_end) == (Decimal("49.99"), Decimal("49.99"))
    assert ended.customers_churned == started.customers_churned + 1


@pytest.mark.parametrize("status", list(SubscriptionStatus), ids=str)
def test_only_what_is_paid_for_brings_anything(status: SubscriptionStatus) -> None:
    plan = Plan(
        id=uuid4(), slug="pro", price_monthly=Decimal(10), price_yearly=Decimal(100), currency="USD", trial_days=14
    )
    subscription = Subscription.trial(uuid4(), plan, now=BEGIN)
    subscription.status, subscription.billing_period = status, BillingPeriod.YEARLY
    assert monthly_revenue(subscription) == (Decimal(0), "USD")
    # What the system before this one sold has no purchase of ours.
    subscription.external_subscription_id = "sub_1"
    paying = status in (SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE)
    assert monthly_revenue(subscription) == (Decimal("8.33") if paying else Decimal(0), "USD")
