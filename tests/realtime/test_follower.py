"""Followers: in number order, each event once, whatever the bells do."""

import asyncio

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from realtime import follower as follower_module
from realtime.follower import Follower
from realtime.log import EventLog
from realtime.meter import Meter
from tests.realtime.following import Instance, SlowLog, write
from tests.support.spine import new_tenant
from tests.support.waiting import until


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
        stream.hear(batch[-1].seq, batch, 0.0)
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


async def test_a_stream_is_followed_for_a_while_after_its_last_socket_has_gone(
    engine: AsyncEngine, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most sockets come back, and find then the place and what they missed."""
    monkeypatch.setattr(follower_module, "_LINGER_S", 0.3)
    follower, told = instance.follower, []
    follower.on_follow.append(lambda tenant_id: told.append(("follow", tenant_id)))
    follower.on_unfollow.append(lambda tenant_id: told.append(("unfollow", tenant_id)))
    tenant_id = await new_tenant(engine)
    await follower.join(tenant_id)
    await follower.join(tenant_id)
    running = asyncio.create_task(follower.run(lambda: 0.01))
    follower.leave(tenant_id)
    follower.leave(tenant_id)
    await write(engine, tenant_id, 1)
    await instance.settles_at(1)
    await follower.join(tenant_id)
    assert [event.seq for event in follower.recent(tenant_id, 0) or ()] == [1]
    follower.leave(tenant_id)
    await until(lambda: follower.followed == 0)
    assert told == [("follow", tenant_id), ("unfollow", tenant_id)]
    events = await write(engine, tenant_id, 1)
    follower.hear(tenant_id, 2, events)
    await follower.check_heads()
    assert instance.numbers == [1]
    assert follower.recent(tenant_id, 0) is None
    follower.leave(tenant_id)
    await follower.join(tenant_id)
    assert follower.state(tenant_id).head == 2, "joined again, it starts at the head"
    running.cancel()


async def test_a_tenant_with_sockets_is_followed_however_long(
    engine: AsyncEngine, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "_LINGER_S", 0.0)
    staying, leaving = await new_tenant(engine), await new_tenant(engine)
    for tenant_id in (staying, leaving):
        await instance.follower.join(tenant_id)
    await instance.follower.join(staying)
    instance.follower.leave(staying)
    instance.follower.leave(leaving)
    running = asyncio.create_task(instance.follower.run(lambda: 0.01))
    await until(lambda: instance.follower.followed == 1)
    await write(engine, staying, 1)
    await instance.settles_at(1)
    running.cancel()


async def test_what_was_being_delivered_to_those_who_left_is_not_delivered_to_those_who_come(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "_LINGER_S", 0.0)
    log = SlowLog(engine)
    instance = Instance(log)
    tenant_id = await new_tenant(engine)
    await instance.follower.join(tenant_id)
    await write(engine, tenant_id, 3)
    instance.follower.hear(tenant_id, 3)
    await until(lambda: log.asked)
    instance.follower.leave(tenant_id)
    running = asyncio.create_task(instance.follower.run(lambda: 0.01))
    await until(lambda: instance.follower.followed == 0)
    running.cancel()
    await instance.follower.join(tenant_id)
    assert instance.follower.state(tenant_id).head == 3
    log.gate.set()
    instance.follower.hear(tenant_id, 4, await write(engine, tenant_id, 1))
    await instance.settles_at(4)
    assert instance.numbers == [4]
    await instance.follower.close()


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

        async def states(self, tenant_ids):
            await asyncio.sleep(0.01)
            if self.broken:
                self.broken = False
                raise ConnectionError
            return await super().states(tenant_ids)

    tenant_id = await new_tenant(engine)
    follower = Follower(BrokenLog(engine), meter=Meter())
    results = await asyncio.gather(*(follower.join(tenant_id) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [ConnectionError, type(None), type(None)]
    assert follower._streams[tenant_id].sockets == 2
    await follower.close()


async def test_head_checks_outlive_a_database_fault(
    engine: AsyncEngine, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant_id = await new_tenant(engine)
    await instance.follower.join(tenant_id)
    real, calls = instance.follower._log.moved, 0

    async def flaky(known):
        nonlocal calls
        calls += 1
        if calls <= 2:
            raise OSError("connection refused")
        return await real(known)

    monkeypatch.setattr(instance.follower._log, "moved", flaky)
    checking = asyncio.create_task(instance.follower.run(lambda: 0.01))
    await write(engine, tenant_id, 1)
    await instance.settles_at(1)
    checking.cancel()
    assert calls >= 3


async def test_the_age_of_the_last_look_is_known(engine: AsyncEngine, instance: Instance) -> None:
    assert instance.follower.check_age_s() == float("inf")
    await instance.follower.check_heads()
    assert 0 <= instance.follower.check_age_s() < 5
