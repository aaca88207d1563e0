"""The stores that a process works with, opened at its start: PostgreSQL, Redis and RabbitMQ."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine
from taskiq import AsyncBroker, InMemoryBroker

from realtime.cancellation import keep_cancellations
from server.database import create_engine, embedded_postgres, normalise_url, ping
from server.settings import Settings

# How long a store may take to answer at start, and tasks to end at the end, in seconds.
_PATIENCE_S = 6.0


class StoreAway(Exception):
    """A store cannot be reached at start; the message says which and how to mend it."""


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[AsyncEngine]:
    """Open the database that `settings` name, starting the embedded one if they name none; raises StoreAway."""
    async with AsyncExitStack() as stack:
        if settings.embedded:
            url = await stack.enter_async_context(embedded_postgres(settings.data_dir))
        else:
            try:
                url = normalise_url(settings.database_url.get_secret_value())
            except (ValueError, ArgumentError) as error:
                raise _no_address("PostgreSQL", "DATABASE_URL") from error
        engine = create_engine(url, pool_size=settings.database_pool_size)
        stack.push_async_callback(engine.dispose)
        await _reach("PostgreSQL", "DATABASE_URL", engine.url.render_as_string(), lambda: ping(engine))
        yield engine


async def open_redis(stack: AsyncExitStack, settings: Settings) -> Redis | None:
    """Open the Redis that `settings` name, if they do; `stack` closes it. Raises StoreAway."""
    url = settings.redis_url.get_secret_value()
    if not url:
        return None
    # No retries inside the client: the bell has its own, and readiness must tell the truth at once.
    try:
        redis = Redis.from_url(
            url, socket_keepalive=True, socket_connect_timeout=2, socket_timeout=2, retry=Retry(NoBackoff(), 0)
        )
    except ValueError as error:
        raise _no_address("Redis", "REDIS_URL") from error
    keep_cancellations(redis)
    stack.push_async_callback(redis.aclose)
    await _reach("Redis", "REDIS_URL", _without_password(url), redis.ping)
    return redis


async def start_broker(stack: AsyncExitStack, broker: AsyncBroker, settings: Settings, *, worker: bool) -> None:
    """Start the broker for one who sends, or for a `worker`; `stack` shuts it down. Raises StoreAway."""
    broker.is_worker_process = worker
    address = _without_password(settings.rabbitmq_url.get_secret_value())
    await _reach("RabbitMQ", "RABBITMQ_URL", address, broker.startup)
    stack.push_async_callback(_end_broker, broker)


async def _end_broker(broker: AsyncBroker) -> None:
    # Tasks in this process need the database, which is closed next. What is given up here is taken up again after the
    # next start, for a task is a row.
    if isinstance(broker, InMemoryBroker):
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                await broker.wait_all()
    await broker.shutdown()


async def _reach(store: str, setting: str, address: str, probe: Callable[[], Awaitable[object]]) -> None:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await probe()
    except Exception as error:
        # Drivers raise dozens of kinds here; every one of them means the same to whoever starts the server.
        raise StoreAway(
            f"{store} cannot be reached at {address} ({type(error).__name__}: {error}). "
            f"Start it, or correct {setting}; see docs/configuration.md."
        ) from error


def _no_address(store: str, setting: str) -> StoreAway:
    return StoreAway(f"{setting} is not the address of a {store} server. Correct it; see docs/configuration.md.")


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
