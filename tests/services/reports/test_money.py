"""Reports of money say what the journal says, counted in another way, after any history in any order of arrival."""

from collections import defaultdict
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
)
from services.billing.errors import NotThereYet
from services.reports import money
from services.reports.money import Sum, commission_lines, revenue_lines, spending_lines
from services.reports.months import Months
from services.unit_of_work import UnitOfWork
from tests.support.billing import PLATFORM, Shop, Till

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
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=SEQUENCES, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(history=histories, data=st.data())
async def test_every_line_is_what_the_journal_holds(till: Till, history: list[Bought], data: st.DataObject) -> None:
    shop = await till.shop()
    async with till.units(PLATFORM) as uow:
        told, expected = await write(uow, shop, history)
    await arrive(till, data.draw(st.permutations(told), label="order of arrival"))
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
        assert line.net == line.charged - line.refunded - line.disputed
    assert nonzero(found) == nonzero(by_account)
    for column in COLUMNS[:3]:
        of_plan: defaultdict[tuple[Any, ...], Decimal] = defaultdict(Decimal)
        for line in lines:
            # Of the plans of this history alone: the database keeps what others have sold.
            if line.plan in expected.plans:
                # Totals refunded that are told in another order are posted in another month.
                month = None if column == "refunded" else line.month
                of_plan[month, line.plan, line.currency] += getattr(line, column)
        assert nonzero(of_plan) == nonzero(getattr(expected, column))
    own = await money.spending(uow, shop.tenant_id, MONTHS)
    assert sum((line.net for line in own), Decimal(0)) == sum(expected.charged.values(), Decimal(0)) - sum(
        expected.refunded.values(), Decimal(0)
    ) - sum(expected.disputed.values(), Decimal(0))


async def accounts(uow: UnitOfWork) -> dict[tuple[Any, ...], Decimal]:
    """Add the journal up by what came to and went from each account, without a thought of kinds."""
    found: defaultdict[tuple[Any, ...], Decimal] = defaultdict(Decimal)
    rows = await uow.session.execute(
        text("SELECT debit, credit, amount, currency, provider, occurred_at FROM journal_entries")
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
    for number, part in enumerate(bought.refunds):
        when = at + timedelta(days=20 * (number + 1))
        total += part
        told.append(
            PaymentRefunded(
                provider="stripe", event_id=f"evt_{ref(checkout, renewal)}_r{number}", occurred_at=when,
                payment_ref=ref(checkout, renewal), charge_ref=f"ch_{ref(checkout, renewal)}", invoice_ref=None,
                customer_ref=None, charged=bought.price, refunded_total=total, currency=bought.currency,
            )
        )  # fmt: skip
    if bought.refunds:
        expected.refunded[None, slug, bought.currency] += total
    if bought.dispute is not None:
        about: Any = {
            "provider": "stripe", "dispute_ref": f"dp_{ref(checkout, renewal)}", "payment_ref": ref(checkout, renewal),
            "charge_ref": None, "amount": bought.price, "currency": bought.currency, "inquiry": False,
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
