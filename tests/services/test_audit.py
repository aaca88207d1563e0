"""The audit: sealed entry by entry, never changed, and whoever tampers with it all the same is found out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from models.audit import AuditChain, AuditEntry
from server.isolation import as_owner
from services.audit import AuditService, Verdict
from services.unit_of_work import PlatformScope, RequestTrace, TenantScope, UnitOfWork
from tests.support.spine import Ears, new_tenant, spine

PLATFORM = PlatformScope("tests look at everything")


async def deed(engine: AsyncEngine, tenant_id: UUID | None, *, actor_id: UUID | None = None, **details: Any) -> None:
    scope = TenantScope(tenant_id) if tenant_id else PLATFORM
    async with spine(engine, Ears())(scope, trace=RequestTrace(source="cli", ip="192.0.2.1", user_agent="ü")) as uow:
        uow.audit("test.done", actor_id=actor_id, tenant_id=tenant_id, subject=("test", "1"), details=details)


async def entries(engine: AsyncEngine, chain_id: UUID) -> list[AuditEntry]:
    async with as_owner(engine) as connection, AsyncSession(connection) as session:
        return list(
            await session.scalars(select(AuditEntry).where(AuditEntry.chain_id == chain_id).order_by(AuditEntry.seq))
        )


@asynccontextmanager
async def tampering(engine: AsyncEngine) -> AsyncIterator[UnitOfWork]:
    """A session in which the database's own guard is asleep, as for its administrator; nothing of it stays."""
    async with as_owner(engine) as connection, AsyncSession(connection) as session:
        await session.execute(text("SET LOCAL session_replication_role = replica"))
        yield UnitOfWork(session, PLATFORM, now=datetime.now(UTC), trace=RequestTrace())
        await session.rollback()


async def verdict(uow: UnitOfWork) -> Verdict:
    return await AuditService().verify(uow)


async def test_entries_of_a_tenant_are_numbered_and_sealed(engine: AsyncEngine) -> None:
    tenant_id = await new_tenant(engine)
    for number in range(3):
        await deed(engine, tenant_id, number=number)
    found = await entries(engine, tenant_id)
    assert [entry.seq for entry in found] == [1, 2, 3]
    assert len({entry.seal for entry in found}) == 3
    assert {(entry.source, entry.ip, entry.user_agent) for entry in found} == {("cli", "192.0.2.1", "ü")}
    async with AsyncSession(engine) as session:
        chain = await session.get_one(AuditChain, tenant_id)
    assert (chain.length, chain.head) == (3, found[-1].seal)


async def test_outside_a_tenant_everybody_has_a_chain(engine: AsyncEngine) -> None:
    actor_id = uuid4()
    await deed(engine, None, actor_id=actor_id)
    assert [entry.seq for entry in await entries(engine, actor_id)] == [1]


async def test_deeds_at_once_make_one_chain_without_holes(engine: AsyncEngine) -> None:
    """Each takes the chains of two tenants, in either order, and a person's."""
    one, other = await new_tenant(engine), await new_tenant(engine)
    units = spine(engine, Ears())

    async def act(tenants: tuple[UUID, UUID]) -> None:
        async with units(PLATFORM) as uow:
            for tenant_id in tenants:
                uow.audit("test.done", actor_id=None, tenant_id=tenant_id, subject=("test", "1"))

    await asyncio.gather(*(act((one, other) if turn % 2 else (other, one)) for turn in range(20)))
    for tenant_id in (one, other):
        assert [entry.seq for entry in await entries(engine, tenant_id)] == list(range(1, 21))
    async with units(PLATFORM) as uow:
        assert (await verdict(uow)).faults == []


async def test_what_is_undone_leaves_no_number(engine: AsyncEngine) -> None:
    tenant_id = await new_tenant(engine)
    units = spine(engine, Ears())
    with pytest.raises(ZeroDivisionError):
        async with units(TenantScope(tenant_id)) as uow:
            uow.audit("test.done", actor_id=None, tenant_id=tenant_id, subject=("test", "1"))
            await uow.write_audits()
            raise ZeroDivisionError
    await deed(engine, tenant_id)
    assert [entry.seq for entry in await entries(engine, tenant_id)] == [1]


async def test_secrets_are_left_out(engine: AsyncEngine) -> None:
    tenant_id = await new_tenant(engine)
    await deed(engine, tenant_id, before={"name": "a", "api_token": "x"}, password="y", webhook_secrets=["z"])
    [entry] = await entries(engine, tenant_id)
    hidden = "[hidden]"
    assert entry.details == {
        "before": {"name": "a", "api_token": hidden},
        "password": hidden,
        "webhook_secrets": hidden,
    }


@pytest.mark.parametrize(
    "deed_sql",
    ["UPDATE audit_entries SET action = 'x.y' WHERE chain_id = :id", "DELETE FROM audit_entries WHERE chain_id = :id"],
    ids=["update", "delete"],
)
async def test_the_database_refuses_changes(engine: AsyncEngine, deed_sql: str) -> None:
    tenant_id = await new_tenant(engine)
    await deed(engine, tenant_id)
    with pytest.raises(DBAPIError, match="never changed"):
        async with as_owner(engine) as connection:
            await connection.execute(text(deed_sql), {"id": tenant_id})
    assert len(await entries(engine, tenant_id)) == 1


async def test_entries_outlive_their_tenant(engine: AsyncEngine) -> None:
    tenant_id = await new_tenant(engine)
    await deed(engine, tenant_id)
    async with as_owner(engine) as connection:
        await connection.execute(text("DELETE FROM tenants WHERE id = :id"), {"id": tenant_id})
        await connection.commit()
    assert len(await entries(engine, tenant_id)) == 1


@pytest.mark.parametrize(
    ("tampered", "fault"),
    [
        ("UPDATE audit_entries SET details = '{\"amount\": 1}' WHERE chain_id = :id AND seq = 2", "entry 2 does not"),
        ("UPDATE audit_entries SET actor_id = gen_random_uuid() WHERE chain_id = :id AND seq = 3", "entry 3 does not"),
        (
            "UPDATE audit_entries SET created_at = created_at - '1us'::interval WHERE chain_id = :id AND seq = 1",
            "entry 1 does not",
        ),
        ("DELETE FROM audit_entries WHERE chain_id = :id AND seq = 2", "entry 3 does not"),
        ("DELETE FROM audit_entries WHERE chain_id = :id AND seq = 3", "3 entries were written, 2 are there"),
        ("DELETE FROM audit_entries WHERE chain_id = :id", "3 entries were written, 0 are there"),
        ("DELETE FROM audit_chains WHERE chain_id = :id", "0 entries were written, 3 are there"),
    ],
    ids=["details", "actor", "time", "middle cut", "end cut", "all cut", "chain cut"],
)
async def test_tampering_is_found(engine: AsyncEngine, tampered: str, fault: str) -> None:
    tenant_id = await new_tenant(engine)
    for number in range(3):
        await deed(engine, tenant_id, number=number)
    async with tampering(engine) as uow:
        before = await verdict(uow)
        assert before.faults == []
        await uow.session.execute(text(tampered), {"id": tenant_id})
        after = await verdict(uow)
    assert any(f"chain {tenant_id}: {fault}" in found for found in after.faults), after


async def test_a_chain_that_was_written_anew_has_another_digest(engine: AsyncEngine) -> None:
    """Who computes every seal anew is found out by the digest that the operator keeps elsewhere."""
    tenant_id = await new_tenant(engine)
    await deed(engine, tenant_id)
    async with tampering(engine) as uow:
        before = await verdict(uow)
        await uow.session.execute(text("DELETE FROM audit_entries WHERE chain_id = :id"), {"id": tenant_id})
        await uow.session.execute(text("DELETE FROM audit_chains WHERE chain_id = :id"), {"id": tenant_id})
        after = await verdict(uow)
    assert after.faults == []
    assert (before.entries - after.entries, before.digest == after.digest) == (1, False)
