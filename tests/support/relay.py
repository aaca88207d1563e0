"""A TCP relay to a real server that can be cut, held and restored, so that an outage hurts nobody but the test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.support.stores import free_port

_PORTS = {"postgresql": 5432, "redis": 6379, "amqp": 5672}


class Relay:
    """Stands between a client and a server."""

    def __init__(self, host: str, port: int) -> None:
        """`host` may be a folder: that of the Unix sockets of a PostgreSQL which listens on nothing else."""
        self._target = (host, port)
        self.port = free_port()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers = asyncio.Event()
        self._answers.set()

    async def restore(self) -> None:
        """Let clients connect, for the first time or again."""
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self.port)

    async def cut(self) -> None:
        """Break every connection and refuse new ones, as a server that has crashed."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hold_answers(self) -> None:
        """Keep back what the server says, as a network that loses one direction."""
        self._answers.clear()

    def let_answers_pass(self) -> None:
        self._answers.set()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        there, back = await self._reach()
        ends = {writer, back}
        self._writers |= ends
        try:
            await asyncio.gather(self._copy(reader, back, held=False), self._copy(there, writer, held=True))
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self._target
        if host.startswith("/"):
            return await asyncio.open_unix_connection(Path(host) / f".s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, held: bool) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                if held:
                    await self._answers.wait()
                sink.write(data)
                await sink.drain()
        sink.transport.abort()


@asynccontextmanager
async def relay_to(url: str) -> AsyncIterator[tuple[Relay, str]]:
    """Yield a relay to the server that `url` names, and the URL by which it is reached."""
    parts = urlsplit(url)
    host = parts.hostname or parse_qs(parts.query)["host"][0]
    relay = Relay(host, parts.port or _PORTS[parts.scheme])
    await relay.restore()
    login = parts.netloc.rpartition("@")[0]
    try:
        yield relay, parts._replace(netloc=f"{login}@127.0.0.1:{relay.port}".lstrip("@"), query="").geturl()
    finally:
        relay.let_answers_pass()
        await relay.cut()
