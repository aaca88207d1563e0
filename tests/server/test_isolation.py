"""The second wall: what the automatic criterion does not reach, PostgreSQL hides, whoever the server signs in as."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine

from models.audit import AuditEntry
from models.base import Base, TenantOwned
from models.isolation import ROLE, enter, policies
from models.tenants import Invitation, InvitationState, Role, Tenant
from realtime.log import EventLog
from server.database import SchemaOutdated, check_schema, create_engine, migrate
from server.isolation import as_owner
from services.unit_of_work import PlatformScope, TenantScope, UnitOfWorkFactory
from tests.support.spine import Ears, Said, everything, new_tenant, spine
from tests.support.walls import walled

PLATFORM = PlatformScope("a test looks at everything")
INVITATIONS = Base.metadata.tables["invitations"]
REFUSED = "violates row-level security policy"


def leaky(engine: AsyncEngine) -> UnitOfWorkFactory:
    """Return units of work whose first wall was taken down: sessions that add no criterion and check no row."""
    return walled(engine, first=False, second=True)


async def invited(engine: AsyncEngine, tenant_id: UUID) -> UUID:
    invitation_id = uuid4()
    async with everything(engine) as connection:
        await connection.execute(insert(INVITATIONS).values(**row(tenant_id, invitation_id)))
    return invitation_id


def row(tenant_id: UUID, invitation_id: UUID) -> dict[str, object]:
    return {
        "id": invitation_id,
        "tenant_id": tenant_id,
        "email": f"{invitation_id.hex}@example.org",
        "role": Role.USER,
        "state": InvitationState.PENDING,
        "token_hash": invitation_id.hex,
        "expires_at": func.now(),
    }


async def leaks(engine: AsyncEngine) -> None:
    """Assert that a query which forgets its tenant finds, changes and writes nothing of another's."""
    mine, theirs = await new_tenant(engine), await new_tenant(engine)
    own, foreign = await invited(engine, mine), await invited(engine, theirs)
    units = leaky(engine)
    async with units(TenantScope(mine)) as uow:
        assert list(await uow.session.scalars(select(Invitation.id))) == [own]
        assert list((await uow.session.execute(text("SELECT id FROM invitations"))).scalars()) == [own]
        assert list(await uow.session.scalars(select(Tenant.id))) == [mine]
        assert await uow.session.get(Invitation, foreign) is None
        changed = await uow.session.execute(update(Invitation).values(email="taken@example.org"))
        assert changed.rowcount == 1  # type: ignore[attr-defined]
        gone = await uow.session.execute(delete(Invitation).where(Invitation.id == foreign))
        assert gone.rowcount == 0  # type: ignore[attr-defined]
    for statement in (
        insert(INVITATIONS).values(**row(theirs, uuid4())),
        update(INVITATIONS).values(tenant_id=theirs),
        insert(AuditEntry).values(
            tenant_id=theirs, action="a.b", subject_type="a", subject_id="b", details={}, created_at=func.now()
        ),
    ):
        with pytest.raises(ProgrammingError, match=REFUSED):
            async with units(TenantScope(mine)) as uow:
                await uow.session.execute(statement)
    async with units(PLATFORM) as uow:
        found = set(await uow.session.scalars(select(Invitation.id).where(Invitation.id.in_([own, foreign]))))
    assert found == {own, foreign}


async def test_a_planted_leak_is_stopped(engine: AsyncEngine) -> None:
    await leaks(engine)


async def test_a_transaction_without_a_scope_sees_nobody(engine: AsyncEngine) -> None:
    tenant_id = await new_tenant(engine)
    await invited(engine, tenant_id)

    async with engine.connect() as connection:
        for table in policies():
            assert await connection.scalar(text(f"SELECT count(*) FROM {table}")) == 0, table  # noqa: S608
            assert await connection.scalar(text("SELECT row_security_active(:table)"), {"table": table})
        assert await connection.scalar(text("SELECT current_user")) == ROLE
        assert not await connection.scalar(
            text("SELECT rolsuper OR rolbypassrls OR rolcanlogin FROM pg_roles WHERE rolname = current_user")
        )


async def test_a_scope_ends_with_its_transaction_and_with_its_session(engine: AsyncEngine) -> None:
    one = create_engine(engine.url.render_as_string(hide_password=False), pool_size=2)
    first, second = await new_tenant(engine), await new_tenant(engine)
    units = leaky(one)

    async def seen(scope: TenantScope | PlatformScope) -> set[UUID]:
        async with units(scope) as uow:
            before = set(await uow.session.scalars(select(Tenant.id).where(Tenant.id.in_([first, second]))))
            async with uow.session.begin_nested():
                assert before == set(await uow.session.scalars(select(Tenant.id).where(Tenant.id.in_([first, second]))))
            return before

    turns: list[TenantScope | PlatformScope] = [TenantScope(first), PLATFORM, TenantScope(second)] * 20
    found = await asyncio.gather(*(seen(turn) for turn in turns))

    assert found == [{first}, {first, second}, {second}] * 20
    async with one.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM tenants")) == 0
    await one.dispose()


async def test_the_log_reads_and_writes_through_the_wall(engine: AsyncEngine) -> None:
    mine, theirs = await new_tenant(engine), await new_tenant(engine)
    units = spine(engine, Ears())
    async with units(TenantScope(mine)) as uow:
        uow.record(Said(tenant_id=mine, text="mine"))
    with pytest.raises(ProgrammingError, match=REFUSED):
        async with units(TenantScope(mine)) as uow:
            uow.record(Said(tenant_id=theirs, text="theirs"))

    log = EventLog(engine)
    assert [event.payload["text"] for event in await log.read_after(mine, 0, limit=9)] == ["mine"]
    assert set(await log.states([mine, theirs])) == {mine}


def test_every_tenant_owned_table_has_a_policy() -> None:
    owned = {mapper.local_table.name for mapper in Base.registry.mappers if issubclass(mapper.class_, TenantOwned)}  # type: ignore[attr-defined]
    referring = {
        table.name
        for table in Base.metadata.tables.values()
        if "tenant_id" in table.columns and not table.columns["tenant_id"].nullable
    }
    assert owned == referring
    assert owned | {"tenants", "audit_entries"} == set(policies())


@asynccontextmanager
async def database_of(server: AsyncEngine, *attributes: str) -> AsyncIterator[AsyncEngine]:
    """Yield an empty database that belongs to an ordinary role of its own."""
    name, autocommit = f"walls_{uuid4().hex}", server.execution_options(isolation_level="AUTOCOMMIT")
    async with autocommit.connect() as connection:
        await connection.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD '{name}' {' '.join(attributes)}"))
        await connection.execute(text(f"CREATE DATABASE {name} OWNER {name}"))
    url = server.url.set(database=name, username=name, password=name)
    engine = create_engine(url.render_as_string(hide_password=False), pool_size=2)
    try:
        yield engine
    finally:
        await engine.dispose()
        async with autocommit.connect() as connection:
            await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
            await connection.execute(text(f"DROP ROLE {name}"))


async def test_an_ordinary_role_that_owns_the_tables_is_bound_too(engine: AsyncEngine) -> None:
    async with database_of(engine) as own:
        await migrate(own)
        await check_schema(own)
        await leaks(own)
        async with own.connect() as connection:
            assert await connection.scalar(text("SELECT current_user = session_user"))
        async with as_owner(own) as connection:
            with pytest.raises(ProgrammingError, match=REFUSED):
                await connection.execute(insert(INVITATIONS).values(**row(uuid4(), uuid4())))


async def test_a_role_that_bypasses_policies_steps_down_or_is_not_let_start(engine: AsyncEngine) -> None:
    async with database_of(engine, "BYPASSRLS") as own:
        with pytest.raises(ProgrammingError, match="permission denied"):
            await migrate(own)
        async with as_owner(engine) as connection, connection.begin():
            await connection.execute(text(f"GRANT {ROLE} TO {own.url.username}"))
        await migrate(own)
        await check_schema(own)
        async with own.connect() as connection:
            assert await connection.scalar(text("SELECT current_user")) == ROLE
        await leaks(own)
        async with as_owner(own) as connection, connection.begin():
            await connection.execute(text("ALTER TABLE tenants DISABLE ROW LEVEL SECURITY"))
        with pytest.raises(SchemaOutdated, match="run `orchestrator migrate`"):
            await check_schema(own)


async def test_a_scope_ends_with_its_unit_of_work_even_if_that_said_nothing(engine: AsyncEngine) -> None:
    await invited(engine, await new_tenant(engine))
    narrow = create_engine(engine.url.render_as_string(hide_password=False), pool_size=1)
    async with narrow.connect() as connection:
        await connection.run_sync(enter, None)
    async with narrow.connect() as connection:
        assert await connection.scalar(select(func.count()).select_from(INVITATIONS)) == 0
    await narrow.dispose()
