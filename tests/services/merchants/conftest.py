"""Merchants with accounts at fakes, a clock and a database of their own."""

from collections.abc import AsyncIterator
from functools import partial

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.fakes.stripe_api import FakeStripe
from tests.support.billing import Shop, Till, build_till
from tests.support.books import open_books
from tests.support.clock import MovableClock
from tests.support.merchants import Bazaar, open_bazaar
from tests.support.running import Running


@pytest.fixture(scope="session")
async def books(engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    running = Running(partial(open_books, engine=engine))
    yield await running.started()
    await running.stop()


@pytest.fixture
async def till(books: AsyncEngine) -> AsyncIterator[Till]:
    clock = MovableClock()
    async with FakeStripe(clock=lambda: clock.now().timestamp()) as stripe:
        built = build_till(books, stripe, clock)
        yield built
        for provider in built.providers.values():
            await provider.aclose()


@pytest.fixture
async def bazaar(till: Till) -> AsyncIterator[Bazaar]:
    async with open_bazaar(till) as opened:
        yield opened


@pytest.fixture
async def shop(bazaar: Bazaar) -> Shop:
    """A merchant with an account at BTCPay Server."""
    return await bazaar.merchant()
