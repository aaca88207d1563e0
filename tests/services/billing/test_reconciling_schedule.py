"""When who is asked: purchases by and by, lists in turn, and every provider once a night."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import select

from models.reconciliations import Reconciliation, ReconciliationState
from tests.services.billing.test_reconciling import checkout_id
from tests.support.billing import PLATFORM, Shop, Till
from tests.support.reconciling import open_watch
from tests.support.stalls import Stall

pytestmark = pytest.mark.embedded


async def test_a_purchase_is_asked_about_after_five_minutes_an_hour_and_daily(
    till: Till, shop: Shop, btcpay: Stall
) -> None:
    watch = await open_watch(till)
    await btcpay.begin(shop)
    own = await checkout_id(till, shop)
    asked = []
    began = till.now
    # Stripe is asked about nothing here, so that only polls are counted.
    for _ in range(9):
        (checkout,) = await till.checkouts(shop)
        if checkout.next_poll_at is None:
            break
        till.clock.offset += checkout.next_poll_at - till.now
        asked.append(till.now - began)
        await till.billing.reconciling.poll(own)
    hours = [round(waited / timedelta(hours=1), 1) for waited in asked]
    # An invoice is open for an hour, and watched for three days more.
    assert hours == [0.1, 1.1, 25.1, 49.1, 73.0]
    assert watch.rung("billing.apply") == []


async def test_what_is_paid_is_not_asked_about(till: Till, shop: Shop, btcpay: Stall) -> None:
    await open_watch(till)
    await btcpay.take(btcpay.harness.paid(await btcpay.begin(shop)))
    before = len(btcpay.fake.requests)
    await till.billing.reconciling.poll(await checkout_id(till, shop))
    (checkout,) = await till.checkouts(shop)
    assert checkout.next_poll_at is None
    await till.billing.reconciling.poll(checkout.id)
    assert len(btcpay.fake.requests) <= before + 2


def go_to_noon(till: Till) -> None:
    """Move time on to where no hour and no day ends within a test."""
    noon = till.now.replace(hour=12, minute=0)
    till.clock.offset += noon + timedelta(days=noon <= till.now) - till.now


async def test_schedulers_do_not_ask_twice(till: Till, shop: Shop, btcpay: Stall) -> None:
    go_to_noon(till)
    watch = await open_watch(till)
    await btcpay.begin(shop)
    till.travel(minutes=10)
    till.billing.reconciling._sweeps._nightly_hour = 0
    await asyncio.gather(*(till.billing.reconciling.sweep() for _ in range(5)))
    own = await checkout_id(till, shop)
    assert watch.rung("reconciling.poll").count(own) == 1
    assert watch.rung("reconciling.read").count((await watch.feed("btcpay")).id) == 1
    async with till.units(PLATFORM) as uow:
        rows = list(await uow.session.scalars(select(Reconciliation)))
    assert sorted(row.provider for row in rows) == ["btcpay", "sandbox", "stripe"]
    assert {(row.nightly_on, row.requested_by) for row in rows} == {(till.now.date(), None)}


async def test_a_night_has_one_sweep_and_the_next_another(till: Till, shop: Shop) -> None:
    go_to_noon(till)
    watch = await open_watch(till)
    till.billing.reconciling._sweeps._nightly_hour = 0
    for _ in range(3):
        await watch.look()
    till.travel(days=1)
    await watch.look()
    async with till.units(PLATFORM) as uow:
        rows = list(await uow.session.scalars(select(Reconciliation).where(Reconciliation.provider == "stripe")))
    assert [row.state for row in rows] == [ReconciliationState.DONE] * 2
    assert len({row.nightly_on for row in rows}) == 2


async def test_the_night_waits_for_its_hour(till: Till, shop: Shop) -> None:
    go_to_noon(till)
    watch = await open_watch(till)
    till.billing.reconciling._sweeps._nightly_hour = till.now.hour + 1
    await watch.look()
    assert watch.rung("reconciling.run") == []
    async with till.units(PLATFORM) as uow:
        assert list(await uow.session.scalars(select(Reconciliation))) == []
