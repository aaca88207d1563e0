"""The service under test, with a Stripe, a clock and a database of its own."""

from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from services.unit_of_work import UnitOfWork
from tests.fakes.stripe_api import FakeStripe
from tests.support.billing import PLATFORM, Shop, Till, build_till
from tests.support.books import open_books
from tests.support.clock import MovableClock
from tests.support.orders_of_facts import Undo
from tests.support.running import Running
from tests.support.stalls import STALLS, Stall, open_stall


@pytest.fixture(scope="session")
async def books(engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    """A database beside the shared one: these tests move time, and a sweeper then ends the trials of all tenants."""
    running = Running(partial(open_books, engine=engine))
    yield await running.started()
    await running.stop()


@pytest.fixture
async def till(books: AsyncEngine) -> AsyncIterator[Till]:
    """Billing without a server."""
    clock = MovableClock()
    async with FakeStripe(clock=lambda: clock.now().timestamp()) as stripe:
        built = build_till(books, stripe, clock)
        yield built
        for provider in built.providers.values():
            await provider.aclose()


@pytest.fixture
async def shop(till: Till) -> Shop:
    """A tenant on its trial."""
    return await till.shop()


@pytest.fixture
async def ledger(till: Till) -> AsyncIterator[UnitOfWork]:
    """A unit of work that leaves no trace; sequences are played in savepoints of it, which is faster."""
    with suppress(Undo):
        async with till.units(PLATFORM) as uow:
            yield uow
            raise Undo


@pytest.fixture(params=sorted(STALLS))
async def stall(request: pytest.FixtureRequest, till: Till) -> AsyncIterator[Stall]:
    """Each provider in turn."""
    async with open_stall(till, request.param) as opened:
        yield opened


@pytest.fixture
async def btcpay(till: Till) -> AsyncIterator[Stall]:
    async with open_stall(till, "btcpay") as opened:
        yield opened


@pytest.fixture
async def paypal(till: Till) -> AsyncIterator[Stall]:
    async with open_stall(till, "paypal") as opened:
        yield opened
