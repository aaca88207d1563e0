"""The journal stays in balance and tells the same as the facts, whatever comes in whatever order.

An ordinary run tries a few dozen sequences; `--hypothesis-profile=thorough` tries ten thousand, in some ten minutes.
"""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from core.money import round_money
from models.billing import CheckoutSession
from models.journal import SIDES, Account, EntryKind, difference
from providers.payments import (
    CheckoutPaid,
    DisputeClosed,
    DisputeOpened,
    Fact,
    PaymentRefunded,
    Purchase,
    Reading,
)
from services.billing.journal import balances
from services.unit_of_work import UnitOfWork
from tests.support.billing import PLATFORM, Shop, Till
from tests.support.orders_of_facts import take_all

IS_THOROUGH = settings().max_examples > 1000
SEQUENCES = settings().max_examples if IS_THOROUGH else 40
PRICE = Decimal("49.99")
DISPUTES = {"first": Decimal("20.00"), "second": Decimal("49.99")}

pytestmark = pytest.mark.embedded

cents = st.integers(1, 4999).map(lambda number: Decimal(number) / 100)
returns = st.integers(0, 1999).map(lambda number: Decimal(number) / 100)
outcomes = st.fixed_dictionaries({name: st.sampled_from([None, "open", "won", "lost"]) for name in DISPUTES})


@given(posted=st.integers(0, 10**9), target=st.integers(0, 10**9), kind=st.sampled_from(EntryKind))
def test_a_difference_leads_from_what_is_posted_to_what_is_right(posted: int, target: int, kind: EntryKind) -> None:
    step = difference(kind, posted=Decimal(posted), target=Decimal(target))
    if step is None:
        assert posted == target
        return
    debit, credit, amount = step
    assert {debit, credit} == set(SIDES[kind])
    assert amount > 0
    assert posted + (amount if debit is SIDES[kind][0] else -amount) == target


@pytest.mark.parametrize(
    ("amount", "currency", "rounded"),
    [
        ("2.345", "USD", "2.35"),
        ("2.344", "USD", "2.34"),
        ("-2.345", "USD", "-2.35"),
        ("0.5", "JPY", "1"),
        ("1.0005", "KWD", "1.001"),
    ],
)
def test_a_half_is_rounded_up(amount: str, currency: str, rounded: str) -> None:
    assert str(round_money(Decimal(amount), currency)) == rounded


@pytest.fixture
async def checkout(till: Till, shop: Shop) -> CheckoutSession:
    """A purchase that waits to be paid."""
    await till.checkout(shop.owner)
    (begun,) = await till.checkouts(shop)
    return begun


@settings(max_examples=SEQUENCES, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
async def test_any_sequence_of_payment_refunds_and_disputes(
    till: Till, checkout: CheckoutSession, ledger: UnitOfWork, data: st.DataObject
) -> None:
    totals = data.draw(st.lists(cents, max_size=4), label="totals refunded")
    decided = data.draw(outcomes, label="disputes")
    beside = data.draw(st.booleans(), label="beside refunds")
    told = [paid(checkout), *(refunded(checkout, total) for total in totals)]
    lost = Decimal(0)
    for name, outcome in decided.items():
        told += disputed(checkout, name, outcome, beside=beside)
        returned = data.draw(returns, label="returned") if outcome == "lost" else Decimal(0)
        if returned:
            told += returned_of(checkout, name, returned, beside=beside)
        lost += DISPUTES[name] - returned if outcome in ("open", "lost") else 0
    order = data.draw(st.permutations([*told, *told[:2]]), label="order of arrival")
    # What a bank has taken back is no refund as well, unless its dispute takes no notice of refunds.
    back = min(max(totals, default=Decimal(0)), PRICE if beside else max(PRICE - lost, Decimal(0)))
    readings = [Reading(facts=(fact,)) for fact in order]
    async with ledger.session.begin_nested() as attempt:
        await take_all(ledger, till.billing._inbox._applier, "stripe", readings)
        found = await balances(ledger, checkout.tenant_id)
        await attempt.rollback()
    assert sum(found.values()) == 0
    held = {account: amount for (account, _), amount in found.items() if amount}
    expected = {
        Account.CASH: PRICE - back - lost,
        Account.REVENUE: -PRICE,
        Account.REFUNDS: back,
        Account.DISPUTES: lost,
    }
    assert held == {account: amount for account, amount in expected.items() if amount}


async def test_the_database_refuses_what_is_no_movement(till: Till, shop: Shop) -> None:
    row = (
        "INSERT INTO journal_entries (id, tenant_id, provider, kind, fact_key, number, debit, credit, amount, currency,"
        " occurred_at)"
        " VALUES (gen_random_uuid(), :tenant, 'x', 'charge', :key, 1, :debit, :credit, :amount, 'USD', now())"
    )
    sound = {"tenant": shop.tenant_id, "key": str(shop.tenant_id), "debit": "cash", "credit": "revenue", "amount": 1}
    for change in ({"amount": 0}, {"amount": -1}, {"credit": "cash"}, {"debit": "pocket"}):
        with pytest.raises(IntegrityError):
            async with till.units(PLATFORM) as uow:
                await uow.session.execute(text(row), {**sound, **change})


def source(checkout: CheckoutSession, name: str, seconds: int) -> Any:
    occurred_at = checkout.created_at + timedelta(seconds=seconds)
    return {"provider": "stripe", "event_id": f"evt_{checkout.id.hex}_{name}", "occurred_at": occurred_at}


def paid(checkout: CheckoutSession) -> Fact:
    assert checkout.session_id is not None
    return CheckoutPaid(
        **source(checkout, "paid", 1),
        session_id=checkout.session_id,
        purchase=Purchase(
            checkout_id=checkout.id,
            tenant_id=checkout.tenant_id,
            plan_id=checkout.plan_id,
            billing_period=checkout.billing_period.value,
        ),
        customer_ref=None,
        subscription_ref=None,
        invoice_ref=None,
        payment_ref=f"pi_{checkout.id.hex}",
        payment_key=f"pi_{checkout.id.hex}",
        amount=PRICE,
        currency="USD",
    )


def refunded(checkout: CheckoutSession, total: Decimal) -> Fact:
    return PaymentRefunded(
        **source(checkout, f"refunded_{total}", 2),
        payment_ref=f"pi_{checkout.id.hex}",
        charge_ref=f"ch_{checkout.id.hex}",
        invoice_ref=None,
        customer_ref=None,
        charged=PRICE,
        refunded_total=total,
        currency="USD",
    )


def dispute(checkout: CheckoutSession, name: str, *, beside: bool) -> Any:
    return {
        "dispute_ref": f"dp_{checkout.id.hex}_{name}",
        "payment_ref": f"pi_{checkout.id.hex}",
        "charge_ref": None,
        "amount": DISPUTES[name],
        "currency": "USD",
        "inquiry": False,
        "beside_refunds": beside,
    }


def returned_of(checkout: CheckoutSession, name: str, returned: Decimal, *, beside: bool) -> Sequence[Fact]:
    about = dispute(checkout, name, beside=beside)
    return [DisputeClosed(**source(checkout, f"returned_{name}", 5), **about, outcome="lost", returned=returned)]


def disputed(checkout: CheckoutSession, name: str, outcome: str | None, *, beside: bool = False) -> Sequence[Fact]:
    if outcome is None:
        return []
    about = dispute(checkout, name, beside=beside)
    opened = DisputeOpened(**source(checkout, f"opened_{name}", 3), **about, reason=None)
    if outcome == "open":
        return [opened]
    decision: Any = outcome
    return [opened, DisputeClosed(**source(checkout, f"closed_{name}", 4), **about, outcome=decision)]
