"""A TCP relay to a real server that can be cut, held and restored, so that an outage hurts nobody but the test."""

import asyncio
import socket
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
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers = asyncio.Event()
        self._answers.set()

    async def restore(self) -> None:
        """Let clients connect, for the first time or again."""
        # Not `asyncio.start_server`: whoever is accepted while that one is being closed is dropped with an open
        # socket (an assertion in `Server._attach` of Python 3.11), which fails whatever test runs by then.
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listener.settimeout(0)
        asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    async def cut(self) -> None:
        """Break every connection and refuse new ones, as a server that has crashed."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        # Whoever has just been accepted must have begun, or its socket would stay open.
        await asyncio.sleep(0)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hold_answers(self) -> None:
        """Keep back what the server says, as a network that loses one direction."""
        self._answers.clear()

    def let_answers_pass(self) -> None:
        self._answers.set()

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            # The client has thought better of it.
            return
        task = asyncio.create_task(self._connect(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, connection: socket.socket) -> None:
        connection.settimeout(0)
        ends: list[asyncio.StreamWriter] = []
        try:
            reader, writer = await asyncio.open_connection(sock=connection)
            ends.append(writer)
            with suppress(OSError):
                there, back = await self._reach()
                ends.append(back)
                await asyncio.gather(self._copy(reader, back, held=False), self._copy(there, writer, held=True))
        finally:
            for end in ends:
                end.transport.abort()
            if not ends:
                connection.close()

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
