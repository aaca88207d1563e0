"""Rate limits by the `limits` library: moving windows on Redis, or in this process without it.

While Redis is away, what guards secrets is counted by a backstop that all instances share, and refused if that is away
too. Everything else each instance counts for itself: a limit that is too generous for a while is better than a closed
door.

A rule may have several windows. All are asked before any is hit, so that a hit which one refuses does not count in the
others. In a crowd that asks at once a hit can be refused after it was counted in a shorter window: the shortest is hit
first, whose wait is over first. The database, which is slower and guards more, undoes even that.
"""

import asyncio
from collections.abc import Collection, Sequence
from typing import Protocol

import structlog
from limits import RateLimitItem, parse_many
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import StorageError
from redis.asyncio import ConnectionPool

from core.clock import SystemClock
from core.errors import Unavailable
from core.windows import Window

_REDIS_TIMEOUT_S = 0.5
# What guards secrets is rather waited for: a Redis that is merely slow must not lead to a second count.
_GUARDING_TIMEOUT_S = 2.0
# How many hits the backstop is asked for at once; a crowd must not take every connection that it has.
_BACKSTOP_HITS = 4

logger = structlog.get_logger(__name__)


class Backstop(Protocol):
    """Counts for all instances while Redis is away."""

    async def hit(self, *windows: Window) -> int | None:
        """Count one hit in all windows or in none; returns None when it is allowed, else the whole seconds to wait."""

    async def clear(self, *keys: str) -> None:
        """Forget what was counted under the keys of windows."""


class WindowRateLimiter:
    """Counts hits under a rule such as `10/minute` or `10/minute;100/hour` and a key.

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

        Of several windows that refuse, the longest wait is told. Raises what the backstop raises.
        """
        items = _items(rule)
        if self._shared is None:
            return await _hit(self._local, items, key)
        backstop = self._backstop if key[0] in self._guarding else None
        try:
            async with asyncio.timeout(_REDIS_TIMEOUT_S if backstop is None else _GUARDING_TIMEOUT_S):
                return await _hit(self._shared, items, key)
        except (StorageError, TimeoutError) as error:
            logger.warning("rate limits without Redis", rule=key[0], error=repr(error))
        if backstop is None:
            return await _hit(self._local, items, key)
        async with self._turns:
            return await self._count_together(backstop, items, key)

    async def wait_s(self, rule: str, *key: str) -> int | None:
        """Return how many whole seconds the next hit would have to wait, None when not at all; counts nothing.

        While Redis is away this instance's own count answers, so it is no guard of secrets.
        """
        items = _items(rule)
        if self._shared is not None:
            try:
                async with asyncio.timeout(_REDIS_TIMEOUT_S):
                    return await _refused_s(self._shared, items, key)
            except (StorageError, TimeoutError) as error:
                logger.warning("rate limits without Redis", rule=key[0], error=repr(error))
        return await _refused_s(self._local, items, key)

    async def clear(self, rule: str, *key: str) -> None:
        """Forget the hits of a rule under a key, in Redis, in the backstop and in this instance.

        What is away goes on refusing, and so does, while Redis is, another instance that has itself allowed all hits.
        """
        items = _items(rule)
        for item in items:
            await self._local.clear(item, *key)
        if self._shared is None:
            return
        try:
            async with asyncio.timeout(_REDIS_TIMEOUT_S):
                for item in items:
                    await self._shared.clear(item, *key)
        except (StorageError, TimeoutError) as error:
            logger.warning("rate limits not cleared in Redis", rule=key[0], error=repr(error))
        if self._backstop is None or key[0] not in self._guarding:
            return
        try:
            await self._backstop.clear(*(item.key_for(*key) for item in items))
        except Unavailable as error:
            # Whoever clears has done what they came for, which no failure here may hide.
            logger.warning("rate limits not cleared in the database", rule=key[0], error=repr(error))

    async def _count_together(
        self, backstop: Backstop, items: Sequence[RateLimitItem], key: tuple[str, ...]
    ) -> int | None:
        # What this instance alone has allowed is part of what all have: an attack costs the backstop no more than that.
        refused_s = await _refused_s(self._local, items, key)
        if refused_s is not None:
            return refused_s
        wait_s = await backstop.hit(*(Window(item.key_for(*key), item.amount, item.get_expiry()) for item in items))
        if wait_s is None:
            for item in items:
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


def _items(rule: str) -> Sequence[RateLimitItem]:
    """Return a rule's windows, the shortest first; one that is said twice is counted once."""
    items = {item.key_for(): item for item in parse_many(rule)}
    return sorted(items.values(), key=RateLimitItem.get_expiry)


async def _hit(limiter: MovingWindowRateLimiter, items: Sequence[RateLimitItem], key: tuple[str, ...]) -> int | None:
    if len(items) > 1:
        refused_s = await _refused_s(limiter, items, key)
        if refused_s is not None:
            return refused_s
    for item in items:
        if not await limiter.hit(item, *key):
            return await _wait_s(limiter, item, key)
    return None


async def _refused_s(
    limiter: MovingWindowRateLimiter, items: Sequence[RateLimitItem], key: tuple[str, ...]
) -> int | None:
    waits = [await _wait_s(limiter, item, key) for item in items if not await limiter.test(item, *key)]
    return max(waits, default=None)


async def _wait_s(limiter: MovingWindowRateLimiter, item: RateLimitItem, key: tuple[str, ...]) -> int:
    window = await limiter.get_window_stats(item, *key)
    # The library counts by the machine's clock, so the wait is taken from the same one.
    return max(1, int(window.reset_time - SystemClock().now().timestamp()) + 1)
