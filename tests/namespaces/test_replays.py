"""Replays: whole up to the promised size, told as lost beyond it, and in order whatever happens meanwhile."""

import asyncio
from typing import Any

import pytest
from aiohttp import ClientSession

from namespaces import recovery
from realtime.log import EventLog
from realtime.rooms import member_room
from tests.namespaces.conftest import sign_in
from tests.namespaces.deploying import fill, forget, pay, paying, rename_epoch, state_of
from tests.namespaces.resuming import Enter, goes_on, reset_of
from tests.namespaces.wire import Wire
from tests.support.people import Person, address, request
from tests.support.running import Orchestrator


class TestLimits:
    async def test_exactly_as_many_as_are_promised_come_whole(
        self, orchestrator: Orchestrator, owner: Person, enter: Enter
    ) -> None:
        head = (await state_of(orchestrator, owner.tenant_id)).head
        await fill(orchestrator, owner.tenant_id, 10_000)
        wire = await enter(last_seq=head)
        await wire.hears(10_000)
        assert wire.numbers == list(range(head + 1, head + 10_001))
        assert wire.of("rt:reset") == []
        await goes_on(orchestrator, owner, wire, before=10_000)

    async def test_one_more_is_too_many(self, orchestrator: Orchestrator, owner: Person, enter: Enter) -> None:
        first = await enter(recovery=True)
        await first.until(lambda: first.of("rt:pos"))
        await first.drop()
        await fill(orchestrator, owner.tenant_id, 10_001)
        wire = await enter(recovery=True, pid=(first.answer or {})["pid"], offset=first.position)
        await reset_of(orchestrator, owner, wire, "too_many")
        assert (wire.answer or {})["pid"] != (first.answer or {})["pid"]
        assert wire.numbers == []
        await goes_on(orchestrator, owner, wire)

    async def test_only_what_one_is_owed_counts(
        self, orchestrator: Orchestrator, owner: Person, colleague: Person, enter: Enter
    ) -> None:
        head = (await state_of(orchestrator, owner.tenant_id)).head
        await fill(orchestrator, owner.tenant_id, 10_001, room=member_room(colleague.tenant_id, colleague.user_id))
        await fill(orchestrator, owner.tenant_id, 10_001, namespace="/provisioning")
        numbers = await pay(orchestrator, owner.tenant_id, 3)
        wire = await enter("/billing", last_seq=head)
        await wire.hears(3)
        assert wire.numbers == numbers
        await goes_on(orchestrator, owner, wire, before=3)

    async def test_what_the_log_has_forgotten_is_told_as_such(
        self, orchestrator: Orchestrator, owner: Person, enter: Enter
    ) -> None:
        first = await enter(recovery=True)
        await first.drop()
        numbers = await pay(orchestrator, owner.tenant_id, 4)
        state = await state_of(orchestrator, owner.tenant_id)
        await forget(orchestrator.house.engine, owner.tenant_id, numbers[1])
        await orchestrator.house.follower.check_heads()
        pid = (first.answer or {})["pid"]
        behind = await enter(recovery=True, pid=pid, offset=f"{state.epoch}.{numbers[0]}")
        await reset_of(orchestrator, owner, behind, "pruned")
        assert behind.numbers == []
        at_the_floor = await enter(recovery=True, pid=pid, offset=f"{state.epoch}.{numbers[1]}")
        await at_the_floor.until(lambda: at_the_floor.of("rt:pos"))
        assert at_the_floor.numbers == numbers[2:]
        assert at_the_floor.of("rt:reset") == []
        await at_the_floor.drop()
        await goes_on(orchestrator, owner, behind)

    async def test_what_the_log_forgets_during_a_replay_is_never_passed_over(
        self, orchestrator: Orchestrator, owner: Person, enter: Enter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Half a tail is worse than none: what came is in order, and then the reset."""
        monkeypatch.setattr(recovery, "_PAGE", 5)
        head = (await state_of(orchestrator, owner.tenant_id)).head
        engine = orchestrator.house.engine
        await fill(orchestrator, owner.tenant_id, 20)
        real, pages = EventLog.read_tail, 0

        async def read_tail(log: EventLog, *args: Any, **wanted: Any) -> Any:
            nonlocal pages
            pages += 1
            if pages == 3:
                await forget(engine, owner.tenant_id, head + 15)
            return await real(log, *args, **wanted)

        monkeypatch.setattr(EventLog, "read_tail", read_tail)
        monkeypatch.setattr(orchestrator.house.follower, "recent", lambda *_: None)
        wire = await enter(last_seq=head)
        await reset_of(orchestrator, owner, wire, "pruned")
        assert wire.numbers == list(range(head + 1, head + 11))
        await goes_on(orchestrator, owner, wire, before=10)


class TestReplays:
    async def test_live_events_wait_until_the_replay_is_over(
        self, orchestrator: Orchestrator, owner: Person, enter: Enter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(recovery, "_PAGE", 7)
        head = (await state_of(orchestrator, owner.tenant_id)).head
        await fill(orchestrator, owner.tenant_id, 1_000)
        async with paying(orchestrator, owner.tenant_id):
            wire = await enter(last_seq=head)
            await wire.hears(1_050)
        last = (await state_of(orchestrator, owner.tenant_id)).head
        await wire.until(lambda: wire.numbers[-1] >= last)
        assert wire.numbers == list(range(head + 1, last + 1))
        await wire.drop()

    async def test_a_log_that_is_restored_meanwhile_is_told(
        self, orchestrator: Orchestrator, owner: Person, enter: Enter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Even after the last of the events has been told: they may be none of what the log holds now."""
        head = (await state_of(orchestrator, owner.tenant_id)).head
        await fill(orchestrator, owner.tenant_id, 10)
        real = recovery.Recovery._tell_all

        async def tell_all(this: recovery.Recovery, *args: Any) -> None:
            await real(this, *args)
            await rename_epoch(orchestrator.house.engine, owner.tenant_id)
            await orchestrator.house.follower.check_heads()

        monkeypatch.setattr(recovery.Recovery, "_tell_all", tell_all)
        wire = await enter(last_seq=head)
        await reset_of(orchestrator, owner, wire, "epoch")
        assert wire.numbers == list(range(head + 1, head + 11))
        await goes_on(orchestrator, owner, wire, before=10)

    async def test_a_client_that_drops_in_the_middle_goes_on_where_it_was(
        self, orchestrator: Orchestrator, owner: Person, enter: Enter
    ) -> None:
        wire = await enter(recovery=True)
        await wire.until(lambda: wire.of("rt:pos"))
        head = int(wire.position.split(".")[1])
        await wire.drop()
        await fill(orchestrator, owner.tenant_id, 3_000, size=1_000)
        heard: list[int] = []
        for _ in range(4):
            answer, place = wire.answer or {}, wire.position
            wire = await enter(recovery=True, pid=answer["pid"], offset=place)
            assert wire.answer == answer
            await wire.hears(100)
            wire.pause()
            await wire.drop()
            heard += wire.numbers
        wire = await enter(recovery=True, pid=(wire.answer or {})["pid"], offset=wire.position)
        await wire.until(lambda: wire.of("rt:pos"))
        assert heard + wire.numbers == list(range(head + 1, head + 3_001))
        await goes_on(orchestrator, owner, wire, before=len(wire.numbers))

    async def test_a_client_that_reads_slowly_is_waited_for(
        self, orchestrator: Orchestrator, owner: Person, enter: Enter
    ) -> None:
        """Neither is it cut off, as a slow client in a live room is, nor does its whole tail wait in memory."""
        head = (await state_of(orchestrator, owner.tenant_id)).head
        await fill(orchestrator, owner.tenant_id, 3_000, size=8_000)
        wire = await enter()
        sessions = orchestrator.house.sockets.sio.engine.sessions
        before = set(sessions)
        slow = await enter(last_seq=head)
        (session,) = [sessions[sid] for sid in set(sessions) - before]
        slow.pause()
        most = 0
        for _ in range(100):
            await asyncio.sleep(0.01)
            most = max(most, session.waiting_bytes)
        assert 0 < most < 512 * 1024
        assert await wire.say("ping") == {"ok": True}
        slow.resume()
        await slow.hears(3_000)
        assert slow.numbers == list(range(head + 1, head + 3_001))
        await wire.drop()
        await goes_on(orchestrator, owner, slow, before=3_000)

    async def test_a_log_that_cannot_be_read_for_a_moment_is_read_again(
        self, orchestrator: Orchestrator, owner: Person, enter: Enter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(recovery, "_READ_PAUSE_S", 0.01)
        head = (await state_of(orchestrator, owner.tenant_id)).head
        await fill(orchestrator, owner.tenant_id, 10)
        real, faults = EventLog.read_tail, 3

        async def read_tail(log: EventLog, *args: Any, **wanted: Any) -> Any:
            nonlocal faults
            faults -= 1
            if faults >= 0:
                raise ConnectionError("the database restarts")
            return await real(log, *args, **wanted)

        with monkeypatch.context() as patched:
            patched.setattr(EventLog, "read_tail", read_tail)
            patched.setattr(orchestrator.house.follower, "recent", lambda *_: None)
            wire = await enter(last_seq=head)
            await wire.hears(10)
            assert wire.numbers == list(range(head + 1, head + 11))
            faults = 100
            unlucky = await enter(last_seq=head)
            await unlucky.until(lambda: not unlucky.open)
        assert unlucky.numbers == [], "it comes back and asks again"
        await goes_on(orchestrator, owner, wire, before=10)


async def test_who_is_put_out_while_a_place_is_judged_stays_out(
    orchestrator: Orchestrator, owner: Person, http: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is waited for on the way in, nobody passes whose session has ended meanwhile."""
    monkeypatch.setattr(recovery, "MAX_TAIL", 1)
    numbers = await pay(orchestrator, owner.tenant_id, 3)
    token = await sign_in(owner)
    real, counting, go_on = EventLog.count_owed, asyncio.Event(), asyncio.Event()

    async def count_owed(log: EventLog, *args: Any, **wanted: Any) -> int:
        counting.set()
        await go_on.wait()
        return await real(log, *args, **wanted)

    monkeypatch.setattr(EventLog, "count_owed", count_owed)
    entering = asyncio.create_task(Wire.enter(http, orchestrator.url, token, last_seq=numbers[0] - 1))
    await counting.wait()
    headers = {"Authorization": f"Bearer {token}"}
    assert (await request(http, "POST", address(owner.url, "auth/logout"), headers=headers))[0] == 200
    seats = orchestrator.house.sockets.seats
    async with asyncio.timeout(5):
        while not any(seat.ended for seat in seats.all()):
            await asyncio.sleep(0.01)
    go_on.set()
    wire = await entering
    assert wire.refusal["data"]["code"] == "SESSION_REVOKED"
    assert wire.heard == []
    await wire.drop()
