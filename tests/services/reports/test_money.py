"""Reports of money say what the journal says, counted in another way, after any history in any order of arrival."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from models.billing import BillingPeriod, CheckoutSession, Plan
from providers.payments import (
    CheckoutPaid,
    DisputeClosed,
    DisputeOpened,
    Fact,
    InvoicePaid,
    PaymentRefunded,
    Purchase,
    Reading,
)
from services.billing.errors import NotThereYet
from services.billing.views import ChangeView
from services.reports import money
from services.reports.money import Sum, commission_lines, revenue_lines, spending_lines
from services.reports.months import Months
from services.unit_of_work import RequestTrace, UnitOfWork
from tests.support.billing import PLATFORM, Shop, Till
from tests.support.changing import change, halfway, order, pay
from tests.support.orders_of_facts import take_all

pytestmark = pytest.mark.embedded

SEQUENCES = settings().max_examples if settings().max_examples > 1000 else 8
BEGIN = datetime(2031, 1, 7, 23, 30, tzinfo=UTC)
MONTHS = Months.asked(BEGIN.date().replace(day=1), BEGIN.date().replace(year=2032, day=1), now=BEGIN)
COLUMNS = ("charged", "refunded", "disputed", "credits")


@dataclass(slots=True)
class Bought:
    """A purchase of a history with what came after it: renewals by the day, and what went back of each payment."""

    day: int
    currency: str
    price: Decimal
    renewals: int
    refunds: list[Decimal]
    dispute: str | None
    # Whether its dispute takes no notice of refunds.
    beside: bool = False


@dataclass(slots=True)
class Expected:
    """What was charged and what went back, by month and plan, as the history itself says."""

    plans: set[str] = field(default_factory=set)
    charged: defaultdict[tuple[Any, ...], Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    refunded: defaultdict[tuple[Any, ...], Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    disputed: defaultdict[tuple[Any, ...], Decimal] = field(default_factory=lambda: defaultdict(Decimal))


prices = st.integers(1000, 9999).map(lambda cents: Decimal(cents) / 100)
histories = st.lists(
    st.builds(
        Bought,
        day=st.integers(0, 25),
        currency=st.sampled_from(["USD", "EUR"]),
        price=prices,
        renewals=st.integers(0, 2),
        refunds=st.lists(st.integers(1, 999).map(lambda cents: Decimal(cents) / 100), max_size=2),
        dispute=st.sampled_from([None, "open", "won", "lost"]),
        beside=st.booleans(),
    ),
    min_size=1,
    max_size=3,
)


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


async def write(uow: UnitOfWork, shop: Shop, history: list[Bought]) -> tuple[list[Fact], Expected]:
    """Begin the purchases of a history; returns what the provider tells of it, and what reports should say."""
    told: list[Fact] = []
    expected = Expected()
    for number, bought in enumerate(history):
        plan = Plan(id=uuid4(), slug=f"told-{uuid4().hex[:8]}", name="Told", price_monthly=1, price_yearly=1)
        at = BEGIN + timedelta(days=100 * number + bought.day)
        checkout = CheckoutSession(
            id=uuid4(),
            tenant_id=shop.tenant_id,
            plan_id=plan.id,
            billing_period=BillingPeriod.MONTHLY,
            provider="stripe",
            session_id=f"cs_{uuid4().hex}",
            amount=bought.price,
            price=bought.price,
            currency=bought.currency,
            success_url="https://shop.example",
            cancel_url="https://shop.example",
            created_at=at - timedelta(minutes=1),
        )
        expected.plans.add(plan.slug)
        uow.session.add(plan)
        # Flushed because no relationship tells the mapper that the purchase needs the plan first.
        await uow.session.flush()
        uow.session.add(checkout)
        for renewal in range(bought.renewals + 1):
            paid_at = at + timedelta(days=30 * renewal)
            told += payment(checkout, bought, renewal, paid_at)
            expected.charged[key(paid_at, plan.slug, bought)] += bought.price
            told += gone(checkout, bought, renewal, (paid_at, plan.slug, expected))
    await uow.session.flush()
    return told, expected


def payment(checkout: CheckoutSession, bought: Bought, renewal: int, at: datetime) -> list[Fact]:
    about: Any = {
        "provider": "stripe",
        "event_id": f"evt_{checkout.id.hex}_{renewal}",
        "occurred_at": at,
        "purchase": Purchase(
            checkout_id=checkout.id,
            tenant_id=checkout.tenant_id,
            plan_id=checkout.plan_id,
            billing_period=checkout.billing_period.value,
        ),
        "customer_ref": None,
        "subscription_ref": f"sub_{checkout.id.hex}",
        "payment_ref": ref(checkout, renewal),
        "payment_key": ref(checkout, renewal),
        "amount": bought.price,
        "currency": bought.currency,
    }
    if renewal == 0:
        assert checkout.session_id is not None
        return [CheckoutPaid(**about, session_id=checkout.session_id, invoice_ref=None)]
    return [
        InvoicePaid(
            **about,
            invoice_ref=f"in_{checkout.id.hex}_{renewal}",
            period_start=at,
            period_end=at + timedelta(days=30),
            billing_reason="renewal",
            number=None,
            hosted_invoice_url=None,
        )
    ]


def gone(checkout: CheckoutSession, bought: Bought, renewal: int, sold: tuple[datetime, str, Expected]) -> list[Fact]:
    """Return the refunds and the dispute of one payment; of refunds the running total is told."""
    at, slug, expected = sold
    told: list[Fact] = []
    total = Decimal(0)
    # What a bank has taken back is no refund as well, unless its dispute takes no notice of refunds.
    left = Decimal(0) if bought.dispute in ("open", "lost") and not bought.beside else bought.price
    for number, part in enumerate(bought.refunds):
        when = at + timedelta(days=20 * (number + 1))
        expected.refunded[key(when, slug, bought)] += min(total + part, left) - min(total, left)
        total += part
        told.append(
            PaymentRefunded(
                provider="stripe", event_id=f"evt_{ref(checkout, renewal)}_r{number}", occurred_at=when,
                payment_ref=ref(checkout, renewal), charge_ref=f"ch_{ref(checkout, renewal)}", invoice_ref=None,
                customer_ref=None, charged=bought.price, refunded_total=total, currency=bought.currency,
            )
        )  # fmt: skip
    if bought.dispute is not None:
        about: Any = {
            "provider": "stripe", "dispute_ref": f"dp_{ref(checkout, renewal)}", "payment_ref": ref(checkout, renewal),
            "charge_ref": None, "amount": bought.price, "currency": bought.currency, "inquiry": False,
            "beside_refunds": bought.beside,
        }  # fmt: skip
        when = at + timedelta(days=11)
        told.append(DisputeOpened(**about, event_id=f"evt_{ref(checkout, renewal)}_o", occurred_at=when, reason=None))
        if bought.dispute != "won":
            expected.disputed[key(when, slug, bought)] += bought.price
        if bought.dispute != "open":
            decided: Any = bought.dispute
            told.append(
                DisputeClosed(**about, event_id=f"evt_{ref(checkout, renewal)}_c", occurred_at=when, outcome=decided)
            )
    return told


def ref(checkout: CheckoutSession, renewal: int) -> str:
    return f"pi_{checkout.id.hex}_{renewal}"


def key(at: datetime, slug: str, bought: Bought) -> tuple[Any, ...]:
    return at.date().replace(day=1), slug, bought.currency


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
