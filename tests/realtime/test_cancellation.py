"""A cancelled task ends, whatever it is doing with Redis at that moment."""

import asyncio
import random

import pytest
from redis.asyncio import Redis

from realtime.cancellation import keep_cancellations
from tests.support.stores import Stores

pytestmark = pytest.mark.cluster


async def _ask_for_ever(redis: Redis) -> None:
    while True:
        async with redis.pipeline(transaction=False) as pipeline:
            await pipeline.ping()
            await pipeline.ping()
            assert await pipeline.execute() == [True, True]


async def test_no_cancellation_is_lost(stores: Stores) -> None:
    redis = Redis.from_url(stores.redis_url, socket_timeout=2)
    keep_cancellations(redis)
    try:
        for _ in range(300):
            task = asyncio.create_task(_ask_for_ever(redis))
            await asyncio.sleep(random.uniform(0.0, 0.004))
            task.cancel()
            _, unending = await asyncio.wait((task,), timeout=5)
            assert not unending
            assert task.cancelled()
    finally:
        await redis.aclose()
