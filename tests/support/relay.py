"""A TCP relay to a real server that can be cut, held and restored, so that an outage hurts nobody but the test.

It can also end a conversation at one message of it, which is how a test stops a process at one point of its work.
"""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.support.stores import free_port

_PORTS = {"postgresql": 5432, "redis": 6379, "amqp": 5672}
# asyncpg says a statement once, with a name, and from then on the name alone.
_NAMED_STATEMENT = re.compile(rb"(__asyncpg_\w+?__)\x00([^\x00]{6,})\x00")


@dataclass(frozen=True, slots=True, eq=False)
class Snare:
    """Where conversations end; `caught` is set once one has."""

    words: tuple[bytes, ...]
    answered: bool
    caught: asyncio.Event = field(default_factory=asyncio.Event)


class _Conversation:
    """What one client has said so far."""

    def __init__(self) -> None:
        self.is_mute = False
        self._statements: dict[bytes, bytes] = {}
        self._snare: Snare | None = None
        self._place = 0

    def runs_into(self, snare: Snare | None, data: bytes) -> bool:
        """Take in what the client says; tell whether it has now said all words of the snare, one after the other."""
        for name, statement in _NAMED_STATEMENT.findall(data):
            self._statements[name] = statement
        if snare is not self._snare:
            self._snare, self._place = snare, 0
        if snare is None:
            return False
        said = data + b"".join(text for name, text in self._statements.items() if name + b"\x00" in data)
        while self._place < len(snare.words) and snare.words[self._place] in said:
            self._place += 1
        return self._place == len(snare.words)


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
        self._snare: Snare | None = None

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

    def lay_snare(self, *words: bytes, answered: bool = False) -> Snare:
        """End every conversation in which a client says these words from now on, in one message or in several.

        The message with the last of them does not reach the server. With `answered` it does, and what the server
        answers does not reach the client. Connections stay open until the client's end.
        """
        self._snare = Snare(words, answered)
        return self._snare

    def take_snare_away(self) -> None:
        """Let new conversations pass; those that have ended stay so."""
        self._snare = None

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
                conversation = _Conversation()
                await asyncio.gather(self._ask(reader, back, conversation), self._answer(there, writer, conversation))
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

    async def _ask(
        self, client: asyncio.StreamReader, server: asyncio.StreamWriter, conversation: _Conversation
    ) -> None:
        with suppress(OSError):
            while data := await client.read(65536):
                snare = self._snare
                if conversation.runs_into(snare, data) and snare is not None:
                    if not snare.answered:
                        snare.caught.set()
                        await _swallow(client)
                        break
                    conversation.is_mute = True
                server.write(data)
                await server.drain()
        server.transport.abort()

    async def _answer(
        self, server: asyncio.StreamReader, client: asyncio.StreamWriter, conversation: _Conversation
    ) -> None:
        with suppress(OSError):
            while data := await server.read(65536):
                await self._answers.wait()
                if conversation.is_mute:
                    if self._snare is not None:
                        # It was done, or there would be no answer.
                        self._snare.caught.set()
                    await _swallow(server)
                    break
                client.write(data)
                await client.drain()
        client.transport.abort()


async def _swallow(source: asyncio.StreamReader) -> None:
    while await source.read(65536):
        pass


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
