"""What was booked before merchants came stays, and the release before theirs gets a journal that it can read."""

from collections.abc import AsyncIterator
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from server.database import downgrade, migrate
from tests.migrations.test_migrations import own_database, scripts
from tests.support.spine import everything, new_tenant

ENTRY = (
    "INSERT INTO journal_entries (id, tenant_id, provider, kind, fact_key, number, debit, credit, amount, currency,"
    " occurred_at) VALUES (gen_random_uuid(), :tenant, 'x', :kind, :key, 1, :debit, :credit, :amount, :currency, now())"
)


def before() -> str:
    found = scripts().get_revision("0013").down_revision
    assert isinstance(found, str)
    return found


@pytest.fixture
async def earlier(engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    async with own_database(engine) as database:
        await migrate(database, before())
        yield database


async def book(engine: AsyncEngine, tenant_id: UUID, fact: str, amount: str, currency: str) -> None:
    kind, debit, credit = fact.split()
    values = {"tenant": tenant_id, "kind": kind, "key": str(uuid4()), "debit": debit, "credit": credit}
    async with everything(engine) as connection:
        await connection.execute(text(ENTRY), {**values, "amount": Decimal(amount), "currency": currency})


async def booked(engine: AsyncEngine) -> list[tuple[str, str]]:
    async with everything(engine) as connection:
        rows = await connection.execute(
            text("SELECT amount::text, currency FROM journal_entries ORDER BY journal_entries.amount")
        )
        return [(amount, currency) for amount, currency in rows]


async def test_the_journal_up_and_down(earlier: AsyncEngine) -> None:
    await migrate(earlier)
    tenant_id = await new_tenant(earlier)
    await downgrade(earlier, before())
    await book(earlier, tenant_id, "charge cash revenue", "49.99", "USD")
    await migrate(earlier)
    assert await booked(earlier) == [("49.99", "USD")]
    await book(earlier, tenant_id, "commission receivables commissions", "0.00006171", "USDC")
    await book(earlier, tenant_id, "charge cash revenue", "1999.90", "UAH")
    assert await booked(earlier) == [("0.00006171", "USDC"), ("49.99", "USD"), ("1999.90", "UAH")]
    await downgrade(earlier, before())
    assert await booked(earlier) == [("49.99", "USD"), ("1999.90", "UAH")]
