"""A TCP relay to a real server that can be cut, held and restored, so that an outage hurts nobody but the test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from tests.support.stores import free_port


class Relay:
    """Stands between a client and a server."""

    def __init__(self, host: str, port: int) -> None:
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
        there, back = await asyncio.open_connection(*self._target)
        ends = {writer, back}
        self._writers |= ends
        try:
            await asyncio.gather(self._copy(reader, back, held=False), self._copy(there, writer, held=True))
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

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
    assert parts.hostname is not None
    relay = Relay(parts.hostname, parts.port or 5672)
    await relay.restore()
    login = parts.netloc.rpartition("@")[0]
    try:
        yield relay, parts._replace(netloc=f"{login}@127.0.0.1:{relay.port}".lstrip("@")).geturl()
    finally:
        relay.let_answers_pass()
        await relay.cut()
