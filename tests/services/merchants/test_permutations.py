"""Every order of what a merchant's provider tells ends in one state, and is told to people once (providers.md 1.2).

What each event means is read at its own moment, so that the states that are fetched for early events are old ones. Each
order is applied within one transaction and undone again.
"""

import itertools
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from providers.payments import RefundRequest
from services.billing.errors import NotThereYet
from services.billing.inbox import Told
from services.merchants.views import OrderView
from services.unit_of_work import UnitOfWork
from tests.support.billing import PLATFORM, Shop
from tests.support.merchants import Bazaar, keys_of
from tests.support.orders_of_facts import Undo

pytestmark = pytest.mark.embedded

# Ours alone, and different in each run.
IGNORED = "'{id, updated_at, look_at, looks}'::text[]"
STATE = f"""
    SELECT 'order', (to_jsonb(found) - {IGNORED})::text FROM orders found WHERE tenant_id = :tenant
    UNION ALL SELECT 'invoice', (to_jsonb(found) - {IGNORED})::text FROM order_invoices found WHERE tenant_id = :tenant
    UNION ALL SELECT 'commission', sum(commission_amount)::text FROM commission_logs WHERE tenant_id = :tenant
    UNION ALL SELECT 'balance', account || ' ' || trim_scale(sum(amount)) FROM (
        SELECT debit AS account, amount FROM journal_entries WHERE tenant_id = :tenant
        UNION ALL SELECT credit, -amount FROM journal_entries WHERE tenant_id = :tenant
    ) moved GROUP BY account HAVING sum(amount) <> 0
"""  # noqa: S608 - names of ours


async def state_of(session: AsyncSession, tenant_id: UUID) -> list[tuple[str, str]]:
    await session.flush()
    return sorted((kind, row) for kind, row in await session.execute(text(STATE), {"tenant": tenant_id}))


async def take_all(uow: UnitOfWork, bazaar: Bazaar, order: tuple[Told, ...]) -> None:
    waiting = list(order)
    while waiting:
        left = []
        for told in waiting:
            try:
                async with uow.session.begin_nested():
                    await bazaar.merchants.inbox.apply(uow, told)
                    await uow.session.flush()
            except NotThereYet:
                left.append(told)
        assert len(left) < len(waiting), "nothing more can be applied"
        waiting = left


async def end_states(bazaar: Bazaar, shop: Shop, story: list[Told]) -> tuple[list[Any], list[int]]:
    """Apply a story in every order; return the end states, and how often each time an order was told to be paid."""
    states, told = [], []
    try:
        async with bazaar.till.units(PLATFORM) as uow:
            for order in itertools.permutations(story):
                before = len(uow.pending_events)
                async with uow.session.begin_nested() as attempt:
                    await take_all(uow, bazaar, order)
                    states.append(await state_of(uow.session, shop.tenant_id))
                    await attempt.rollback()
                uow.session.expire_all()
                told.append([event.name for event in uow.pending_events[before:]].count("order:paid"))
            raise Undo
    except Undo:
        return states, told


async def topped_up_late_and_too_much(bazaar: Bazaar, shop: Shop, order: OrderView) -> AsyncIterator[Any]:
    fake, invoice = bazaar.btcpay, await bazaar.begin(shop, order)
    yield fake.pay(invoice, "0.4")[0]
    bazaar.till.travel(hours=2)
    yield fake.expire(invoice)[1]
    yield fake.pay(invoice, "0.9", certain=False)[0]
    yield fake.confirm(invoice)[-1]


async def topped_up_in_time(bazaar: Bazaar, shop: Shop, order: OrderView) -> AsyncIterator[Any]:
    fake, invoice = bazaar.btcpay, await bazaar.begin(shop, order)
    yield fake.pay(invoice, "0.4")[0]
    bazaar.till.travel(seconds=7)
    yield fake.pay(invoice, "0.6", certain=False)[-1]
    for event in fake.confirm(invoice)[-2:]:
        yield event


async def underpaid(bazaar: Bazaar, shop: Shop, order: OrderView) -> AsyncIterator[Any]:
    fake, invoice = bazaar.btcpay, await bazaar.begin(shop, order)
    for event in fake.pay(invoice, "0.4"):
        yield event
    bazaar.till.travel(hours=2)
    for event in fake.expire(invoice):
        yield event


async def replaced(bazaar: Bazaar, shop: Shop, order: OrderView) -> AsyncIterator[Any]:
    fake, invoice = bazaar.btcpay, await bazaar.begin(shop, order)
    bazaar.till.travel(seconds=7)
    for event in fake.pay(invoice, certain=False):
        yield event
    bazaar.till.travel(seconds=7)
    yield fake.invalidate(invoice)[0]
    yield fake._event("InvoiceInvalid", fake.invoices[invoice], manuallyMarked=False)


async def paid_twice(bazaar: Bazaar, shop: Shop, order: OrderView) -> AsyncIterator[Any]:
    fake, first = bazaar.btcpay, await bazaar.begin(shop, order)
    bazaar.till.travel(hours=2)
    fake.expire(first)
    second = await bazaar.begin(shop, order)
    yield fake.pay(second)[-1]
    bazaar.till.travel(minutes=1)
    yield fake.pay(first, "0.5")[0]
    bazaar.till.travel(minutes=1)
    for event in fake.pay(first, "0.5")[-2:]:
        yield event


async def twins(bazaar: Bazaar, shop: Shop, order: OrderView) -> AsyncIterator[Any]:
    fake, invoice = bazaar.btcpay, await bazaar.begin(shop, order)
    fake.invoices["TWIN"], fake._payments["TWIN"] = {**fake.invoices[invoice], "id": "TWIN"}, []
    yield fake.pay("TWIN", certain=False)[0]
    bazaar.till.travel(minutes=1)
    yield fake.pay(invoice)[-1]
    for event in fake.confirm("TWIN"):
        yield event


STORIES: dict[str, Callable[[Bazaar, Shop, OrderView], AsyncIterator[Any]]] = {
    story.__name__: story
    for story in (topped_up_late_and_too_much, topped_up_in_time, underpaid, replaced, paid_twice, twins)
}


@pytest.mark.parametrize("name", STORIES)
async def test_every_order_of_a_case(bazaar: Bazaar, shop: Shop, name: str) -> None:
    order = await bazaar.order(shop)
    story = [await bazaar.read(shop, event) async for event in STORIES[name](bazaar, shop, order)]
    assert len(story) == 4
    states, told = await end_states(bazaar, shop, story)
    assert len(states) == 24
    for state in states:
        assert state == states[0]
    is_paid = name not in ("underpaid", "replaced")
    assert set(told) == {int(is_paid)}
    assert ("balance" in {kind for kind, _ in states[0]}) is is_paid


async def test_every_order_of_a_payment_and_its_refunds(bazaar: Bazaar) -> None:
    shop = await bazaar.merchant("coinbase_business")
    fake = bazaar.fakes["coinbase_business"]
    provider = bazaar.accounts.open("coinbase_business", keys_of(fake))
    order = await bazaar.order(shop)
    session = await bazaar.begin(shop, order)
    story = [await bazaar.read(shop, fake.pay(session)[0])]
    before = Decimal(0)
    for amount, arrives in (("10.00", True), ("5.00", False), ("7.00", True)):
        bazaar.till.travel(seconds=7)
        await provider.refund(
            RefundRequest(
                refund_id=uuid4(),
                session_id=session,
                payment_ref=None,
                amount=Decimal(amount),
                currency="USD",
                refunded_before=before,
            )
        )
        (event,) = fake.complete_refunds(session, succeed=arrives)
        before += Decimal(amount) if arrives else 0
        story.append(await bazaar.read(shop, event))
    states, told = await end_states(bazaar, shop, story)
    assert len(states) == 24
    for state in states:
        assert state == states[0]
    assert set(told) == {1}
    # 32.90 are left of 49.90, and 1.65 is 5 % of that.
    assert ("commission", "1.65") in [(kind, row) for kind, row in states[0] if kind == "commission"]
