"""The bus: heard by every other instance that listens, deaf to strangers, and found again after an outage of Redis."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from realtime import bus as bus_module
from realtime.bus import MESSAGE_LIMIT, NoBus, RedisBus
from realtime.meter import Meter
from tests.realtime.buses import Hearing, client, heard_by, running_bus, subscribers
from tests.support.relay import relay_to
from tests.support.stores import free_port, private_redis
from tests.support.waiting import until


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    with private_redis(tmp_path) as port:
        yield port


@pytest.fixture
async def redis(port: int) -> AsyncIterator[Redis]:
    redis = client(port)
    yield redis
    await redis.aclose()


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a process as a machine that is stuck: its connections stay open and nothing moves."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_reaches_the_others_and_not_itself(port: int, redis: Redis) -> None:
    async with running_bus(port) as mine, running_bus(port) as theirs:
        here, there, elsewhere = Hearing(), Hearing(), Hearing()
        mine.subscribe("a", here)
        theirs.subscribe("a", there)
        theirs.subscribe("b", elsewhere)
        await heard_by(redis, "a", 2)
        await heard_by(redis, "b")
        for number in range(1_000):
            assert mine.publish("a", {"number": number, "text": "Привет"})
        await until(lambda: len(there.heard) == 1_000)
        assert there.heard == [{"number": number, "text": "Привет"} for number in range(1_000)]
        assert (here.heard, elsewhere.heard) == ([], [])
        assert (mine._meter.bus_messages["received"], theirs._meter.bus_messages["received"]) == (0, 1_000)


async def test_a_worker_only_speaks(port: int, redis: Redis) -> None:
    async with running_bus(port) as web, running_bus(port, listens=False) as worker:
        hearing = Hearing()
        web.subscribe("a", hearing)
        await heard_by(redis, "a")
        worker.publish("a", {"n": 1})
        await until(lambda: hearing.heard)
        assert not worker.healthy
        assert worker.probe_age_s() == float("inf")


async def test_without_redis_nobody_is_reached() -> None:
    assert NoBus(alone=True).healthy
    other = NoBus(alone=False)
    assert not other.healthy
    other.subscribe("a", Hearing())
    assert other.publish("a", {})
    other.unsubscribe("a")


class TestStrangers:
    """Whoever reaches Redis without the key can neither speak to clients nor end the listening."""

    async def test_noise_is_not_heard(self, port: int, redis: Redis) -> None:
        async with running_bus(port) as mine, running_bus(port) as theirs:
            hearing = Hearing()
            mine.subscribe("a", hearing)
            await heard_by(redis, "a")
            noises = (b"", b"{}", b"x" * 31, b'{"n": 1}', b"\xff" * 100, b"0" * 48 + b'{"n": 1}')
            for noise in noises:
                await redis.publish("a", noise)
                await redis.publish(mine._probe_channel, noise)
            theirs.publish("a", {"n": 2})
            await until(lambda: hearing.heard)
            assert hearing.heard == [{"n": 2}]
            assert mine._meter.bus_messages["forged"] == 2 * len(noises)
            assert mine.healthy

    async def test_another_key_is_not_heard(self, port: int, redis: Redis) -> None:
        async with running_bus(port) as mine, running_bus(port, key=b"another key") as foreign:
            hearing = Hearing()
            mine.subscribe("a", hearing)
            await heard_by(redis, "a")
            foreign.publish("a", {"n": 1})
            await until(lambda: mine._meter.bus_messages["forged"])
            assert hearing.heard == []

    async def test_a_message_is_good_on_its_own_channel_and_unchanged_only(self, port: int, redis: Redis) -> None:
        async with running_bus(port) as mine, running_bus(port) as theirs:
            own, other = Hearing(), Hearing()
            mine.subscribe("own", own)
            mine.subscribe("other", other)
            async with redis.pubsub() as spy:
                await spy.subscribe("own")
                await heard_by(redis, "own", 2)
                await heard_by(redis, "other")
                theirs.publish("own", {"n": 1})
                message = None
                while message is None or message["type"] != "message":
                    message = await spy.get_message(timeout=5)
            taken: bytes = message["data"]
            await until(lambda: own.heard)
            await redis.publish("other", taken)
            await redis.publish("own", taken.replace(b'"n":1', b'"n":2'))
            await redis.publish("own", taken[:32] + b"f" * 16 + taken[48:])
            await until(lambda: mine._meter.bus_messages["forged"] == 3)
            assert (own.heard, other.heard) == ([{"n": 1}], [])

    async def test_what_is_too_large_is_neither_sent_nor_heard(self, port: int, redis: Redis) -> None:
        async with running_bus(port) as mine, running_bus(port) as theirs:
            hearing = Hearing()
            mine.subscribe("a", hearing)
            await heard_by(redis, "a")
            assert not theirs.publish("a", {"text": "x" * MESSAGE_LIMIT})
            assert theirs._meter.bus_messages["too_large"] == 1
            # Signed all the same, as an instance that has gone mad might.
            theirs._put("a", theirs._origin + b'"' + b"x" * 2 * MESSAGE_LIMIT + b'"')
            assert theirs.publish("a", {"text": "x" * (MESSAGE_LIMIT - 20)})
            await until(lambda: hearing.heard)
            assert [len(message["text"]) for message in hearing.heard] == [MESSAGE_LIMIT - 20]
            assert mine._meter.bus_messages["forged"] == 1

    async def test_what_is_not_understood_harms_nobody(self, port: int, redis: Redis) -> None:
        """As in a rolling update, from an instance of another release."""
        async with running_bus(port) as mine, running_bus(port) as theirs:
            heard: list[int] = []
            mine.subscribe("a", lambda message: heard.append(int(message["n"])))
            await heard_by(redis, "a")
            for message in ({"m": 1}, {"n": None}, {"n": "x"}, {"n": [1]}):
                theirs.publish("a", message)
            theirs._put("a", theirs._origin + b"no json")
            theirs.publish("a", {"n": 5})
            await until(lambda: heard)
            assert heard == [5]
            assert mine.healthy


class TestSubscribing:
    async def test_a_storm_is_few_commands(self, port: int, redis: Redis) -> None:
        async with running_bus(port) as mine, running_bus(port) as theirs:
            before = await calls(redis, "subscribe")
            hearings = {f"c{number}": Hearing() for number in range(1_500)}
            for channel, hearing in hearings.items():
                mine.subscribe(channel, hearing)
            await until(lambda: len(mine._subscribed) == 1_500)
            assert await calls(redis, "subscribe") - before == 3
            for channel in hearings:
                theirs.publish(channel, {"channel": channel})
            await until(lambda: all(hearing.heard for hearing in hearings.values()))
            assert all(hearing.heard == [{"channel": channel}] for channel, hearing in hearings.items())

            before = await calls(redis, "unsubscribe")
            for channel in list(hearings)[:1_400]:
                mine.unsubscribe(channel)
            await until(lambda: len(mine._subscribed) == 100)
            assert await calls(redis, "unsubscribe") - before == 3
            assert await subscribers(redis, "c0") == 0
            theirs.publish("c0", {})
            theirs.publish("c1499", {"again": True})
            await until(lambda: len(hearings["c1499"].heard) == 2)
            assert len(hearings["c0"].heard) == 1

    async def test_changed_minds_cost_nothing(self, port: int, redis: Redis) -> None:
        async with running_bus(port) as mine:
            mine.subscribe("a", Hearing())
            await heard_by(redis, "a")
            before = await calls(redis, "unsubscribe"), await calls(redis, "subscribe")
            mine.unsubscribe("a")
            mine.subscribe("a", Hearing())
            mine.subscribe("b", Hearing())
            await heard_by(redis, "b")
            assert (await calls(redis, "unsubscribe"), await calls(redis, "subscribe")) == (before[0], before[1] + 1)

    async def test_whoever_begins_to_hear_is_told(self, port: int) -> None:
        """What was said before was missed, so that the log must be asked once the channel is heard, not earlier."""
        async with running_bus(port) as mine:
            told: list[int] = []
            redis = client(port)
            mine.on_heard = lambda: told.append(len(mine._wanted))
            mine.subscribe("a", Hearing())
            await until(lambda: told)
            assert await subscribers(redis, "a") == 1
            await redis.aclose()


class TestOutages:
    async def test_a_killed_redis_is_found_again(self, tmp_path: Path) -> None:
        port, hearing, told = free_port(), Hearing(), Hearing()
        async with running_bus(port) as mine, running_bus(port, listens=False) as worker:
            assert not mine.healthy
            mine.on_heard = lambda: told(None)
            mine.subscribe("a", hearing)
            for number in range(3):
                with private_redis(tmp_path, port=port):
                    await until(lambda: mine.healthy and "a" in mine._subscribed)
                    redis = client(port)
                    await heard_by(redis, "a")
                    await redis.aclose()
                    worker.publish("a", {"n": number})
                    await hears(hearing, {"n": number})
                await until(lambda: not mine.healthy)
                worker._meter.bus_messages.clear()
                worker.publish("a", {"lost": number})
                await until(lambda: worker._meter.bus_messages["not_sent"])
        assert hearing.heard == [{"n": 0}, {"n": 1}, {"n": 2}]
        assert len(told.heard) >= 6, "the probe's channel and the other, each time anew"

    async def test_a_frozen_redis_is_noticed_and_found_again(self, port: int, redis: Redis) -> None:
        async with running_bus(port) as mine, running_bus(port) as theirs:
            hearing, told = Hearing(), Hearing()
            mine.subscribe("a", hearing)
            await heard_by(redis, "a")
            mine.on_heard = lambda: told(None)
            with frozen((await redis.info("server"))["process_id"]):
                await until(lambda: not mine.healthy, 3)
                # Nobody waits for it meanwhile.
                for number in range(1_000):
                    theirs.publish("a", {"n": number})
                await until(lambda: mine._probe_heard_at is None, 4)
                told.heard.clear()
            # The probe's channel and the other are heard anew.
            await until(lambda: mine.healthy and len(told.heard) >= 2, 5)
            theirs.publish("a", {"after": True})
            await until(lambda: {"after": True} in hearing.heard)

    async def test_a_subscription_that_has_fallen_silent_is_noticed(self, port: int, redis: Redis) -> None:
        """The connection stands, commands go through, and nothing comes back: the worst that can happen to it."""
        async with relay_to(f"redis://127.0.0.1:{port}") as (relay, _), running_bus(relay.port) as mine:
            hearing = Hearing()
            mine.subscribe("a", hearing)
            await heard_by(redis, "a")
            relay.hold_answers()
            await until(lambda: not mine.healthy, 3)
            await until(lambda: mine._probe_heard_at is None, 4)
            relay.let_answers_pass()
            await until(lambda: mine.healthy, 4)
            async with running_bus(port, listens=False) as worker:
                await heard_by(redis, "a")
                worker.publish("a", {"after": True})
                await until(lambda: hearing.heard)

    @pytest.mark.parametrize("kind", ["pubsub", "normal"])
    async def test_connections_that_are_cut_are_opened_again(self, port: int, redis: Redis, kind: str) -> None:
        async with running_bus(port) as mine, running_bus(port) as theirs:
            hearing, told = Hearing(), Hearing()
            mine.subscribe("a", hearing)
            await heard_by(redis, "a")
            mine.on_heard = lambda: told(None)
            await redis.flushall()
            for number in range(3):
                told.heard.clear()
                await redis.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
                if kind == "pubsub":
                    await until(lambda: len(told.heard) >= 2)
                await heard_by(redis, "a")
                async with asyncio.timeout(5):
                    while {"n": number} not in hearing.heard:
                        theirs.publish("a", {"n": number})
                        await asyncio.sleep(0.05)
            assert mine.healthy

    async def test_a_long_outage_does_not_grow_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bus_module, "_QUEUE_LIMIT", 3)
        bus = RedisBus(Redis(), b"key", listens=False, meter=Meter())
        for number in range(10):
            assert bus.publish("a", {"n": number})
        assert bus._outbox.qsize() == 3
        assert bus._meter.bus_messages["dropped"] == 7


async def hears(hearing: Hearing, message: object) -> None:
    await until(lambda: message in hearing.heard)


async def calls(redis: Redis, command: str) -> int:
    """Return how often Redis has been given a command since it started."""
    return int((await redis.info("commandstats")).get(f"cmdstat_{command}", {"calls": 0})["calls"])
