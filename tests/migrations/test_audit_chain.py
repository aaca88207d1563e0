"""What earlier releases wrote into the audit is sealed too, in its order, and given back as it was."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from server.database import downgrade, migrate
from server.isolation import as_owner
from services.audit import AuditService
from services.unit_of_work import PlatformScope
from tests.migrations.test_migrations import own_database
from tests.support.spine import Ears, spine


@pytest.fixture
async def earlier(engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    """A database of the release before the chain."""
    async with own_database(engine) as database:
        await migrate(database, "0003")
        yield database


async def test_earlier_entries_are_sealed_in_their_order(earlier: AsyncEngine) -> None:
    actor_id = uuid4()
    async with as_owner(earlier) as connection:
        await connection.execute(
            text(
                "INSERT INTO users (id, email, full_name, hashed_password, is_active, is_superuser, locale) "
                "VALUES (:id, 'a@example.org', 'A', 'none', true, false, 'en')"
            ),
            {"id": actor_id},
        )
        for number in range(3):
            await connection.execute(
                text(
                    "INSERT INTO audit_entries (actor_id, action, subject_type, subject_id, details) "
                    "VALUES (:actor, 'test.done', 'test', :subject, '{}')"
                ),
                {"actor": actor_id, "subject": str(number)},
            )
        await connection.commit()
    await migrate(earlier)
    async with spine(earlier, Ears())(PlatformScope("tests look at everything")) as uow:
        verdict = await AuditService().verify(uow)
        rows = (
            await uow.session.execute(text("SELECT seq, subject_id, chain_id FROM audit_entries ORDER BY id"))
        ).all()
        found = [tuple(row) for row in rows]
    assert (verdict.faults, verdict.entries) == ([], 3)
    assert found == [(number + 1, str(number), actor_id) for number in range(3)]
    await downgrade(earlier, "0003")
    async with as_owner(earlier) as connection:
        kept = await connection.execute(text("SELECT subject_id, actor_id FROM audit_entries ORDER BY id"))
        assert kept.all() == [(str(number), actor_id) for number in range(3)]
