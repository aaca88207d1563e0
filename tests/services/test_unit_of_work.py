"""The unit of work: all or nothing, numbered in commit order without holes, and blind to other tenants."""

import asyncio
from decimal import Decimal
from random import Random
from uuid import uuid4

import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from models.audit import AuditEntry
from models.billing import Plan
from models.tenants import Invitation, Tenant
from realtime.log import EventLog
from services.unit_of_work import (
    ForeignTenant,
    PlatformScope,
    TenantScope,
    TenantScopeMissing,
    UnitOfWork,
    guard_tenants,
)
from tests.support.spine import Ears, Said, new_tenant, spine
from tests.support.walls import walled

PLATFORM = PlatformScope("a test looks at everything")


class Trouble(Exception):
    pass


def invitation(tenant_id, uow: UnitOfWork) -> Invitation:
    return Invitation(
        tenant_id=tenant_id,
        email=f"{uuid4().hex}@example.org",
        role="member",
        token_hash=uuid4().hex,
        expires_at=uow.now,
    )


async def test_a_row_that_is_changed_twice_in_one_moment_can_still_be_read(engine: AsyncEngine) -> None:
    units = spine(engine, Ears())
    tenant_id = await new_tenant(engine)
    async with units(TenantScope(tenant_id)) as uow:
        tenant = (await uow.session.scalars(select(Tenant).where(Tenant.id == tenant_id))).one()
        tenant.name, tenant.updated_at = "Once", uow.now
        await uow.session.flush()
        # The moment is the same, so no change, and the database sets its own.
        tenant.name, tenant.updated_at = "Twice", uow.now
        await uow.session.flush()
        assert tenant.updated_at.tzinfo is not None


async def test_a_commit_numbers_events_and_rings(engine: AsyncEngine) -> None:
    ears = Ears()
    units = spine(engine, ears)
    tenant_id, row_id = await new_tenant(engine), uuid4()

    async with units(TenantScope(tenant_id)) as uow:
        uow.record(Said(tenant_id=tenant_id, text="one"))
        uow.record(Said(tenant_id=tenant_id, text="two"))
        uow.audit("test.done", actor_id=None, tenant_id=tenant_id, subject=("test", row_id))
        uow.ring("provisioning.run", row_id)
        assert (ears.events, ears.tasks) == ([], []), "nothing may be told before the commit"

    assert [(event.seq, event.payload["text"]) for event in ears.events] == [(1, "one"), (2, "two")]
    assert [(task.name, task.row_id) for task in ears.tasks] == [("provisioning.run", row_id)]
    stored = await EventLog(engine).read_after(tenant_id, 0, limit=10)
    assert stored == ears.events
    async with units(PLATFORM) as uow:
        entry = (await uow.session.scalars(select(AuditEntry).where(AuditEntry.tenant_id == tenant_id))).one()
    assert (entry.action, entry.subject_id) == ("test.done", str(row_id))


async def test_last_steps_are_taken_in_their_order_when_the_use_case_is_over(engine: AsyncEngine) -> None:
    ears = Ears()
    units = spine(engine, ears)
    tenant_id = await new_tenant(engine)

    async with units(TenantScope(tenant_id)) as uow:

        async def say(text: str) -> None:
            uow.record(Said(tenant_id=tenant_id, text=text))

        async def leave_another() -> None:
            uow.session.add(invitation(tenant_id, uow))
            uow.leave_for_last(lambda: say("another"))

        uow.leave_for_last(lambda: say("last"))
        uow.leave_for_last(leave_another)
        await say("first")

    assert [event.payload["text"] for event in ears.events] == ["first", "last", "another"]
    async with units(TenantScope(tenant_id)) as uow:
        assert await uow.session.scalar(select(func.count()).select_from(Invitation)) == 1


async def test_a_last_step_that_fails_leaves_no_trace_and_none_is_taken_after_an_exception(engine: AsyncEngine) -> None:
    ears = Ears()
    units = spine(engine, ears)
    tenant_id = await new_tenant(engine)

    async def fail() -> None:
        raise Trouble

    with pytest.raises(Trouble):
        async with units(TenantScope(tenant_id)) as uow:
            uow.session.add(invitation(tenant_id, uow))
            uow.leave_for_last(fail)
    taken: list[str] = []

    async def take() -> None:
        taken.append("step")

    with pytest.raises(Trouble):
        async with units(TenantScope(tenant_id)) as uow:
            uow.leave_for_last(take)
            raise Trouble
    assert taken == []
    async with units(TenantScope(tenant_id)) as uow:
        assert await uow.session.scalar(select(func.count()).select_from(Invitation)) == 0


async def test_an_exception_leaves_no_trace(engine: AsyncEngine) -> None:
    ears = Ears()
    units = spine(engine, ears)
    tenant_id = await new_tenant(engine)

    with pytest.raises(Trouble):
        async with units(TenantScope(tenant_id)) as uow:
            uow.session.add(invitation(tenant_id, uow))
            uow.record(Said(tenant_id=tenant_id, text="never"))
            uow.audit("test.failed", actor_id=None, tenant_id=tenant_id, subject=("test", "1"))
            uow.ring("mail.send", uuid4())
            raise Trouble

    assert (ears.events, ears.tasks) == ([], [])
    assert await EventLog(engine).states([tenant_id]) == {}
    async with units(TenantScope(tenant_id)) as uow:
        assert await uow.session.scalar(select(func.count()).select_from(Invitation)) == 0
        audits = select(func.count()).select_from(AuditEntry).where(AuditEntry.tenant_id == tenant_id)
        assert await uow.session.scalar(audits) == 0


async def test_a_failing_commit_tells_nobody(engine: AsyncEngine) -> None:
    ears = Ears()
    units = spine(engine, ears)
    tenant_id = await new_tenant(engine)

    with pytest.raises(Exception, match="null value"):
        async with units(TenantScope(tenant_id)) as uow:
            row = invitation(tenant_id, uow)
            row.token_hash = None  # type: ignore[assignment]
            uow.session.add(row)
            uow.record(Said(tenant_id=tenant_id, text="never"))

    assert ears.events == []
    assert await EventLog(engine).states([tenant_id]) == {}


async def test_numbers_have_no_holes_and_follow_commit_order_under_contention(engine: AsyncEngine) -> None:
    """Many writers, some of which fail at the last moment; every reader sees a contiguous prefix at every moment."""
    units = spine(engine, Ears())
    tenant_id = await new_tenant(engine)
    event_log = EventLog(engine)
    dice = Random(7)
    done = False

    async def write(number: int, *, fail: bool, delay_s: float) -> None:
        async with units(TenantScope(tenant_id)) as uow:
            uow.record(Said(tenant_id=tenant_id, text=str(number)))
            await asyncio.sleep(delay_s)
            if fail:
                raise Trouble

    async def read() -> None:
        seen = 0
        while not done:
            for event in await event_log.read_after(tenant_id, seen, limit=1000):
                assert event.seq == seen + 1, "a later number became visible before an earlier one"
                seen = event.seq
            await asyncio.sleep(0)

    reader = asyncio.create_task(read())
    writers = [write(n, fail=n % 5 == 0, delay_s=dice.random() / 50) for n in range(60)]
    results = await asyncio.gather(*writers, return_exceptions=True)
    done = True
    await reader

    assert sum(isinstance(result, Trouble) for result in results) == 12
    numbers = [event.seq for event in await event_log.read_after(tenant_id, 0, limit=1000)]
    assert numbers == list(range(1, 49))


async def test_two_tenants_in_one_unit_do_not_deadlock(engine: AsyncEngine) -> None:
    units = spine(engine, Ears())
    first, second = await new_tenant(engine), await new_tenant(engine)

    async def write(*tenants) -> None:
        async with units(PLATFORM) as uow:
            for tenant_id in tenants:
                uow.record(Said(tenant_id=tenant_id, text="both"))

    await asyncio.gather(*(write(*pair) for pair in [(first, second), (second, first)] * 10))
    states = await EventLog(engine).states([first, second])
    assert {tenant_id: state.head for tenant_id, state in states.items()} == {first: 20, second: 20}


class TestTenantScope:
    """The first wall, with the second one down, which would hide the same rows."""

    async def test_reads_only_its_own_rows(self, engine: AsyncEngine) -> None:
        units = walled(engine, first=True, second=False)
        mine, theirs = await new_tenant(engine), await new_tenant(engine)
        for tenant_id in (mine, theirs):
            async with units(TenantScope(tenant_id)) as uow:
                uow.session.add(invitation(tenant_id, uow))

        async with units(TenantScope(mine)) as uow:
            rows = (await uow.session.scalars(select(Invitation))).all()
            assert {row.tenant_id for row in rows} == {mine}
            aimed = select(Invitation).where(Invitation.tenant_id == theirs)
            assert (await uow.session.scalars(aimed)).all() == []
        async with units(PLATFORM) as uow:
            both = select(Invitation).where(Invitation.tenant_id.in_([mine, theirs]))
            assert len((await uow.session.scalars(both)).all()) == 2

    async def test_gets_no_foreign_row_by_its_key(self, engine: AsyncEngine) -> None:
        units = walled(engine, first=True, second=False)
        mine, theirs = await new_tenant(engine), await new_tenant(engine)
        async with units(TenantScope(theirs)) as uow:
            row = invitation(theirs, uow)
            uow.session.add(row)
        async with units(TenantScope(mine)) as uow:
            assert await uow.session.get(Invitation, row.id) is None

    async def test_updates_and_deletes_only_its_own_rows(self, engine: AsyncEngine) -> None:
        units = walled(engine, first=True, second=False)
        mine, theirs = await new_tenant(engine), await new_tenant(engine)
        async with units(TenantScope(theirs)) as uow:
            uow.session.add(invitation(theirs, uow))
        async with units(TenantScope(mine)) as uow:
            await uow.session.execute(update(Invitation).values(email="taken@example.org"))
            await uow.session.execute(delete(Invitation))
        async with units(TenantScope(theirs)) as uow:
            row = (await uow.session.scalars(select(Invitation))).one()
            assert row.email != "taken@example.org"

    async def test_writes_no_foreign_row(self, engine: AsyncEngine) -> None:
        units = walled(engine, first=True, second=False)
        mine, theirs = await new_tenant(engine), await new_tenant(engine)
        with pytest.raises(ForeignTenant):
            async with units(TenantScope(mine)) as uow:
                uow.session.add(invitation(theirs, uow))

    async def test_leaves_rows_of_nobody_alone(self, engine: AsyncEngine) -> None:
        units = walled(engine, first=True, second=False)
        async with units(TenantScope(await new_tenant(engine))) as uow:
            await uow.session.execute(select(Plan))

    async def test_a_session_without_a_scope_is_refused(self, engine: AsyncEngine) -> None:
        sessions = async_sessionmaker(engine, class_=AsyncSession)
        guard_tenants(sessions)
        async with sessions() as session:
            with pytest.raises(TenantScopeMissing):
                await session.execute(select(Invitation))


async def test_the_log_keeps_money_exact(engine: AsyncEngine) -> None:
    ears = Ears()
    units = spine(engine, ears)
    tenant_id = await new_tenant(engine)
    async with units(TenantScope(tenant_id)) as uow:
        uow.record(Said(tenant_id=tenant_id, text="paid", amount=Decimal("99.00")))
    (stored,) = await EventLog(engine).read_after(tenant_id, 0, limit=10)
    assert str(stored.payload["amount"]) == "99.00"
    assert stored.payload == ears.events[0].payload, "a live and a replayed event must be the same"
