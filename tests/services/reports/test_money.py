"""Reports of money say what the journal says, counted in another way, after any history in any order of arrival."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from providers.payments import (
    Fact,
    Reading,
)
from services.billing.errors import NotThereYet
from services.billing.views import ChangeView
from services.reports import money
from services.reports.money import Sum, commission_lines, revenue_lines, spending_lines
from services.reports.months import Months
from services.unit_of_work import RequestTrace, UnitOfWork
from tests.services.reports.histories import BEGIN, Bought, Expected, histories, write
from tests.support.billing import PLATFORM, Shop, Till
from tests.support.changing import change, halfway, order, pay
from tests.support.orders_of_facts import take_all

pytestmark = pytest.mark.embedded

SEQUENCES = settings().max_examples if settings().max_examples > 1000 else 8
MONTHS = Months.asked(BEGIN.date().replace(day=1), BEGIN.date().replace(year=2032, day=1), now=BEGIN)
COLUMNS = ("charged", "refunded", "disputed", "credits")


@settings(max_examples=SEQUENCES, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(history=histories, data=st.data())
async def test_every_line_is_what_the_journal_holds(
    till: Till, shop: Shop, ledger: UnitOfWork, history: list[Bought], data: st.DataObject
) -> None:
    # Undone, so that no history has to be reported with all that were tried before it.
    async with ledger.session.begin_nested() as attempt:
        told, expected = await write(ledger, shop, history)
        order = data.draw(st.permutations(told), label="order of arrival")
        readings = [Reading(facts=(fact,)) for fact in order]
        await take_all(ledger, till.billing._inbox._applier, "stripe", readings)
        await compare(ledger, shop, expected)
        await attempt.rollback()


@pytest.mark.parametrize("newest_first", [False, True], ids=["in order", "newest first"])
async def test_two_purchases_of_one_second_are_each_of_their_own_plan(till: Till, *, newest_first: bool) -> None:
    shop = await till.shop()
    # The second of a history begins a hundred days after the first.
    one = Bought(day=100, currency="USD", price=Decimal("40.01"), renewals=0, refunds=[Decimal(3)], dispute="open")
    other = Bought(day=0, currency="USD", price=Decimal("50.02"), renewals=0, refunds=[Decimal(7)], dispute="lost")
    async with till.units(PLATFORM) as uow:
        told, expected = await write(uow, shop, [one, other])
    await arrive(till, told[::-1] if newest_first else told)
    async with till.units(PLATFORM) as uow:
        await compare(uow, shop, expected)


async def test_what_was_owed_for_a_while_is_not_in_the_report(till: Till) -> None:
    """Known by its last renewal alone, the first purchase seems to have been replaced within its period."""
    shop = await till.shop()
    first = Bought(day=10, currency="USD", price=Decimal(40), renewals=2, refunds=[], dispute=None)
    second = Bought(day=0, currency="USD", price=Decimal(10), renewals=0, refunds=[], dispute=None)
    async with till.units(PLATFORM) as uow:
        (begun, *renewals, replaced), expected = await write(uow, shop, [first, second])
    await arrive(till, [replaced, *reversed(renewals), begun])
    async with till.units(PLATFORM) as uow:
        taken_back = await uow.session.scalar(
            text("SELECT count(*) FROM journal_entries WHERE debit = 'credits' AND tenant_id = :id"),
            {"id": shop.tenant_id},
        )
        assert taken_back
        await compare(uow, shop, expected)


@pytest.mark.parametrize("newest_first", [False, True], ids=["in order", "newest first"])
async def test_each_refund_counts_in_its_own_month(till: Till, *, newest_first: bool) -> None:
    shop = await till.shop()
    # Given back on the 20th and the 40th day.
    bought = Bought(
        day=0, currency="USD", price=Decimal("49.99"), renewals=0, refunds=[Decimal(10), Decimal(20)], dispute=None
    )
    async with till.units(PLATFORM) as uow:
        told, expected = await write(uow, shop, [bought])
    assert len(expected.refunded) == 2
    await arrive(till, told[::-1] if newest_first else told)
    async with till.units(PLATFORM) as uow:
        await compare(uow, shop, expected)


async def arrive(till: Till, facts: list[Fact]) -> None:
    """Apply facts in their order, each in a transaction of its own, what has to wait again and again."""
    while facts:
        waiting = []
        for fact in facts:
            try:
                async with till.units(PLATFORM) as uow:
                    await till.billing._inbox._applier.apply(uow, fact)
            except NotThereYet:
                waiting.append(fact)
        assert len(waiting) < len(facts), "nothing more can be applied"
        facts = waiting


async def compare(uow: UnitOfWork, shop: Shop, expected: Expected) -> None:
    lines = await money.revenue(uow, MONTHS)
    by_account = await accounts(uow)
    found: defaultdict[tuple[Any, ...], Decimal] = defaultdict(Decimal)
    for line in lines:
        for column in COLUMNS:
            found[column, line.month, line.provider, line.currency] += getattr(line, column)
        unearned = line.charged - line.refunded - line.disputed - line.net
        found["unearned", line.month, line.provider, line.currency] += unearned
    assert nonzero(found) == nonzero(by_account)
    for column in COLUMNS[:3]:
        of_plan: defaultdict[tuple[Any, ...], Decimal] = defaultdict(Decimal)
        for line in lines:
            # Of the plans of this history alone: the database keeps what others have sold.
            if line.plan in expected.plans:
                of_plan[line.month, line.plan, line.currency] += getattr(line, column)
        assert nonzero(of_plan) == nonzero(getattr(expected, column))
    own = await money.spending(uow, shop.tenant_id, MONTHS)
    assert sum((line.net for line in own), Decimal(0)) == sum(expected.charged.values(), Decimal(0)) - sum(
        expected.refunded.values(), Decimal(0)
    ) - sum(expected.disputed.values(), Decimal(0)) - await owed_to(uow, shop)


async def owed_to(uow: UnitOfWork, shop: Shop) -> Decimal:
    """Return what a tenant was charged for periods that another purchase replaced."""
    query = text(
        # An entry with its sides exchanged takes back what was owed until an earlier payment was heard of.
        "SELECT coalesce(sum(CASE WHEN credit = 'credits' THEN amount ELSE -amount END), 0)"
        " FROM journal_entries WHERE kind = 'unearned' AND tenant_id = :id"
    )
    return Decimal((await uow.session.execute(query, {"id": shop.tenant_id})).scalar_one())


async def accounts(uow: UnitOfWork) -> dict[tuple[Any, ...], Decimal]:
    """Add the journal up by what came to and went from each account; of kinds only what was charged for nothing."""
    found: defaultdict[tuple[Any, ...], Decimal] = defaultdict(Decimal)
    rows = await uow.session.execute(
        text("SELECT kind, debit, credit, amount, currency, provider, occurred_at FROM journal_entries")
    )
    names = {
        "revenue": ("charged", -1),
        "refunds": ("refunded", 1),
        "disputes": ("disputed", 1),
        "credits": ("credits", -1),
    }
    for row in rows:
        month = row.occurred_at.astimezone(UTC).date().replace(day=1)
        if not MONTHS.first <= month <= MONTHS.last:
            continue
        for account, amount in ((row.debit, row.amount), (row.credit, -row.amount)):
            if account in names:
                column, sign = names[account]
                if (row.kind, account) == ("unearned", "revenue"):
                    column, sign = "unearned", 1
                found[column, month, row.provider, row.currency] += sign * amount
    return found


def nonzero(amounts: Any) -> dict[Any, Decimal]:
    return {key: amount for key, amount in amounts.items() if amount}


def entry(kind: str, debit: str, credit: str, amount: int) -> Sum:
    return Sum(
        month=BEGIN.date().replace(day=1), provider="btcpay", currency="USD", plan=None, kind=kind, debit=debit,
        credit=credit, amount=Decimal(amount),
    )  # fmt: skip


def test_commission_is_a_report_of_its_own_and_no_revenue() -> None:
    parts = [
        entry("commission", "receivables", "commissions", 30),
        entry("commission", "commissions", "receivables", 12),
        entry("charge", "cash", "revenue", 5),
    ]
    (line,) = commission_lines(parts)
    assert (line.earned, line.reversed, line.net) == (Decimal(30), Decimal(12), Decimal(18))
    (earned,) = revenue_lines(parts)
    assert (earned.charged, earned.net, earned.plan) == (Decimal(5), Decimal(5), None)


def test_credits_are_owed_and_no_revenue() -> None:
    (line,) = spending_lines(
        [
            entry("credit", "cash", "credits", 9),
            entry("credit", "credits", "cash", 2),
            entry("credit_settled", "credits", "cash", 3),
        ]
    )
    assert (line.credits, line.net) == (Decimal(4), Decimal(0))


def test_what_was_superseded_is_owed_and_no_revenue() -> None:
    charged = [entry("charge", "cash", "revenue", 54), entry("unearned", "revenue", "credits", 39)]
    (line,) = spending_lines(charged)
    assert (line.charged, line.credits, line.net) == (Decimal(54), Decimal(39), Decimal(15))
    (settled,) = spending_lines([*charged, entry("credit_settled", "credits", "cash", 39)])
    assert (settled.credits, settled.net) == (Decimal(0), Decimal(15))


async def test_a_change_that_came_to_nothing_is_shown_as_a_credit(till: Till) -> None:
    shop = await till.shop()
    await till.buy(shop, plan="starter")
    await halfway(till, shop)
    changes = [await change(till, shop.owner, plan) for plan in ("professional", "business")]
    await till.take(*await paid_by_turns(till, changes))
    first, second = (view.amount for view in changes)
    async with till.units(PLATFORM) as uow:
        lines = await money.spending(uow, shop.tenant_id, Months.asked(None, None, now=till.now))
    assert sum(line.credits for line in lines) == second
    assert sum(line.charged for line in lines) == Decimal("19.99") + first + second
    assert sum(line.net for line in lines) == Decimal("19.99") + first


async def test_a_renewal_after_a_scheduled_change_is_of_the_plan_that_it_renews(till: Till) -> None:
    shop = await till.shop()
    subscription_id = await till.buy(shop, plan="business")
    began = till.now
    before = await revenue_of(till, began)
    await till.billing.change_plan(shop.owner, await order(till, "starter", pays=False), trace=RequestTrace())
    pending = (await till.view(shop.owner)).pending_change
    assert pending is not None
    till.clock.offset += pending.effective_at - till.now
    await till.billing.sweep()
    await till.take(*till.stripe.renew(subscription_id))
    till.travel(days=31)
    await till.take(*till.stripe.renew(subscription_id))
    # What is refunded of a renewal is of its plan, too.
    till.travel(hours=1)
    await till.take(*till.stripe.refund(till.stripe.charge_of(subscription_id)["id"], 500))
    gained = {plan: net - before[plan] for plan, net in (await revenue_of(till, began)).items() if net != before[plan]}
    assert gained == {"starter": 2 * Decimal("19.99") - 5}


async def test_what_a_change_was_charged_for_nothing_is_of_its_plan(till: Till) -> None:
    shop = await till.shop()
    await till.buy(shop, plan="starter")
    await halfway(till, shop)
    began = till.now
    before = await revenue_of(till, began)
    changes = [await change(till, shop.owner, plan) for plan in ("professional", "business")]
    await till.take(*await paid_by_turns(till, changes))
    gained = {plan: net - before[plan] for plan, net in (await revenue_of(till, began)).items() if net != before[plan]}
    assert gained == {"professional": changes[0].amount}


async def paid_by_turns(till: Till, views: Sequence[ChangeView]) -> list[Any]:
    """Pay pages one after the other; nobody hears of it yet, or the others would be closed."""
    told = []
    for view in views:
        till.travel(minutes=1)
        told += await pay(till, view)
    return told


async def revenue_of(till: Till, since: datetime) -> defaultdict[str | None, Decimal]:
    """Return what is left of a year's charges by plan; other tests have sold in this database as well, also later."""
    found: defaultdict[str | None, Decimal] = defaultdict(Decimal)
    first, last = (day.date().replace(day=1) for day in (since, since + timedelta(days=300)))
    months = Months.asked(first, last, now=since)
    async with till.units(PLATFORM) as uow:
        for line in await money.revenue(uow, months):
            found[line.plan] += line.net
    return found
