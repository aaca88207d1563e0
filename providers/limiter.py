"""Rate limits by the `limits` library: moving windows on Redis, or in this process without it.

While Redis is away, what guards secrets is counted by a backstop that all instances share, and refused if that is away
too. Everything else each instance counts for itself: a limit that is too generous for a while is better than a closed
door.
"""

import asyncio
from collections.abc import Collection
from typing import Protocol

import structlog
from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import StorageError
from redis.asyncio import ConnectionPool

from core.clock import SystemClock

_REDIS_TIMEOUT_S = 0.5
# What guards secrets is rather waited for: a Redis that is merely slow must not lead to a second count.
_GUARDING_TIMEOUT_S = 2.0
# How many hits the backstop is asked for at once; a crowd must not take every connection that it has.
_BACKSTOP_HITS = 4

logger = structlog.get_logger(__name__)


class Backstop(Protocol):
    """Counts for all instances while Redis is away."""

    async def hit(self, key: str, *, allowed: int, within_s: int) -> int | None:
        """Count one hit; returns None when it is allowed, else the whole seconds to wait."""


class WindowRateLimiter:
    """Counts hits under a rule such as `10/minute` and a key.

    `guarding` are the first parts of those keys whose hits the `backstop` counts while Redis is away. Without an
    address of Redis there is one process, which counts everything alone.
    """

    def __init__(self, redis_url: str, *, backstop: Backstop | None = None, guarding: Collection[str] = ()) -> None:
        self._backstop = backstop
        self._guarding = guarding
        self._turns = asyncio.Semaphore(_BACKSTOP_HITS)
        self._local = MovingWindowRateLimiter(MemoryStorage())
        self._pool = ConnectionPool.from_url(redis_url) if redis_url else None
        self._shared = MovingWindowRateLimiter(_storage(redis_url, self._pool)) if self._pool is not None else None

    async def hit(self, rule: str, *key: str) -> int | None:
        """Count one hit; returns None when it is allowed, else the whole seconds to wait (at least 1).

        Raises what the backstop raises.
        """
        item = parse(rule)
        if self._shared is None:
            return await _hit(self._local, item, key)
        backstop = self._backstop if key[0] in self._guarding else None
        try:
            async with asyncio.timeout(_REDIS_TIMEOUT_S if backstop is None else _GUARDING_TIMEOUT_S):
                return await _hit(self._shared, item, key)
        except (StorageError, TimeoutError) as error:
            logger.warning("rate limits without Redis", rule=key[0], error=repr(error))
        if backstop is None:
            return await _hit(self._local, item, key)
        async with self._turns:
            return await self._count_together(backstop, item, key)

    async def wait_s(self, rule: str, *key: str) -> int | None:
        """Return how many whole seconds the next hit would have to wait, None when not at all; counts nothing.

        While Redis is away this instance's own count answers, so it is no guard of secrets.
        """
        item = parse(rule)
        if self._shared is not None:
            try:
                async with asyncio.timeout(_REDIS_TIMEOUT_S):
                    return await _look(self._shared, item, key)
            except (StorageError, TimeoutError) as error:
                logger.warning("rate limits without Redis", rule=key[0], error=repr(error))
        return await _look(self._local, item, key)

    async def _count_together(self, backstop: Backstop, item: RateLimitItem, key: tuple[str, ...]) -> int | None:
        # What this instance alone has allowed is part of what all have: an attack costs the backstop no more than that.
        if not await self._local.test(item, *key):
            return await _wait_s(self._local, item, key)
        wait_s = await backstop.hit(item.key_for(*key), allowed=item.amount, within_s=item.get_expiry())
        if wait_s is None:
            await self._local.hit(item, *key)
        return wait_s

    async def aclose(self) -> None:
        """Close the connections to Redis."""
        if self._pool is not None:
            await self._pool.disconnect()


def _storage(url: str, pool: ConnectionPool) -> Storage:
    return RedisStorage(
        f"async+{url}",
        implementation="redispy",
        wrap_exceptions=True,
        key_prefix="erpmax:limits",
        connection_pool=pool,  # type: ignore[arg-type] # the library annotates its options too narrowly
    )


async def _hit(limiter: MovingWindowRateLimiter, item: RateLimitItem, key: tuple[str, ...]) -> int | None:
    return None if await limiter.hit(item, *key) else await _wait_s(limiter, item, key)


async def _look(limiter: MovingWindowRateLimiter, item: RateLimitItem, key: tuple[str, ...]) -> int | None:
    return None if await limiter.test(item, *key) else await _wait_s(limiter, item, key)


async def _wait_s(limiter: MovingWindowRateLimiter, item: RateLimitItem, key: tuple[str, ...]) -> int:
    window = await limiter.get_window_stats(item, *key)
    # The library counts by the machine's clock, so the wait is taken from the same one.
    return max(1, int(window.reset_time - SystemClock().now().timestamp()) + 1)
