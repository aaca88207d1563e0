"""Followers: in number order, each event once, whatever the bells do."""

import asyncio
from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncEngine

from models.events import LoggedEvent
from realtime import follower as follower_module
from realtime.follower import Follower
from realtime.log import EventLog, NumberedEvent
from services.unit_of_work import TenantScope
from tests.support.spine import Ears, Said, new_tenant, spine


class Instance:
    """A follower with one tenant's sockets, and what it delivered."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.delivered: list[NumberedEvent] = []
        self.fail_once = False
        self.follower = Follower(EventLog(engine), self._deliver)

    async def _deliver(self, event: NumberedEvent) -> None:
        await asyncio.sleep(0)
        if self.fail_once:
            self.fail_once = False
            raise ConnectionError("a socket broke in a way nobody foresaw")
        self.delivered.append(event)

    @property
    def numbers(self) -> list[int]:
        return [event.seq for event in self.delivered]

    async def settles_at(self, head: int) -> None:
        await until(lambda: bool(self.numbers) and self.numbers[-1] >= head)


async def until(true: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.005)


async def write(engine: AsyncEngine, tenant_id: UUID, count: int) -> list[NumberedEvent]:
    ears = Ears()
    async with spine(engine, ears)(TenantScope(tenant_id)) as uow:
        for number in range(count):
            uow.record(Said(tenant_id=tenant_id, text=str(number)))
    return ears.events


@pytest.fixture
async def instance(engine: AsyncEngine):
    instance = Instance(engine)
    yield instance
    await instance.follower.close()


async def test_delivers_what_bells_bring(engine: AsyncEngine, instance: Instance) -> None:
    tenant_id = await new_tenant(engine)
    await instance.follower.join(tenant_id)
    events = await write(engine, tenant_id, 3)
    instance.follower.hear(tenant_id, 3, events)
    await instance.settles_at(3)
    assert instance.delivered == events


async def test_starts_at_the_head(engine: AsyncEngine, instance: Instance) -> None:
    tenant_id = await new_tenant(engine)
    await write(engine, tenant_id, 4)
    await instance.follower.join(tenant_id)
    await write(engine, tenant_id, 2)
    await instance.follower.check_heads()
    await instance.settles_at(6)
    assert instance.numbers == [5, 6]


async def test_a_bell_rung_twice_delivers_once(engine: AsyncEngine, instance: Instance) -> None:
    tenant_id = await new_tenant(engine)
    await instance.follower.join(tenant_id)
    events = await write(engine, tenant_id, 2)
    for _ in range(3):
        instance.follower.hear(tenant_id, 2, events)
    await instance.settles_at(2)
    instance.follower.hear(tenant_id, 2, events)
    await instance.follower.check_heads()
    await asyncio.sleep(0.05)
    assert instance.numbers == [1, 2]


async def test_a_lost_bell_is_repaired_from_the_log(engine: AsyncEngine, instance: Instance) -> None:
    tenant_id = await new_tenant(engine)
    await instance.follower.join(tenant_id)
    await write(engine, tenant_id, 2)
    later = await write(engine, tenant_id, 1)
    instance.follower.hear(tenant_id, 3, later)
    await instance.settles_at(3)
    assert instance.numbers == [1, 2, 3]


async def test_bells_out_of_order_deliver_in_order(engine: AsyncEngine, instance: Instance) -> None:
    tenant_id = await new_tenant(engine)
    await instance.follower.join(tenant_id)
    batches = [await write(engine, tenant_id, 2) for _ in range(5)]
    for batch in reversed(batches):
        instance.follower.hear(tenant_id, batch[-1].seq, batch)
    await instance.settles_at(10)
    assert instance.numbers == list(range(1, 11))


async def test_no_bell_at_all_is_repaired_by_the_head_check(engine: AsyncEngine, instance: Instance) -> None:
    tenant_id = await new_tenant(engine)
    await instance.follower.join(tenant_id)
    checking = asyncio.create_task(instance.follower.run(lambda: 0.02))
    await write(engine, tenant_id, 600)
    await instance.settles_at(600)
    checking.cancel()
    assert instance.numbers == list(range(1, 601)), "more than one page of the log was to be read"


async def test_what_is_held_back_for_a_gap_is_bounded(
    engine: AsyncEngine, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "_HELD_LIMIT", 3)
    tenant_id = await new_tenant(engine)
    await instance.follower.join(tenant_id)
    stream = instance.follower._streams[tenant_id]
    events = [await write(engine, tenant_id, 1) for _ in range(12)]
    for batch in events[1:]:
        # Heard while nothing is delivered, as behind a database that is slow to fill the gap.
        stream.hear(batch[-1].seq, batch)
        assert len(stream.held) <= 4
    await instance.follower.check_heads()
    await instance.settles_at(12)
    assert instance.numbers == list(range(1, 13))


async def test_a_head_without_events_behind_it_waits(engine: AsyncEngine, instance: Instance) -> None:
    tenant_id = await new_tenant(engine)
    await instance.follower.join(tenant_id)
    instance.follower.hear(tenant_id, 5)
    await asyncio.sleep(0.05)
    assert instance.numbers == []
    await write(engine, tenant_id, 5)
    await instance.follower.check_heads()
    await instance.settles_at(5)
    assert instance.numbers == [1, 2, 3, 4, 5]


async def test_a_returning_bell_has_the_heads_checked_at_once(engine: AsyncEngine, instance: Instance) -> None:
    tenant_id = await new_tenant(engine)
    await instance.follower.join(tenant_id)
    checking = asyncio.create_task(instance.follower.run(lambda: 3600))
    await write(engine, tenant_id, 2)
    instance.follower.look_now()
    await instance.settles_at(2)
    checking.cancel()


async def test_a_failed_delivery_is_taken_up_again(engine: AsyncEngine, instance: Instance) -> None:
    tenant_id = await new_tenant(engine)
    await instance.follower.join(tenant_id)
    instance.fail_once = True
    events = await write(engine, tenant_id, 3)
    instance.follower.hear(tenant_id, 3, events)
    await until(lambda: not instance.fail_once)
    await instance.follower.check_heads()
    await instance.settles_at(3)
    assert instance.numbers == [1, 2, 3]


async def test_tenants_without_sockets_are_not_followed(engine: AsyncEngine, instance: Instance) -> None:
    tenant_id = await new_tenant(engine)
    await instance.follower.join(tenant_id)
    await instance.follower.join(tenant_id)
    instance.follower.leave(tenant_id)
    instance.follower.hear(tenant_id, 1, await write(engine, tenant_id, 1))
    await instance.settles_at(1)
    instance.follower.leave(tenant_id)
    instance.follower.hear(tenant_id, 2, await write(engine, tenant_id, 1))
    await instance.follower.check_heads()
    await asyncio.sleep(0.05)
    assert instance.numbers == [1]
    instance.follower.leave(tenant_id)


async def test_events_committed_while_joining_are_not_lost(engine: AsyncEngine, instance: Instance) -> None:
    tenant_id = await new_tenant(engine)
    writing = asyncio.create_task(write(engine, tenant_id, 5))
    await asyncio.gather(*(instance.follower.join(tenant_id) for _ in range(10)))
    placed_at = instance.follower._streams[tenant_id].cursor
    events = await writing
    instance.follower.hear(tenant_id, 5, events)
    await until(lambda: placed_at == 5 or bool(instance.numbers and instance.numbers[-1] == 5))
    assert instance.numbers == list(range(placed_at + 1, 6))


async def test_a_database_that_is_away_fails_the_join_and_not_the_next_one(engine: AsyncEngine) -> None:
    class BrokenLog(EventLog):
        broken = True

        async def heads(self, tenant_ids):
            await asyncio.sleep(0.01)
            if self.broken:
                self.broken = False
                raise ConnectionError
            return await super().heads(tenant_ids)

    tenant_id = await new_tenant(engine)
    follower = Follower(BrokenLog(engine), lambda event: asyncio.sleep(0))
    results = await asyncio.gather(*(follower.join(tenant_id) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [ConnectionError, type(None), type(None)]
    assert follower._streams[tenant_id].sockets == 2
    await follower.close()


async def test_head_checks_outlive_a_database_fault(engine: AsyncEngine, instance: Instance, monkeypatch) -> None:
    tenant_id = await new_tenant(engine)
    await instance.follower.join(tenant_id)
    real, calls = instance.follower._log.heads, 0

    async def flaky(tenant_ids):
        nonlocal calls
        calls += 1
        if calls <= 2:
            raise OSError("connection refused")
        return await real(tenant_ids)

    monkeypatch.setattr(instance.follower._log, "heads", flaky)
    checking = asyncio.create_task(instance.follower.run(lambda: 0.01))
    await write(engine, tenant_id, 1)
    await instance.settles_at(1)
    checking.cancel()
    assert calls >= 3


async def test_events_pruned_before_delivery_do_not_stop_the_stream(engine: AsyncEngine, instance: Instance) -> None:
    tenant_id = await new_tenant(engine)
    await instance.follower.join(tenant_id)
    await write(engine, tenant_id, 4)
    async with engine.begin() as connection:
        await connection.execute(delete(LoggedEvent).where(LoggedEvent.tenant_id == tenant_id, LoggedEvent.seq <= 2))
    await instance.follower.check_heads()
    await instance.settles_at(4)
    assert instance.numbers == [3, 4]
