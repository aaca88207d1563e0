"""Buses over a Redis of the test's own, as the wiring makes them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from realtime.bus import RedisBus
from realtime.meter import Meter
from tests.support.waiting import until

KEY = b"a key that instances share......"


class Hearing:
    """Remembers what a channel said."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def __call__(self, message: Any) -> None:
        self.heard.append(message)


def client(port: int) -> Redis:
    return Redis.from_url(
        f"redis://127.0.0.1:{port}", socket_connect_timeout=2, socket_timeout=2, retry=Retry(NoBackoff(), 0)
    )


@asynccontextmanager
async def running_bus(port: int, *, key: bytes = KEY, listens: bool = True) -> AsyncIterator[RedisBus]:
    """Yield a bus that runs; one that listens is already heard by itself, unless there is no Redis yet."""
    redis = client(port)
    bus = RedisBus(redis, key, listens=listens, meter=Meter())
    running = asyncio.create_task(bus.run())
    try:
        with suppress(TimeoutError):
            await until(lambda: bus.healthy or not listens, 2)
        yield bus
        assert not running.done(), "nothing may end a bus"
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await redis.aclose()


async def subscribers(redis: Redis, channel: str) -> int:
    """Return how many connections listen to a channel."""
    ((_, count),) = await redis.pubsub_numsub(channel)
    return int(count)


async def heard_by(redis: Redis, channel: str, count: int = 1) -> None:
    """Wait until so many connections listen to a channel."""
    async with asyncio.timeout(10):
        while await subscribers(redis, channel) != count:
            await asyncio.sleep(0.01)
