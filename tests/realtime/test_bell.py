"""Bells: heard by every instance, harmless when lost, and found again after an outage of Redis."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from realtime import bell as bells
from realtime.bell import LocalBell, RedisBell, decode, encode
from realtime.log import NumberedEvent
from tests.support.stores import free_port, private_redis


def numbered(tenant_id: UUID, seq: int, text: str = "hello") -> NumberedEvent:
    return NumberedEvent(
        id=uuid4(),
        tenant_id=tenant_id,
        namespace="/billing",
        room=f"tenant:{tenant_id}",
        name="payment:received",
        payload={"text": text},
        created_at=datetime.now(UTC),
        seq=seq,
    )


class Hearing:
    """Remembers what a bell said."""

    def __init__(self) -> None:
        self.heard: list[tuple[UUID, int, list[NumberedEvent]]] = []

    def __call__(self, tenant_id: UUID, head: int, events) -> None:
        self.heard.append((tenant_id, head, list(events)))


async def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)


def test_a_local_bell_tells_each_tenant_once() -> None:
    hearing, first, second = Hearing(), UUID(int=1), UUID(int=2)
    events = [numbered(first, 1), numbered(first, 2), numbered(second, 9)]
    LocalBell(hearing, alone=True).ring(events)
    assert hearing.heard == [(first, 2, events[:2]), (second, 9, events[2:])]
    LocalBell(None, alone=False).ring(events)


def test_messages_say_what_they_were_told() -> None:
    tenant_id = uuid4()
    events = [numbered(tenant_id, 4), numbered(tenant_id, 5)]
    assert decode(encode(events)) == (tenant_id, 5, events)


def test_a_large_message_carries_only_the_head() -> None:
    tenant_id = uuid4()
    message = encode([numbered(tenant_id, 4, text="x" * 100_000)])
    assert len(message) < 200
    assert decode(message) == (tenant_id, 4, [])


class TestRedisBell:
    async def test_reaches_this_process_and_the_others(self, tmp_path: Path) -> None:
        with private_redis(tmp_path) as port:
            here, there = Hearing(), Hearing()
            redis = Redis.from_url(f"redis://127.0.0.1:{port}")
            mine, theirs = RedisBell(redis, here), RedisBell(redis, there)
            running = [asyncio.create_task(bell.run()) for bell in (mine, theirs)]
            await until(lambda: mine.healthy and theirs.healthy)
            events = [numbered(uuid4(), 1)]
            mine.ring(events)
            assert here.heard == [(events[0].tenant_id, 1, events)], "its own process hears without Redis"
            await until(lambda: bool(there.heard))
            assert there.heard == here.heard[:1]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await redis.aclose()

    async def test_a_worker_only_rings(self, tmp_path: Path) -> None:
        with private_redis(tmp_path) as port:
            redis = Redis.from_url(f"redis://127.0.0.1:{port}")
            hearing = Hearing()
            web, worker = RedisBell(redis, hearing), RedisBell(redis, None)
            running = [asyncio.create_task(bell.run()) for bell in (web, worker)]
            await until(lambda: web.healthy)
            worker.ring([numbered(uuid4(), 1)])
            await until(lambda: bool(hearing.heard))
            assert not worker.healthy
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await redis.aclose()

    async def test_finds_its_way_back_after_an_outage(self, tmp_path: Path) -> None:
        port = free_port()
        redis = Redis.from_url(f"redis://127.0.0.1:{port}")
        hearing, returned = Hearing(), []
        bell = RedisBell(redis, hearing, on_return=lambda: returned.append(True))
        running = asyncio.create_task(bell.run())
        with private_redis(tmp_path, port=port):
            await until(lambda: bell.healthy)
        await until(lambda: not bell.healthy)
        bell.ring([numbered(uuid4(), 1)])
        await asyncio.sleep(0.1)
        with private_redis(tmp_path, port=port):
            await until(lambda: bell.healthy)
            assert len(returned) == 2
            other = RedisBell(redis, None)
            ringing = asyncio.create_task(other.run())
            tenant_id = uuid4()
            other.ring([numbered(tenant_id, 1)])
            await until(lambda: any(heard[0] == tenant_id for heard in hearing.heard))
            for task in (running, ringing):
                task.cancel()
            await asyncio.gather(running, ringing, return_exceptions=True)
        await redis.aclose()

    async def test_a_foreign_message_harms_nobody(self, tmp_path: Path) -> None:
        with private_redis(tmp_path) as port:
            redis = Redis.from_url(f"redis://127.0.0.1:{port}")
            hearing = Hearing()
            bell = RedisBell(redis, hearing)
            running = asyncio.create_task(bell.run())
            await until(lambda: bell.healthy)
            for noise in (b"", b"[]", b"{", b'{"tenant": 1, "head": 2}', b'{"tenant": "x"}', b"\xff"):
                await redis.publish(bells.CHANNEL, noise)
            event = numbered(uuid4(), 3)
            await redis.publish(bells.CHANNEL, encode([event]))
            await until(lambda: bool(hearing.heard))
            assert hearing.heard == [(event.tenant_id, 3, [event])]
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await redis.aclose()

    def test_a_long_outage_does_not_grow_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bells, "_QUEUE_LIMIT", 3)
        bell = RedisBell(Redis(), None)
        for seq in range(10):
            bell.ring([numbered(UUID(int=1), seq)])
        assert bell._outbox.qsize() == 3
