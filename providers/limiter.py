"""Rate limits by the `limits` library: moving windows on Redis, or in this process without it.

While Redis is away each instance counts for itself: a limit that is too generous for a while is better than a closed
door.
"""

import asyncio

import structlog
from limits import parse
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import StorageError
from redis.asyncio import ConnectionPool

from core.clock import SystemClock

_REDIS_TIMEOUT_S = 0.5

logger = structlog.get_logger(__name__)


class WindowRateLimiter:
    """Counts hits under a rule such as `10/minute` and a key."""

    def __init__(self, redis_url: str) -> None:
        self._local = MovingWindowRateLimiter(MemoryStorage())
        self._pool = ConnectionPool.from_url(redis_url) if redis_url else None
        self._shared = MovingWindowRateLimiter(_storage(redis_url, self._pool)) if self._pool is not None else None

    async def hit(self, rule: str, *key: str) -> int | None:
        """Count one hit; returns None when it is allowed, else the whole seconds to wait (at least 1)."""
        if self._shared is not None:
            try:
                async with asyncio.timeout(_REDIS_TIMEOUT_S):
                    return await _hit(self._shared, rule, key)
            except (StorageError, TimeoutError) as error:
                logger.warning("rate limits are local", error=repr(error))
        return await _hit(self._local, rule, key)

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


async def _hit(limiter: MovingWindowRateLimiter, rule: str, key: tuple[str, ...]) -> int | None:
    item = parse(rule)
    if await limiter.hit(item, *key):
        return None
    window = await limiter.get_window_stats(item, *key)
    # The library counts by the machine's clock, so the wait is taken from the same one.
    return max(1, int(window.reset_time - SystemClock().now().timestamp()) + 1)
