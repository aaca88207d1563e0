"""The log read back: states, what has moved, and what one reader is owed, against a real database."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from realtime import log as log_module
from realtime.log import NO_EVENTS, EventLog, StreamState
from server.isolation import as_owner
from tests.realtime.following import write
from tests.support.spine import everything, new_tenant

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


async def test_a_stream_tells_its_state(engine: AsyncEngine) -> None:
    tenant_id = await new_tenant(engine)
    await write(engine, tenant_id, 5)
    states = await EventLog(engine).states([tenant_id, uuid4()])
    assert set(states) == {tenant_id}
    assert (states[tenant_id].floor, states[tenant_id].head) == (0, 5)
    assert len(states[tenant_id].epoch) == 10


async def test_only_what_has_moved_is_told(engine: AsyncEngine) -> None:
    log = EventLog(engine)
    still, moved = await new_tenant(engine), await new_tenant(engine)
    await write(engine, still, 1)
    await write(engine, moved, 1)
    known = await log.states([still, moved])
    known[uuid4()] = NO_EVENTS
    assert await log.moved(known) == {}
    await write(engine, moved, 2)
    assert {tenant_id: state.head for tenant_id, state in (await log.moved(known)).items()} == {moved: 3}
    known[still] = StreamState(epoch="another", floor=0, head=1)
    assert set(await log.moved(known)) == {still, moved}


async def test_the_epoch_is_that_of_this_database_and_this_row(engine: AsyncEngine) -> None:
    log = EventLog(engine)
    tenant_id = await new_tenant(engine)
    await write(engine, tenant_id, 1)
    before = (await log.states([tenant_id]))[tenant_id].epoch
    assert (await log.states([tenant_id]))[tenant_id].epoch == before
    async with everything(engine) as connection:
        await connection.execute(
            text("UPDATE event_streams SET epoch = 'restored' WHERE tenant_id = :id"), {"id": tenant_id}
        )
    assert (await log.states([tenant_id]))[tenant_id].epoch != before


async def test_a_reader_gets_what_it_is_owed(engine: AsyncEngine) -> None:
    log = EventLog(engine)
    tenant_id = await new_tenant(engine)
    events = await write(engine, tenant_id, 6)
    room = events[0].room
    tail = await log.read_tail(tenant_id, after=1, upto=5, rooms=[room, "another"], namespace=None, limit=3)
    assert tail.events == events[1:4]
    assert tail.state == (await log.states([tenant_id]))[tenant_id]
    whole = await log.read_tail(tenant_id, after=0, upto=None, rooms=[room], namespace="/notifications", limit=100)
    assert whole.events == events


async def test_a_reader_of_other_rooms_or_namespaces_gets_nothing_but_the_state(engine: AsyncEngine) -> None:
    log = EventLog(engine)
    tenant_id = await new_tenant(engine)
    room = (await write(engine, tenant_id, 2))[0].room
    for rooms, namespace in (([], None), (["another"], None), ([room], "/billing")):
        tail = await log.read_tail(tenant_id, after=0, upto=None, rooms=rooms, namespace=namespace, limit=100)
        assert (tail.events, tail.state.head) == ([], 2)
    nobody = await log.read_tail(uuid4(), after=0, upto=None, rooms=[room], namespace=None, limit=100)
    assert (list(nobody.events), nobody.state) == ([], NO_EVENTS)


async def test_an_ordinary_role_may_read_what_the_epoch_is_made_of(engine: AsyncEngine) -> None:
    async with as_owner(engine) as connection, connection.begin():
        await connection.execute(text("CREATE ROLE log_reader_test NOSUPERUSER"))
        await connection.execute(text("SET LOCAL ROLE log_reader_test"))
        statement = "SELECT system_identifier, pg_walfile_name(pg_current_wal_lsn()) FROM pg_control_system()"
        identifier, walfile = (await connection.execute(text(statement))).one()
        assert identifier
        assert len(walfile) == 24
        await connection.execute(text("RESET ROLE"))
        await connection.execute(text("DROP ROLE log_reader_test"))


async def test_what_a_reader_is_owed_is_counted_up_to_a_limit(engine: AsyncEngine) -> None:
    log = EventLog(engine)
    tenant_id = await new_tenant(engine)
    room = (await write(engine, tenant_id, 6))[0].room
    await write(engine, await new_tenant(engine), 6)

    async def count(*, after: int = 0, rooms: tuple[str, ...] = (room,), namespace: str | None = None, limit: int = 99):
        return await log.count_owed(tenant_id, after=after, rooms=rooms, namespace=namespace, limit=limit)

    assert await count() == 6
    assert await count(after=2, rooms=("another", room), namespace="/notifications") == 4
    assert await count(after=6) == 0
    assert await count(limit=3) == 3
    assert await count(rooms=("another",)) == 0
    assert await count(namespace="/billing") == 0


async def test_what_was_written_since_a_moment_is_read(engine: AsyncEngine) -> None:
    log = EventLog(engine)
    tenant_id = await new_tenant(engine)
    events = await write(engine, tenant_id, 4)
    await age(engine, tenant_id, 2)
    assert await log.read_since(tenant_id, LONG_AGO + timedelta(days=9)) == events[2:]
    assert [event.seq for event in await log.read_since(tenant_id, LONG_AGO - timedelta(days=9))] == [1, 2, 3, 4]
    assert await log.read_since(tenant_id, datetime.now(UTC) + timedelta(hours=1)) == []
    assert await log.read_since(uuid4(), LONG_AGO) == []


class TestPruning:
    """The log forgets by age and by count, and whoever reads can tell."""

    async def numbers(self, engine: AsyncEngine, tenant_id: UUID) -> list[int]:
        return [event.seq for event in await EventLog(engine).read_after(tenant_id, 0, limit=10_000)]

    async def test_by_age(self, engine: AsyncEngine) -> None:
        log = EventLog(engine)
        tenant_id = await new_tenant(engine)
        await write(engine, tenant_id, 6)
        await age(engine, tenant_id, 4)
        await log.prune(before=LONG_AGO - timedelta(days=9), keep_count=1_000_000)
        assert await self.numbers(engine, tenant_id) == [1, 2, 3, 4, 5, 6]
        # Streams of other tests are as old as theirs.
        assert await log.prune(before=LONG_AGO + timedelta(days=9), keep_count=1_000_000) >= 4
        assert await self.numbers(engine, tenant_id) == [5, 6]
        state = (await log.states([tenant_id]))[tenant_id]
        assert (state.floor, state.head) == (4, 6)

    async def test_by_count(self, engine: AsyncEngine) -> None:
        log = EventLog(engine)
        busy, quiet = await new_tenant(engine), await new_tenant(engine)
        await write(engine, busy, 8)
        await write(engine, quiet, 3)
        await log.prune(before=LONG_AGO, keep_count=3)
        assert await self.numbers(engine, busy) == [6, 7, 8]
        assert await self.numbers(engine, quiet) == [1, 2, 3]
        assert {key: state.floor for key, state in (await log.states([busy, quiet])).items()} == {busy: 5, quiet: 0}
        await write(engine, busy, 1)
        assert await self.numbers(engine, busy) == [6, 7, 8, 9], "numbers go on, and are given once"

    async def test_what_is_younger_behind_something_old_goes_with_it(self, engine: AsyncEngine) -> None:
        """Numbers are given in the order of commits, not of clocks; what is left has no hole."""
        tenant_id = await new_tenant(engine)
        await write(engine, tenant_id, 4)
        async with everything(engine) as connection:
            await connection.execute(
                text("UPDATE events SET created_at = :at WHERE tenant_id = :id AND seq = 3"),
                {"at": LONG_AGO, "id": tenant_id},
            )
        await EventLog(engine).prune(before=LONG_AGO + timedelta(days=9), keep_count=1_000_000)
        assert await self.numbers(engine, tenant_id) == [4]

    async def test_in_small_steps_and_twice_does_no_harm(
        self, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(log_module, "_PRUNE_STEP", 10)
        log = EventLog(engine)
        tenant_id = await new_tenant(engine)
        await write(engine, tenant_id, 95)
        pruned = await asyncio.gather(*(log.prune(before=LONG_AGO, keep_count=20) for _ in range(3)))
        assert sum(pruned) >= 75
        assert await self.numbers(engine, tenant_id) == list(range(76, 96))
        assert (await log.states([tenant_id]))[tenant_id].floor == 75

    async def test_a_reader_never_takes_what_is_left_for_the_whole(
        self, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However reading and pruning meet: a tail is whole from where it was asked for, or its floor tells."""
        monkeypatch.setattr(log_module, "_PRUNE_STEP", 5)
        log = EventLog(engine)
        tenant_id = await new_tenant(engine)
        room = (await write(engine, tenant_id, 400))[0].room
        pruning = asyncio.create_task(log.prune(before=LONG_AGO, keep_count=50))
        seen: set[bool] = set()
        while not pruning.done() or len(seen) < 2:
            for after in (0, 100, 300):
                tail = await log.read_tail(tenant_id, after=after, upto=None, rooms=[room], namespace=None, limit=1_000)
                whole = [event.seq for event in tail.events] == list(range(after + 1, 401))
                assert whole == (tail.state.floor <= after)
                seen.add(whole)


async def age(engine: AsyncEngine, tenant_id: UUID, upto: int) -> None:
    """Make the first events of a stream old."""
    async with everything(engine) as connection:
        await connection.execute(
            text("UPDATE events SET created_at = :at WHERE tenant_id = :id AND seq <= :upto"),
            {"at": LONG_AGO, "id": tenant_id, "upto": upto},
        )
