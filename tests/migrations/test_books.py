"""Books of before stay and outlive their tenant from then on; the release before gets those that it can read."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from server.database import downgrade, migrate
from tests.migrations.test_merchants import book
from tests.migrations.test_migrations import own_database
from tests.support.spine import everything, new_tenant


@pytest.fixture
async def earlier(engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    async with own_database(engine) as database:
        await migrate(database, "0015")
        yield database


async def booked(engine: AsyncEngine) -> set[UUID]:
    async with everything(engine) as connection:
        return set((await connection.execute(text("SELECT tenant_id FROM journal_entries"))).scalars())


async def test_books_up_and_down(earlier: AsyncEngine) -> None:
    await migrate(earlier)
    stays, goes = await new_tenant(earlier), await new_tenant(earlier)
    await downgrade(earlier, "0015")
    for tenant_id in (stays, goes):
        await book(earlier, tenant_id, "charge cash revenue", "49.99", "USD")
    await migrate(earlier)
    async with everything(earlier) as connection:
        await connection.execute(text("DELETE FROM tenants WHERE id = :id"), {"id": goes})
    assert await booked(earlier) == {stays, goes}
    await downgrade(earlier, "0015")
    assert await booked(earlier) == {stays}
    async with everything(earlier) as connection:
        await connection.execute(text("DELETE FROM tenants WHERE id = :id"), {"id": stays})
    assert await booked(earlier) == set()
