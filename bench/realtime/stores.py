"""Databases of this run's own on the PostgreSQL and the Redis that are there, and their removal afterwards."""

import asyncio
import getpass
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import asyncpg
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import make_url

from bench.realtime.talk import Broken
from server.database import plain_url
from server.settings import load_settings

_REDIS = "redis://127.0.0.1:6379/0"
# A claim on a database of Redis, which by itself knows no owners; it ends by itself should nobody take it back.
_CLAIM = "orchestrator:bench"
_CLAIM_S = 3600


@contextmanager
def own_database() -> Iterator[str]:
    """Create a database beside that of DATABASE_URL, else on the local port, and yield its address."""
    server = _reachable(load_settings().database_url.get_secret_value())
    name = f"orchestrator_bench_{secrets.token_hex(4)}"
    asyncio.run(_execute(server, f'CREATE DATABASE "{name}"'))
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        asyncio.run(_execute(server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))


@contextmanager
def own_redis() -> Iterator[str]:
    """Claim an empty database on the Redis of REDIS_URL, else on the local port, and yield its address.

    Whoever uses that Redis meanwhile disturbs the figures.
    """
    server = make_url(load_settings().redis_url.get_secret_value() or _REDIS)
    for number in range(15, 0, -1):
        url = server.set(database=str(number)).render_as_string(hide_password=False)
        redis = Redis.from_url(url)
        if _claim(redis):
            try:
                yield url
            finally:
                redis.flushdb()
                redis.close()
            return
        redis.close()
    raise Broken("Redis has no empty database among the numbers 1 to 15")


def _claim(redis: Redis) -> bool:
    try:
        if redis.dbsize() or not redis.set(_CLAIM, "1", nx=True, ex=_CLAIM_S):
            return False
    except RedisError as error:
        raise Broken(f"Redis cannot be reached: {error}. Start it, or name it by REDIS_URL.") from error
    return True


def _reachable(named: str) -> str:
    if named:
        return plain_url(named)
    for user in dict.fromkeys((getpass.getuser(), "postgres")):
        url = f"postgresql://{user}@127.0.0.1:5432/postgres"
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            asyncio.run(_execute(url, "SELECT 1"))
            return url
    raise Broken("PostgreSQL cannot be reached on its port. Start it, or name it by DATABASE_URL.")


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
