"""The Python client on a real server: every event of the log once, in order, whatever happens to the connection."""

import asyncio
from typing import Any

import pytest
from erpmax_client import (
    Event,
    OrchestratorClient,
    Position,
    PositionLost,
    RequestRefused,
    Reset,
    Unreachable,
)

from tests.clients.conftest import Log, Wire
from tests.clients.ears import Ear, Memory, listening, tokens_of
from tests.support.running import Orchestrator
from tests.support.waiting import until

# A client knows the server by its doors only, which are the same in both deployments; what several instances add is
# proved in tests/e2e and tests/faults.
pytestmark = pytest.mark.embedded


class TestHandingOver:
    async def test_every_event_comes_once_and_in_order(self, orchestrator: Orchestrator, log: Log) -> None:
        async with listening(orchestrator.url, log.person) as ear:
            _, before = await log.head()
            for count in (1, 7, 30):
                await log.write(count)
            await ear.hears(log, before)
            assert all(event.data["event_id"] == event.event_id for event in ear.heard)

    async def test_a_connection_begins_at_the_present(self, orchestrator: Orchestrator, log: Log) -> None:
        await log.write(3)
        async with listening(orchestrator.url, log.person) as ear:
            await until(lambda: ear.client.position)
            epoch, head = await log.head()
            assert ear.client.position == Position(epoch, head)
            assert ear.heard == []

    async def test_handlers_are_called_one_after_the_other(self, orchestrator: Orchestrator, log: Log) -> None:
        calls: list[tuple[str, int | None]] = []
        async with OrchestratorClient(orchestrator.url, tokens=await tokens_of(log.person)) as client:

            @client.on("payment:received")
            async def slow(event: Event) -> None:
                calls.append(("begun", event.seq))
                await asyncio.sleep(0)
                calls.append(("done", event.seq))

            @client.on("*")
            async def every(event: Event) -> None:
                if event.seq is not None:
                    calls.append(("any", event.seq))

            running = asyncio.create_task(client.run())
            _, before = await log.head()
            await log.write(2)
            await until(lambda: len(calls) >= 6)
            running.cancel()
            await asyncio.wait({running})
        assert calls == [(what, before + place) for place in (1, 2) for what in ("begun", "done", "any")]

    @pytest.mark.parametrize("transports", [["polling"], ["polling", "websocket"]], ids=["polling", "upgrade"])
    async def test_a_subject_namespace_is_followed_alike(
        self, orchestrator: Orchestrator, log: Log, transports: list[str]
    ) -> None:
        async with listening(orchestrator.url, log.person, namespace="/billing", transports=transports) as ear:
            _, before = await log.head()
            await log.write(12)
            payments = [(seq, name) for seq, name in await log.owed(before) if name == "payment:received"]
            await until(lambda: len(ear.heard) >= len(payments))
            assert ear.numbers == payments

    async def test_what_the_log_does_not_hold_is_there_on_request(self, orchestrator: Orchestrator, log: Log) -> None:
        async with OrchestratorClient(orchestrator.url, tokens=await tokens_of(log.person)) as client:
            events = client.events(ephemeral=True)
            assert await client.call("ping") == {"ok": True}
            names = [(await anext(events)).name]
            while names[-1] != "pong":
                names.append((await anext(events)).name)
            await events.aclose()

    async def test_requests_are_answered_or_refused_with_a_code(self, orchestrator: Orchestrator, log: Log) -> None:
        async with OrchestratorClient(orchestrator.url, tokens=await tokens_of(log.person)) as client:
            with pytest.raises(RequestRefused) as refused:
                await client.call("notification_read", {})
            assert refused.value.code == "VALIDATION_ERROR"
            with pytest.raises(RequestRefused) as refused:
                await client.call("no_such_event")
            assert refused.value.code == "UNKNOWN_EVENT"


class TestDrops:
    async def test_what_is_said_during_a_drop_is_heard_afterwards(self, wire: Wire, log: Log) -> None:
        async with listening(wire.url, log.person) as ear:
            _, before = await log.head()
            for _ in range(4):
                await log.write(5)
                await wire.drop()
                await log.write(5)
                await ear.hears(log, before)

    async def test_a_server_that_is_away_for_a_while_is_found_again(self, wire: Wire, log: Log) -> None:
        async with listening(wire.url, log.person) as ear:
            _, before = await log.head()
            await wire.relay.cut()
            await log.write(5)
            await until(lambda: not ear.client.connected)
            with pytest.raises(Unreachable):
                await ear.client.call("ping")
            await wire.relay.restore()
            await ear.hears(log, before)

    async def test_another_instance_takes_over(self, wire: Wire, strict: Orchestrator, log: Log) -> None:
        async with listening(wire.url, log.person) as ear:
            _, before = await log.head()
            await log.write(3)
            await wire.move(strict.url)
            await log.write(3)
            await ear.hears(log, before)
            await log.write(3)
            await ear.hears(log, before)

    async def test_a_reader_that_is_too_slow_loses_nothing(self, wire: Wire, log: Log) -> None:
        options: dict[str, Any] = {"tokens": await tokens_of(log.person), "max_waiting": 10}
        async with OrchestratorClient(wire.url, **options) as client:
            _, before = await log.head()
            await log.write(100)
            await until(lambda: not client.connected)
            ear = Ear(client)
            await ear.hears(log, before)
            ear.reading.cancel()
            await asyncio.wait({ear.reading})


class TestPosition:
    async def test_a_new_process_goes_on_where_the_last_one_ended(self, orchestrator: Orchestrator, log: Log) -> None:
        store = Memory()
        async with listening(orchestrator.url, log.person, store=store) as ear:
            await until(lambda: store.position)
            _, before = await log.head()
            await log.write(2)
            await ear.hears(log, before)
        assert store.position is not None
        await log.write(8)
        async with listening(orchestrator.url, log.person, store=store) as again:
            await again.hears(log, store.position.seq)
        assert ear.numbers + again.numbers == await log.owed(before)

    async def test_an_event_that_was_not_dealt_with_comes_again(self, orchestrator: Orchestrator, log: Log) -> None:
        store = Memory()
        options: dict[str, Any] = {"tokens": await tokens_of(log.person), "store": store}

        async def crash_at(number: int) -> None:
            async with OrchestratorClient(orchestrator.url, **options) as client:
                await log.write(2)
                async for event in client.events():
                    if event.seq == number:
                        raise RuntimeError

        _, before = await log.head()
        with pytest.raises(RuntimeError):
            await crash_at(before + 2)
        assert store.position is not None
        assert store.position.seq == before + 1
        async with OrchestratorClient(orchestrator.url, **options) as client:
            async for event in client.events():
                assert event.seq == before + 2
                break
        assert store.position.seq == before + 2, "leaving without an exception says that it was dealt with"


class TestResets:
    @pytest.mark.parametrize("reason", ["epoch", "future"])
    async def test_a_lost_position_reloads_and_goes_on(self, orchestrator: Orchestrator, log: Log, reason: str) -> None:
        epoch, head = await log.head()
        store = Memory(Position("another", head) if reason == "epoch" else Position(epoch, head + 1000))
        resets: list[Reset] = []

        async def reload(reset: Reset) -> None:
            resets.append(reset)

        async with listening(orchestrator.url, log.person, store=store, on_reset=reload) as ear:
            await until(lambda: resets)
            await log.write(2)
            await ear.hears(log, head)
            assert resets == [Reset(reason, Position(epoch, head))]

    async def test_a_reload_that_fails_is_asked_for_again(self, orchestrator: Orchestrator, log: Log) -> None:
        _, head = await log.head()
        store = Memory(Position("another", 1))
        attempts: list[Reset] = []

        async def reload(reset: Reset) -> None:
            attempts.append(reset)
            if len(attempts) == 1:
                raise ConnectionError

        options: dict[str, Any] = {"tokens": await tokens_of(log.person), "store": store, "on_reset": reload}
        async with OrchestratorClient(orchestrator.url, **options) as client:
            with pytest.raises(ConnectionError):
                await anext(client.events())
            assert store.position == Position("another", 1)
            await log.write(1)
            event = await anext(client.events())
            assert event.seq == head + 1
        assert len(attempts) == 2

    async def test_nobody_loses_a_position_without_knowing(self, orchestrator: Orchestrator, log: Log) -> None:
        options: dict[str, Any] = {"tokens": await tokens_of(log.person), "store": Memory(Position("another", 1))}
        async with OrchestratorClient(orchestrator.url, **options) as client:
            with pytest.raises(PositionLost) as lost:
                await anext(client.events())
            assert lost.value.reason == "epoch"


class TestTooMany:
    """More was missed than the server sends again: 10,000 events of the log."""

    @pytest.mark.slow
    async def test_all_of_it_is_fetched_across_drops(self, wire: Wire, log: Log) -> None:
        epoch, head = await log.head()
        missed = Position(epoch, head)
        await log.write(16_000)
        async with listening(wire.url, log.person, store=Memory(missed)) as ear:
            last = await log.write(4)
            for mark in (600, 2_000, 9_000):
                await ear.has_heard(mark)
                await wire.drop()
            await ear.hears(log, head, 60)

        resets: list[Reset] = []

        async def reload(reset: Reset) -> None:
            resets.append(reset)

        options: dict[str, Any] = {"store": Memory(missed), "catch_up": "reset", "on_reset": reload}
        async with listening(wire.url, log.person, **options):
            await until(lambda: resets)
        assert resets == [Reset("too_many", Position(epoch, last))]
