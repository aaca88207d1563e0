"""Payments of before are for the plan that reports took them to be for."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from server.database import downgrade, migrate
from tests.fakes.stripe_api import FakeStripe
from tests.migrations.test_migrations import own_database
from tests.support.billing import Till, build_till
from tests.support.clock import MovableClock

pytestmark = pytest.mark.embedded


@pytest.fixture
async def database(engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    async with own_database(engine) as found:
        await migrate(found)
        yield found


@pytest.fixture
async def till(database: AsyncEngine) -> AsyncIterator[Till]:
    clock = MovableClock()
    async with FakeStripe(clock=lambda: clock.now().timestamp()) as stripe:
        built = build_till(database, stripe, clock)
        yield built
        for provider in built.providers.values():
            await provider.aclose()


async def test_a_purchase_and_its_renewal_up_and_down(till: Till, database: AsyncEngine) -> None:
    shop = await till.shop()
    subscription_id = await till.buy(shop, plan="business")
    till.travel(days=31)
    await till.take(*till.stripe.renew(subscription_id))
    before = [payment.plan_id for payment in await till.payments(shop)]
    assert before == [(await till.plan("business")).id] * 2
    await downgrade(database, "0018")
    await migrate(database)
    assert [payment.plan_id for payment in await till.payments(shop)] == before
