"""The exchange: bells deliver on every instance, and ephemeral events are said now, the newest of a key, or never."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from realtime import exchange as exchange_module
from realtime import follower as follower_module
from realtime.bus import Bus, NoBus
from realtime.exchange import EphemeralEvent, Exchange, bell_message, channel_of, events_of
from realtime.log import EventLog, NumberedEvent
from tests.realtime.buses import client, heard_by, running_bus
from tests.realtime.following import Instance, write
from tests.support.spine import new_tenant
from tests.support.stores import private_redis
from tests.support.waiting import until


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with private_redis(tmp_path_factory.mktemp("redis")) as port:
        yield port


@pytest.fixture
async def redis(port: int) -> AsyncIterator[Redis]:
    redis = client(port)
    yield redis
    await redis.aclose()


class Connected(Instance):
    """An instance that speaks with others; `whispers` holds the ephemeral events it was to deliver."""

    def __init__(self, log: EventLog, bus: Bus) -> None:
        super().__init__(log)
        self.exchange = Exchange(bus, self.follower)
        self.whispers: list[EphemeralEvent] = []
        self.exchange.deliver = self.whispers.append


@asynccontextmanager
async def connected(engine: AsyncEngine, port: int | None = None) -> AsyncIterator[Connected]:
    if port is None:
        yield Connected(EventLog(engine), NoBus(alone=True))
        return
    async with running_bus(port) as bus:
        instance = Connected(EventLog(engine), bus)
        yield instance
        await instance.follower.close()


def whisper(tenant_id: UUID, key: str, **payload: Any) -> EphemeralEvent:
    return EphemeralEvent(
        tenant_id=tenant_id, namespace="/provisioning", room="r", name="job:log", payload=payload, key=key
    )


def numbered(tenant_id: UUID, seq: int) -> NumberedEvent:
    return NumberedEvent(
        id=uuid4(),
        tenant_id=tenant_id,
        namespace="/billing",
        room=f"tenant:{tenant_id}",
        name="payment:received",
        payload={"text": "Привет", "n": [1, None]},
        created_at=datetime.now(UTC),
        seq=seq,
    )


def test_a_bell_says_what_it_was_told() -> None:
    tenant_id = uuid4()
    events = [numbered(tenant_id, 4), numbered(tenant_id, 5)]
    message = bell_message(events)
    assert message["head"] == 5
    said = {
        **message,
        "events": [
            {**fields, "id": str(fields["id"]), "created_at": fields["created_at"].isoformat()}
            for fields in message["events"]
        ],
    }
    assert events_of(tenant_id, said) == events


class TestBells:
    async def test_alone_everything_reaches_this_process(self, engine: AsyncEngine) -> None:
        async with connected(engine) as instance:
            tenants = [await new_tenant(engine) for _ in range(2)]
            for tenant_id in tenants:
                await instance.follower.join(tenant_id)
            events = [event for tenant_id in tenants for event in await write(engine, tenant_id, 3)]
            instance.exchange.ring(events)
            await until(lambda: len(instance.delivered) == 6)
            assert sorted(instance.delivered, key=events.index) == events
            assert instance.meter.gap_repairs == 0, "the bell itself brings them"

    async def test_a_bell_is_heard_by_those_who_follow(self, engine: AsyncEngine, port: int, redis: Redis) -> None:
        async with connected(engine, port) as here, connected(engine, port) as there, connected(engine, port) as apart:
            tenant_id, other = await new_tenant(engine), await new_tenant(engine)
            await write(engine, tenant_id, 1)
            await there.follower.join(tenant_id)
            await apart.follower.join(other)
            await heard_by(redis, channel_of(tenant_id))
            events = await write(engine, tenant_id, 3)
            here.exchange.ring(events)
            await until(lambda: len(there.delivered) == 3)
            assert there.delivered == events
            assert there.meter.gap_repairs == 0, "the bell itself brings them"
            assert (here.delivered, apart.delivered) == ([], [])

    async def test_what_is_too_large_for_the_bus_is_read_from_the_log(
        self, engine: AsyncEngine, port: int, redis: Redis
    ) -> None:
        async with connected(engine, port) as here, connected(engine, port) as there:
            tenant_id = await new_tenant(engine)
            await there.follower.join(tenant_id)
            await heard_by(redis, channel_of(tenant_id))
            events = await write(engine, tenant_id, 900)
            here.exchange.ring(events)
            await until(lambda: len(there.delivered) == 900)
            assert there.delivered == events
            assert there.meter.gap_repairs > 0

    async def test_a_channel_is_heard_for_as_long_as_its_tenant_is_followed(
        self, engine: AsyncEngine, port: int, redis: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(follower_module, "_LINGER_S", 0.0)
        async with connected(engine, port) as instance:
            tenant_id = await new_tenant(engine)
            await instance.follower.join(tenant_id)
            await heard_by(redis, channel_of(tenant_id), 1)
            instance.follower.leave(tenant_id)
            running = asyncio.create_task(instance.follower.run(lambda: 0.01))
            await heard_by(redis, channel_of(tenant_id), 0)
            running.cancel()

    async def test_what_another_release_says_harms_nobody(self, engine: AsyncEngine, port: int, redis: Redis) -> None:
        async with connected(engine, port) as instance, running_bus(port, listens=False) as other:
            tenant_id = await new_tenant(engine)
            await instance.follower.join(tenant_id)
            await heard_by(redis, channel_of(tenant_id))
            for message in (
                {},
                {"kind": "bell"},
                {"kind": "bell", "head": "x", "events": []},
                {"kind": "bell", "head": 1, "events": [{}]},
                {"kind": "whisper"},
                {"kind": "new"},
            ):
                other.publish(channel_of(tenant_id), message)
            events = await write(engine, tenant_id, 1)
            other.publish(channel_of(tenant_id), bell_message(events))
            await instance.settles_at(1)
            assert instance.delivered == events


class TestWhispers:
    async def test_only_the_newest_of_a_key_is_said_here_and_there(
        self, engine: AsyncEngine, port: int, redis: Redis
    ) -> None:
        async with connected(engine, port) as here, connected(engine, port) as there:
            tenant_id = await new_tenant(engine)
            await there.follower.join(tenant_id)
            await heard_by(redis, channel_of(tenant_id))
            for progress in range(10):
                here.exchange.whisper(whisper(tenant_id, "job 1", progress=progress))
            here.exchange.whisper(whisper(tenant_id, "job 2", progress=0))
            expected = [whisper(tenant_id, "job 1", progress=9), whisper(tenant_id, "job 2", progress=0)]
            await until(lambda: len(there.whispers) == 2)
            assert there.whispers == here.whispers == expected
            here.exchange.whisper(whisper(tenant_id, "job 1", progress=10))
            await until(lambda: len(there.whispers) == 3)
            assert there.whispers[2].payload == {"progress": 10}

    async def test_keys_of_tenants_are_their_own(self, engine: AsyncEngine) -> None:
        async with connected(engine) as instance:
            first, second = uuid4(), uuid4()
            for tenant_id in (first, second, first):
                instance.exchange.whisper(whisper(tenant_id, "job", of=str(tenant_id)))
            await until(lambda: len(instance.whispers) == 2)
            assert [event.tenant_id for event in instance.whispers] == [first, second]

    async def test_too_many_at_once_are_dropped(self, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(exchange_module, "_GATHER_LIMIT", 5)
        async with connected(engine) as instance:
            tenant_id = uuid4()
            for number in range(8):
                instance.exchange.whisper(whisper(tenant_id, str(number)))
            instance.exchange.whisper(whisper(tenant_id, "3", newer=True))
            await until(lambda: instance.whispers)
            assert [event.key for event in instance.whispers] == ["0", "1", "2", "3", "4"]
            assert instance.whispers[3].payload == {"newer": True}
            instance.exchange.whisper(whisper(tenant_id, "later"))
            await until(lambda: len(instance.whispers) == 6)


async def test_instances_tell_each_other_of_a_tenant(engine: AsyncEngine, port: int, redis: Redis) -> None:
    async with connected(engine, port) as here, connected(engine, port) as there:
        tenant_id = await new_tenant(engine)
        heard_here: list[Any] = []
        heard_there: list[Any] = []
        for instance, heard in ((here, heard_here), (there, heard_there)):
            instance.exchange.listeners["presence"] = lambda *what, heard=heard: heard.append(what)
            await instance.follower.join(tenant_id)
        await heard_by(redis, channel_of(tenant_id), 2)
        here.exchange.tell(tenant_id, "nobody's", {})
        here.exchange.tell(tenant_id, "presence", {"users": ["a"]})
        await until(lambda: heard_there)
        assert heard_there == [(tenant_id, {"kind": "presence", "users": ["a"]})]
        assert heard_here == []
