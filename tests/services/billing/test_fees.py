"""What providers keep for themselves is posted where they tell it: once, whichever fact tells it first."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select

from models.journal import Account, EntryKind, JournalEntry
from providers.payments import DisputeClosed, DisputeOpened, Fee, Reading
from services.billing.journal import balances
from tests.fakes.server import Fault
from tests.fakes.stripe_objects import Obj
from tests.services.billing.test_every_provider import ACTIVE, PRICE, ended
from tests.services.billing.test_journal import disputed, paid
from tests.support.billing import PLATFORM, Shop, Till
from tests.support.changing import change, halfway, pay
from tests.support.orders_of_facts import Undo, take_all
from tests.support.reconciling import open_watch
from tests.support.stalls import open_stall

pytestmark = pytest.mark.embedded


async def fees(till: Till, shop: Shop) -> list[tuple[str, Decimal, str]]:
    """Return what is posted as a fee of a shop."""
    async with till.units(PLATFORM) as uow:
        rows = await uow.session.scalars(
            select(JournalEntry).where(JournalEntry.tenant_id == shop.tenant_id, JournalEntry.kind == EntryKind.FEE)
        )
        return sorted((row.fact_key, row.amount, row.currency) for row in rows)


@contextmanager
def unsettled(till: Till) -> Iterator[None]:
    """Have Stripe's books know nothing of its fees yet."""
    books = {**till.stripe.books}
    till.stripe.books.clear()
    yield
    till.stripe.books.update(books)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("paypal", "1.74"),
        ("liqpay", "1.37"),
        ("coinbase_business", "0.50"),
        ("btcpay", None),
        ("coinbase_commerce", None),
    ],
)
async def test_a_payment_by_each_provider(till: Till, shop: Shop, name: str, kept: str | None) -> None:
    async with open_stall(till, name) as stall:
        created = await stall.begin(shop)
        await stall.take(stall.harness.paid(created))
        assert await ended(till, shop) == ACTIVE
        expected = [] if kept is None else [(created.session_id, Decimal(kept), "USD")]
        assert await fees(till, shop) == expected
        async with till.units(PLATFORM) as uow:
            held = await balances(uow, shop.tenant_id)
        assert held[Account.CASH, "USD"] == PRICE - Decimal(kept or 0)
        assert sum(held.values()) == 0


async def test_each_payment_by_stripe(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    till.travel(days=31)
    await till.take(*till.stripe.renew(subscription_id))
    assert [(amount, currency) for _, amount, currency in await fees(till, shop)] == [(Decimal("1.75"), "USD")] * 2


async def test_a_change_of_plan_by_stripe(till: Till, shop: Shop) -> None:
    await till.buy(shop, plan="starter")
    await halfway(till, shop)
    before = [amount for _, amount, _ in await fees(till, shop)]
    view = await change(till, shop.owner, "business")
    assert view.amount == Decimal("39.50")
    await till.take(*await pay(till, view))
    after = [amount for _, amount, _ in await fees(till, shop)]
    # 2.9 % and 30 cents.
    assert sorted(after) == sorted([*before, Decimal("1.45")])


@pytest.mark.parametrize("is_change", [False, True], ids=["first payment", "change"])
async def test_a_fee_that_is_settled_later(till: Till, shop: Shop, *, is_change: bool) -> None:
    watch = await open_watch(till)
    if is_change:
        await till.buy(shop, plan="starter")
        await halfway(till, shop)
    before = await fees(till, shop)
    view = await till.checkout(shop.owner, plan="business")
    told = till.stripe.pay_checkout(view.session_id)
    with unsettled(till):
        await till.take(*told)
        assert await fees(till, shop) == before
        await watch.swept("stripe")
        assert await fees(till, shop) == before
    await watch.swept("stripe")
    assert len(await fees(till, shop)) == len(before) + 1
    again = await watch.swept("stripe")
    assert (again.found, again.changed) == (0, 0)


async def test_a_renewals_fee_that_is_settled_later(till: Till, shop: Shop) -> None:
    watch = await open_watch(till)
    subscription_id = await till.buy(shop)
    till.travel(days=31)
    before = await fees(till, shop)
    told = till.stripe.renew(subscription_id)
    with unsettled(till):
        await till.take(*told)
        await watch.swept("stripe")
        assert await fees(till, shop) == before
    till.travel(days=29)
    found = await watch.swept("stripe")
    assert (found.found, found.changed) == (1, 1)
    (late,) = [fee for fee in await fees(till, shop) if fee not in before]
    assert late[1:] == (Decimal("1.75"), "USD")
    again = await watch.swept("stripe")
    assert (again.found, again.changed) == (0, 0)


async def test_a_renewals_fee_is_not_asked_for_without_end(till: Till, shop: Shop) -> None:
    watch = await open_watch(till)
    subscription_id = await till.buy(shop)
    till.travel(days=31)
    before = await fees(till, shop)
    told = till.stripe.renew(subscription_id)
    with unsettled(till):
        await till.take(*told)
    till.travel(days=31)
    assert (await watch.swept("stripe")).found == 0
    assert await fees(till, shop) == before


async def test_stripe_is_asked_again_when_it_is_away(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner)
    events = till.stripe.pay_checkout(view.session_id)
    linked = next(event for event in events if event["type"] == "invoice_payment.paid")
    await till.take(*(event for event in events if event is not linked))
    till.stripe.always = Fault(status=500)
    await till.take(linked)
    assert await fees(till, shop) == []
    till.stripe.always = None
    await till.retry(linked)
    assert [amount for _, amount, _ in await fees(till, shop)] == [Decimal("1.75")]


async def test_a_fee_in_the_accounts_own_currency(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner)
    events = till.stripe.pay_checkout(view.session_id)
    (entry,) = till.stripe.books.values()
    entry.update(currency="eur", fee=162)
    await till.take(*events)
    assert [(amount, currency) for _, amount, currency in await fees(till, shop)] == [(Decimal("1.62"), "EUR")]
    async with till.units(PLATFORM) as uow:
        held = await balances(uow, shop.tenant_id)
    assert {currency: sum(held[key] for key in held if key[1] == currency) for currency in ("USD", "EUR")} == {
        "USD": 0,
        "EUR": 0,
    }


@pytest.mark.parametrize(("outcome", "left"), [("won", "0"), ("lost", "15.00")])
async def test_a_dispute_by_stripe(till: Till, shop: Shop, outcome: str, left: str) -> None:
    charge = till.stripe.charge_of(await till.buy(shop))
    await till.take(*till.stripe.open_dispute(charge["id"]))
    (dispute_id,) = till.stripe.disputes
    assert (f"dispute:{dispute_id}", Decimal("15.00"), "USD") in await fees(till, shop)
    await till.take(*till.stripe.close_dispute(dispute_id, outcome))
    async with till.units(PLATFORM) as uow:
        held = await balances(uow, shop.tenant_id)
    assert held[Account.FEES, "USD"] == Decimal("1.75") + Decimal(left)


async def test_an_inquiry_costs_nothing(till: Till, shop: Shop) -> None:
    charge = till.stripe.charge_of(await till.buy(shop))
    events: list[Obj] = till.stripe.open_dispute(charge["id"], inquiry=True)
    await till.take(*events)
    assert len(await fees(till, shop)) == 1


@pytest.mark.parametrize("decided", [None, "0", "15.00", "20.00"])
async def test_every_order_of_a_disputes_fees(till: Till, shop: Shop, decided: str | None) -> None:
    await till.checkout(shop.owner)
    (checkout,) = await till.checkouts(shop)
    opened, closed = disputed(checkout, "second", "lost")
    assert isinstance(opened, DisputeOpened)
    assert isinstance(closed, DisputeClosed)
    taken = Fee(amount=Decimal("15.00"), currency="USD")
    kept = None if decided is None else Fee(amount=Decimal(decided), currency="USD")
    facts = [paid(checkout), _with(opened, taken), _with(closed, kept)]
    found = []
    try:
        async with till.units(PLATFORM) as uow:
            for order in itertools.permutations(facts):
                async with uow.session.begin_nested() as attempt:
                    readings = [Reading(facts=(fact,)) for fact in order]
                    await take_all(uow, till.billing._inbox._applier, "stripe", readings)
                    held = await balances(uow, shop.tenant_id)
                    found.append(held.get((Account.FEES, "USD"), Decimal(0)))
                    await attempt.rollback()
            raise Undo
    except Undo:
        pass
    assert found == [Decimal(decided or "15.00")] * 6


def _with(fact: DisputeOpened | DisputeClosed, fee: Fee | None) -> Any:
    values = {name: getattr(fact, name) for name in fact.__dataclass_fields__}
    return type(fact)(**{**values, "fee": fee, "occurred_at": fact.occurred_at + timedelta(seconds=1)})
