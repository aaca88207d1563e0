"""The service under test, with a Stripe, a clock and a database of its own."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from server.database import create_engine, migrate
from tests.fakes.stripe_api import FakeStripe
from tests.support.billing import Shop, Till, build_till
from tests.support.clock import MovableClock
from tests.support.running import Running


@pytest.fixture(scope="session")
async def books(engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    """A database beside the shared one: these tests move time, and a sweeper then ends the trials of all tenants."""
    running = Running(partial(open_books, engine=engine))
    yield await running.started()
    await running.stop()


async def open_books(stack: AsyncExitStack, engine: AsyncEngine) -> AsyncEngine:
    name = f"billing_{uuid4().hex[:12]}"
    await run_outside(engine, f"CREATE DATABASE {name}")
    stack.push_async_callback(run_outside, engine, f"DROP DATABASE {name} WITH (FORCE)")
    own = create_engine(engine.url.set(database=name).render_as_string(hide_password=False), pool_size=5)
    stack.push_async_callback(own.dispose)
    await migrate(own)
    return own


async def run_outside(engine: AsyncEngine, statement: str) -> None:
    """Run what PostgreSQL allows in no transaction."""
    async with engine.connect() as connection:
        outside = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await outside.execute(text(statement))


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
