"""Where a follower stands: what is lost and told so, what is at hand, and whose turn it is."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from realtime import follower as follower_module
from realtime.log import EventLog
from tests.realtime.following import Instance, restore, write
from tests.support.spine import new_tenant
from tests.support.waiting import until


class TestLosses:
    """What the log cannot tell any more is told as lost, and delivery goes on behind it."""

    async def test_events_pruned_before_delivery_do_not_stop_the_stream(
        self, engine: AsyncEngine, instance: Instance
    ) -> None:
        tenant_id = await new_tenant(engine)
        await instance.follower.join(tenant_id)
        await write(engine, tenant_id, 4)
        await EventLog(engine).prune(before=datetime.now(UTC) - timedelta(days=9999), keep_count=2)
        await instance.follower.check_heads()
        await instance.settles_at(4)
        assert instance.numbers == [3, 4]
        assert instance.lost == [(tenant_id, "pruned")]
        assert instance.follower.state(tenant_id).floor == 2

    async def test_pruning_what_was_delivered_is_no_loss(self, engine: AsyncEngine, instance: Instance) -> None:
        tenant_id = await new_tenant(engine)
        await instance.follower.join(tenant_id)
        instance.follower.hear(tenant_id, 4, await write(engine, tenant_id, 4))
        await instance.settles_at(4)
        await EventLog(engine).prune(before=datetime.now(UTC) - timedelta(days=9999), keep_count=2)
        await instance.follower.check_heads()
        assert (instance.follower.state(tenant_id).floor, instance.lost) == (2, [])

    @pytest.mark.parametrize("head", [2, 4, 9], ids=["behind", "level", "ahead"])
    async def test_a_restored_log_begins_a_new_epoch(self, engine: AsyncEngine, instance: Instance, head: int) -> None:
        tenant_id = await new_tenant(engine)
        await instance.follower.join(tenant_id)
        instance.follower.hear(tenant_id, 4, await write(engine, tenant_id, 4))
        await instance.settles_at(4)
        before = instance.follower.state(tenant_id).epoch
        await restore(engine, tenant_id, head)
        await instance.follower.check_heads()
        assert instance.lost == [(tenant_id, "epoch")]
        state = instance.follower.state(tenant_id)
        assert state.head == head
        assert state.epoch not in ("", before)
        assert instance.follower.recent(tenant_id, 0) is None, "what was delivered before belongs to no position of now"
        instance.follower.hear(tenant_id, head + 1, await write(engine, tenant_id, 1))
        await instance.settles_at(head + 1 if head >= 4 else 4)
        await until(lambda: instance.follower.state(tenant_id).head == head + 1)
        assert instance.numbers == [1, 2, 3, 4, head + 1]
        assert instance.epochs == {before, state.epoch}

    async def test_a_log_that_was_put_back_in_place_is_noticed_too(
        self, engine: AsyncEngine, instance: Instance
    ) -> None:
        """A dump that is read back into the same server has the same epoch, but a lower head."""
        tenant_id = await new_tenant(engine)
        await instance.follower.join(tenant_id)
        instance.follower.hear(tenant_id, 4, await write(engine, tenant_id, 4))
        await instance.settles_at(4)
        epoch = await restore(engine, tenant_id, 2, same_epoch=True)
        await instance.follower.check_heads()
        assert instance.lost == [(tenant_id, "epoch")]
        state = instance.follower.state(tenant_id)
        assert (state.epoch, state.head) == (epoch, 2)
        instance.follower.hear(tenant_id, 3, await write(engine, tenant_id, 1))
        await until(lambda: len(instance.numbers) == 5)
        assert instance.numbers == [1, 2, 3, 4, 3]

    async def test_a_new_stream_learns_its_epoch_before_it_delivers(
        self, engine: AsyncEngine, instance: Instance
    ) -> None:
        tenant_id = await new_tenant(engine)
        await instance.follower.join(tenant_id)
        assert instance.follower.state(tenant_id).epoch == ""
        instance.follower.hear(tenant_id, 1, await write(engine, tenant_id, 1))
        await instance.settles_at(1)
        state = (await EventLog(engine).states([tenant_id]))[tenant_id]
        assert instance.epochs == {state.epoch}
        assert instance.follower.state(tenant_id) == state
        await instance.follower.check_heads()
        assert instance.lost == []


class TestCatchUp:
    """A client may have heard, from another instance, of more than this one has."""

    async def test_delivers_what_no_bell_has_told(self, engine: AsyncEngine, instance: Instance) -> None:
        tenant_id = await new_tenant(engine)
        await instance.follower.join(tenant_id)
        await write(engine, tenant_id, 700)
        await instance.follower.catch_up(tenant_id, 650)
        assert instance.follower.state(tenant_id).head >= 650
        assert instance.numbers == list(range(1, len(instance.numbers) + 1))

    async def test_does_not_wait_for_what_is_not_there(self, engine: AsyncEngine, instance: Instance) -> None:
        tenant_id, silent = await new_tenant(engine), await new_tenant(engine)
        for follow in (tenant_id, silent):
            await instance.follower.join(follow)
        await write(engine, tenant_id, 2)
        async with asyncio.timeout(5):
            await instance.follower.catch_up(tenant_id, 10**12)
            await instance.follower.catch_up(silent, 5)
            await instance.follower.catch_up(await new_tenant(engine), 5)
        assert instance.numbers == [1, 2]


class TestRecent:
    """The newest events are at hand for those who come back, or nothing is: never a part."""

    async def test_is_whole_above_a_place_or_not_there(
        self, engine: AsyncEngine, instance: Instance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(follower_module, "_RECENT_COUNT", 5)
        tenant_id = await new_tenant(engine)
        await instance.follower.join(tenant_id)
        assert instance.follower.recent(tenant_id, 0) is None
        events = await write(engine, tenant_id, 8)
        instance.follower.hear(tenant_id, 8, events)
        await instance.settles_at(8)
        assert instance.follower.recent(tenant_id, 2) is None
        assert instance.follower.recent(tenant_id, 3) == events[3:]
        assert instance.follower.recent(tenant_id, 6) == events[6:]
        assert instance.follower.recent(tenant_id, 8) == []
        assert instance.follower.recent(await new_tenant(engine), 0) is None

    async def test_is_forgotten_in_time(
        self, engine: AsyncEngine, instance: Instance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(follower_module, "_RECENT_S", 0.0)
        tenant_id = await new_tenant(engine)
        await instance.follower.join(tenant_id)
        instance.follower.hear(tenant_id, 3, await write(engine, tenant_id, 3))
        await instance.settles_at(3)
        running = asyncio.create_task(instance.follower.run(lambda: 0.01))
        await until(lambda: instance.follower.recent(tenant_id, 0) is None)
        running.cancel()


class TestFairness:
    async def test_a_busy_tenant_delays_another_by_one_quantum_only(
        self, engine: AsyncEngine, instance: Instance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(follower_module, "_QUANTUM", 100)
        instance.packets = 9
        busy, quiet = await new_tenant(engine), await new_tenant(engine)
        for tenant_id in (busy, quiet):
            # With an epoch that is known, nothing but the quantum makes either of them wait.
            await write(engine, tenant_id, 1)
            await instance.follower.join(tenant_id)
        many, few = await write(engine, busy, 400), await write(engine, quiet, 2)
        instance.follower.hear(busy, 401, many)
        instance.follower.hear(quiet, 3, few)
        await until(lambda: len(instance.delivered) >= 402)
        order = [event.tenant_id for event in instance.delivered]
        assert order.index(quiet) <= 10, "one quantum of the busy tenant went before"
        assert order.count(busy) == 400

    async def test_both_go_on_in_turns(
        self, engine: AsyncEngine, instance: Instance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(follower_module, "_QUANTUM", 20)
        tenants = [await new_tenant(engine) for _ in range(2)]
        heard = []
        for tenant_id in tenants:
            await write(engine, tenant_id, 1)
            await instance.follower.join(tenant_id)
            heard.append(await write(engine, tenant_id, 100))
        for tenant_id, events in zip(tenants, heard, strict=True):
            instance.follower.hear(tenant_id, 101, events)
        await until(lambda: len(instance.delivered) == 200)
        first_half = [event.tenant_id for event in instance.delivered[:100]]
        assert all(first_half.count(tenant_id) == 50 for tenant_id in tenants)
