"""Every order of what a provider tells ends in one state, to the last column (providers.md 1.2).

What each event means is read at its own moment, so that the states that are fetched for early events are old ones. Each
order is applied within one transaction and undone again, which is some ten times as fast as a tenant for each.
"""

import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from math import factorial
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from core import json
from models.billing import BillingPeriod
from models.plans import period_after
from providers.payments import CheckoutCreated, Reading, RefundRequest, read_event
from providers.payments.sandbox_events import declined_event, expired_event, paid_event
from providers.payments.sightings import saw_payment
from services.billing import ChangeOrder
from services.unit_of_work import RequestTrace
from tests.fakes.stripe_objects import Obj
from tests.support.billing import CANCEL_URL, PLATFORM, SUCCESS_URL, Shop, Till, moment
from tests.support.orders_of_facts import Undo, take_all
from tests.support.stalls import Stall, open_stall

pytestmark = pytest.mark.embedded

TABLES = ("subscriptions", "checkout_sessions", "payment_events", "invoices", "credits", "provider_instructions")
# Ours alone, and different in each run.
IGNORED = "'{id, updated_at, payment_id, next_attempt_at}'::text[]"
ROWS = " UNION ALL ".join(
    f"SELECT '{table}', (to_jsonb(found) - {IGNORED})::text FROM {table} found WHERE tenant_id = :tenant"  # noqa: S608 - names of ours
    for table in TABLES
)
# Entries of the journal tell how it was learnt; what they add up to is the same.
BALANCES = """
    SELECT 'balances', account || ' ' || sum(amount) FROM (
        SELECT debit AS account, amount FROM journal_entries WHERE tenant_id = :tenant
        UNION ALL SELECT credit, -amount FROM journal_entries WHERE tenant_id = :tenant
    ) moved GROUP BY account HAVING sum(amount) <> 0
"""


async def state_of(session: AsyncSession, tenant_id: UUID) -> list[tuple[str, str]]:
    """Return everything that billing holds of a tenant, comparable between orders."""
    await session.flush()
    rows = await session.execute(text(f"{ROWS} UNION ALL {BALANCES}"), {"tenant": tenant_id})
    return sorted((table, row) for table, row in rows)


async def end_states(till: Till, shop: Shop, provider: str, readings: Sequence[Reading]) -> list[Any]:
    """Apply readings in every order, what has to wait again and again until all is in; return the end states."""
    applier = till.billing._inbox._applier
    states = []
    try:
        async with till.units(PLATFORM) as uow:
            for order in itertools.permutations(readings):
                async with uow.session.begin_nested() as attempt:
                    await take_all(uow, applier, provider, order)
                    states.append(await state_of(uow.session, shop.tenant_id))
                    await attempt.rollback()
            raise Undo
    except Undo:
        return states


def assert_one(states: Sequence[Any], *, count: int) -> None:
    assert len(states) == count
    for state in states:
        assert state == states[0]
    assert {"payment_events", "balances"} <= {table for table, _ in states[0]}


def held_moment(state: Sequence[tuple[str, str]], table: str, column: str) -> datetime:
    """Return a moment that the one row of a table holds."""
    (row,) = [json.loads(row.encode()) for name, row in state if name == table]
    return datetime.fromisoformat(row[column])


async def refund(stall: Stall, created: CheckoutCreated, amount: str, before: str) -> None:
    request = RefundRequest(
        refund_id=uuid4(),
        session_id=created.session_id,
        payment_ref=None,
        amount=Decimal(amount),
        currency="USD",
        refunded_before=Decimal(before),
    )
    await stall.harness.provider.refund(request)


async def told_by_liqpay(stall: Stall, created: CheckoutCreated) -> AsyncIterator[bytes]:
    fake, order_id = stall.fake, created.session_id
    fake.arrive(created.url)
    for status in ("wait_accept", "success"):
        fake.pay(order_id, status)
        yield json.dumps(fake.orders[order_id])
        stall.till.travel(seconds=7)
    for amount in (10, 5):
        fake.give_back(order_id, amount)
        yield json.dumps(fake.orders[order_id])
        stall.till.travel(seconds=7)


async def told_by_paypal(stall: Stall, created: CheckoutCreated) -> AsyncIterator[bytes]:
    order_id = created.session_id
    stall.fake.hold_next = True
    (approved,) = stall.fake.approve(order_id)
    yield stall.fake.encode(approved)
    stall.till.travel(seconds=7)
    (completed,) = stall.fake.decide(order_id, arrives=True)
    yield stall.fake.encode(completed)
    stall.till.travel(seconds=7)
    (disputed,) = stall.fake.dispute(order_id)
    yield stall.fake.encode(disputed)
    await refund(stall, created, "10.00", "0")
    yield stall.fake.encode(stall.fake.events[-1])


async def told_by_btcpay(stall: Stall, created: CheckoutCreated) -> AsyncIterator[bytes]:
    """Too little in time, the rest late, and more than that."""
    fake, invoice_id = stall.fake, created.session_id
    (received, *_) = fake.pay(invoice_id, "0.4")
    yield fake.encode(received)
    stall.till.travel(hours=2)
    (_, expired) = fake.expire(invoice_id)
    yield fake.encode(expired)
    (late,) = fake.pay(invoice_id, "0.9", certain=False)
    yield fake.encode(late)
    (*_, settled) = fake.confirm(invoice_id)
    yield fake.encode(settled)


async def told_by_coinbase_commerce(stall: Stall, created: CheckoutCreated) -> AsyncIterator[bytes]:
    fake, charge_id = stall.fake, created.session_id
    for event in (*fake.pay(charge_id, "20.00"), *fake.pay_late(charge_id, "29.00"), *fake.resolve(charge_id)):
        yield fake.deliver(event)
        stall.till.travel(seconds=7)


async def told_by_coinbase_business(stall: Stall, created: CheckoutCreated) -> AsyncIterator[bytes]:
    fake, checkout_id = stall.fake, created.session_id
    (paid,) = fake.pay(checkout_id)
    yield json.dumps(paid)
    before = Decimal(0)
    for amount, arrives in (("10.00", True), ("5.00", False), ("7.00", True)):
        stall.till.travel(seconds=7)
        await refund(stall, created, amount, str(before))
        (event,) = fake.complete_refunds(checkout_id, succeed=arrives)
        before += Decimal(amount) if arrives else 0
        yield json.dumps(event)


STORIES: dict[str, Callable[[Stall, CheckoutCreated], AsyncIterator[bytes]]] = {
    "liqpay": told_by_liqpay,
    "paypal": told_by_paypal,
    "btcpay": told_by_btcpay,
    "coinbase_commerce": told_by_coinbase_commerce,
    "coinbase_business": told_by_coinbase_business,
}


@pytest.mark.parametrize("name", STORIES)
async def test_every_order_of_one_payments_events(till: Till, shop: Shop, name: str) -> None:
    async with open_stall(till, name) as stall:
        created = await stall.begin(shop)
        readings = [await stall.read(content) async for content in STORIES[name](stall, created)]
        assert len(readings) == 4
        assert_one(await end_states(till, shop, name, readings), count=24)


async def told_by_stripe(till: Till, event: Obj) -> Reading:
    body = till.stripe.encode(event)
    provider = till.providers["stripe"]
    headers = {"Stripe-Signature": till.stripe.sign(body)}
    return await read_event(provider, provider.verify(body=body, headers=headers, now=till.now))


async def seen_at_stripe(till: Till, session_id: str) -> Reading:
    return await read_event(till.providers["stripe"], saw_payment(session_id, at=till.now))


def of_kinds(events: Sequence[Obj], *kinds: str) -> list[Obj]:
    return [event for event in events if event["type"] in kinds]


@pytest.mark.parametrize(
    ("apart_s", "last"),
    [(0, "customer.subscription.created"), (5, "charge.refunded")],
    ids=["in one second", "one after the other"],
)
async def test_every_order_of_a_first_payment_by_stripe(till: Till, shop: Shop, apart_s: int, last: str) -> None:
    view = await till.checkout(shop.owner)
    events = till.stripe.pay_checkout(view.session_id)
    charge = till.stripe.charge_of(till.stripe.sessions[view.session_id]["subscription"])
    events += till.stripe.refund(charge["id"], 1000)
    told = of_kinds(events, "checkout.session.completed", "invoice.paid", "invoice_payment.paid", last)
    began = told[0]["created"]
    for place, event in enumerate(told):
        event["created"] = began + place * apart_s
    readings = [await told_by_stripe(till, event) for event in told]
    assert_one(await end_states(till, shop, "stripe", readings), count=24)


async def test_every_order_of_refunds_that_fail_and_are_repeated(till: Till, shop: Shop) -> None:
    charge = till.stripe.charge_of(await till.buy(shop))["id"]
    story: list[Callable[[], list[Obj]]] = [
        lambda: till.stripe.refund(charge, 1000),
        lambda: till.stripe.refund(charge, 500),
        lambda: till.stripe.fail_refund(charge, 1000),
        lambda: till.stripe.fail_refund(charge, 500),
        lambda: till.stripe.refund(charge, 1000),
    ]
    readings = []
    for happens in story:
        till.travel(seconds=7)
        readings.append(await told_by_stripe(till, happens()[-1]))
    states = await end_states(till, shop, "stripe", readings)
    assert_one(states, count=120)
    assert ("balances", "refunds 10.0") in [(table, row[:12]) for table, row in states[0]]


# Which refunds of a change of plan are made and which fail, and what has gone back in the end.
REFUNDS_OF_A_CHANGE: list[tuple[list[int], str]] = [
    ([1000, -1000, 1000], "10.0"),
    ([1000, -1000, 500], "5.0"),
    ([1000, 500, -1000], "5.0"),
    ([1000, 1000, -1000], "10.0"),
    ([1000, 500, -1000, 700], "12.0"),
]


@pytest.mark.parametrize(
    ("apart_s", "is_seen"),
    [(0, False), (7, False), (0, True), (7, True)],
    ids=["told in one second", "told one after the other", "seen in one second", "seen one after the other"],
)
@pytest.mark.parametrize("story", REFUNDS_OF_A_CHANGE, ids=str)
async def test_every_order_of_refunds_of_a_change_of_plan(
    till: Till, shop: Shop, story: tuple[list[int], str], apart_s: int, *, is_seen: bool
) -> None:
    """What is known at each moment, below zero for a refund that fails, is taken in in every order.

    Refunds that are made are told by webhooks, or seen where these are lost.
    """
    await till.buy(shop, plan="starter")
    till.travel(days=5)
    view = await till.checkout(shop.owner, plan="business")
    await till.take(*till.stripe.pay_checkout(view.session_id))
    charge = till.stripe.payments[till.stripe.sessions[view.session_id]["payment_intent"]]["latest_charge"]
    till.travel(hours=1)
    seconds, readings = till.stripe.now(), []
    amounts, left = story
    for amount in amounts:
        till.stripe._clock = partial(float, seconds)
        told = till.stripe.refund(charge, amount) if amount > 0 else till.stripe.fail_refund(charge, -amount)
        is_looked_at = is_seen and amount > 0
        reading = seen_at_stripe(till, view.session_id) if is_looked_at else told_by_stripe(till, told[-1])
        readings.append(await reading)
        seconds += apart_s
    states = await end_states(till, shop, "stripe", readings)
    assert_one(states, count=factorial(len(amounts)))
    assert ("balances", f"refunds {left}") in [(table, row[: len(f"refunds {left}")]) for table, row in states[0]]


@pytest.mark.parametrize("apart_s", [0, 5], ids=["in one second", "one after the other"])
async def test_every_order_of_the_end_of_a_subscription(till: Till, shop: Shop, apart_s: int) -> None:
    subscription_id = await till.buy(shop)
    till.travel(days=31)
    readings = []
    told = of_kinds(till.stripe.renew(subscription_id, paid=False), "invoice.payment_failed")
    told += of_kinds(till.stripe.renew(subscription_id), "invoice.paid", "customer.subscription.updated")
    began = told[0]["created"]
    for place, event in enumerate(told):
        event["created"] = began + place * apart_s
        # While it goes on, for what is fetched says so.
        readings.append(await told_by_stripe(till, event))
    (*_, ended) = till.stripe.end_subscription(subscription_id)
    ended["created"] = began + len(told) * apart_s
    readings.append(await told_by_stripe(till, ended))
    assert_one(await end_states(till, shop, "stripe", readings), count=24)


async def test_every_order_of_a_year_that_stripe_has_not_heard_of(till: Till, shop: Shop) -> None:
    """What is told of the month while the year is being paid, and after it, and of the year after that."""
    subscription_id = await till.buy(shop)
    till.travel(days=10)
    stripes = till.stripe.subscriptions[subscription_id]
    order = ChangeOrder(
        plan_id=(await till.plan()).id,
        billing_period=BillingPeriod.YEARLY,
        success_url=SUCCESS_URL,
        cancel_url=CANCEL_URL,
    )
    opened = await till.billing.change_plan(shop.owner, order, trace=RequestTrace())
    assert opened.session_id is not None
    readings = [await told_by_stripe(till, till.stripe._event("customer.subscription.updated", stripes))]
    till.travel(minutes=1)
    (_, completed) = till.stripe.pay_checkout(opened.session_id)
    readings.append(await told_by_stripe(till, completed))
    till.travel(minutes=1)
    readings.append(await told_by_stripe(till, till.stripe._event("customer.subscription.updated", stripes)))
    states = await end_states(till, shop, "stripe", readings)
    assert_one(states, count=6)
    paid_at = moment(completed["created"])
    year_end = period_after(paid_at, BillingPeriod.YEARLY, anchor_day=paid_at.day)
    assert held_moment(states[0], "subscriptions", "current_period_end") == year_end
    assert held_moment(states[0], "provider_instructions", "charge_from") == year_end
    # What is charged for after the year stays as it is, also when that is heard before the year is.
    (item,) = stripes["items"]["data"]
    item["price"]["recurring"]["interval"] = "year"
    item["current_period_end"] = int(year_end.timestamp())
    till.travel(days=366)
    readings.append(await told_by_stripe(till, till.stripe.renew(subscription_id)[1]))
    states = await end_states(till, shop, "stripe", readings)
    assert_one(states, count=24)
    assert held_moment(states[0], "subscriptions", "current_period_start") == year_end


@pytest.mark.parametrize(
    ("replaced_on", "owed"),
    [(10, {"13.54", "19.99"}), (36, {"16.66"})],
    ids=["charged after it was replaced", "replaced in the middle of it"],
)
async def test_every_order_of_a_renewal_and_what_has_replaced_it(
    till: Till, shop: Shop, replaced_on: int, owed: set[str]
) -> None:
    """A starter month begun on the 1st of May is renewed on the 1st of June, whatever was bought in its place when."""
    till.clock.offset += datetime(till.now.year + 1, 5, 1, 12, tzinfo=UTC) - till.now
    views = [await till.checkout(shop.owner, plan=plan) for plan in ("starter", "business")]
    told = till.stripe.pay_checkout(views[0].session_id)
    renewed = till.stripe.sessions[views[0].session_id]["subscription"]
    happens: dict[int, Callable[[], list[Obj]]] = {
        replaced_on: lambda: till.stripe.pay_checkout(views[1].session_id),
        31: lambda: till.stripe.renew(renewed),
    }
    began, later = till.now, []
    for day in sorted(happens):
        till.clock.offset += began + timedelta(days=day) - till.now
        later += happens[day]()
    await till.take(*told)
    kinds = ("checkout.session.completed", "invoice.paid", "customer.subscription.updated")
    readings = [await told_by_stripe(till, event) for event in of_kinds(later, *kinds)]
    assert len(readings) == 4
    states = await end_states(till, shop, "stripe", readings)
    assert_one(states, count=24)
    assert {str(json.loads(row.encode())["amount"]) for table, row in states[0] if table == "credits"} == owed


async def test_every_order_of_the_sandboxs_events(till: Till, shop: Shop) -> None:
    async with open_stall(till, "sandbox") as stall:
        created = await stall.begin(shop)
        session = stall.harness.open(created)
        # Somebody without money tries twice, and pays in the second in which time runs out.
        told = [declined_event(session, at=till.now), declined_event(session, at=till.now + timedelta(seconds=3))]
        told += [act(session, at=till.now + timedelta(seconds=7)) for act in (expired_event, paid_event)]
        readings = [await stall.read(content) for content in told]
        assert_one(await end_states(till, shop, "sandbox", readings), count=24)
