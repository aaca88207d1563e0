"""A small load balancer: every new connection goes to some instance that answers.

Polling clients need each request of a session to reach the instance that holds it, so that it looks into the first
answers for the session's id, as a balancer with sticky sessions does, and has a connection carry one request only.
"""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

_SID_ASKED = re.compile(rb"^[A-Z]+ \S*[?&]sid=([\w-]+)")
_SID_GIVEN = re.compile(rb'"sid":"([\w-]+)"')
_UPGRADE = re.compile(rb"\r\nupgrade: *websocket", re.IGNORECASE)
_CONNECTION = re.compile(rb"\r\nconnection:[^\r]*", re.IGNORECASE)
_CHUNK = 65536

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Gateway:
    """Stands between the clients and the instances, which are told by their ports."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = list(ports)
        self._holders: dict[bytes, int] = {}
        self._open: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []
        self._server: asyncio.Server | None = None
        self.url = ""

    @property
    def connections(self) -> int:
        return len(self._open)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1000)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self, share: float) -> int:
        """Break a share of the open connections without a word, and return how many those were."""
        chosen = random.sample(self._open, round(len(self._open) * share))
        for ends in chosen:
            for end in ends:
                end.transport.abort()
        return len(chosen)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut(1.0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A connection that breaks, or a client that says no request, concerns that client only.
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n\r\n")
            asked = _SID_ASKED.search(head)
            port, streams = await self._reach(self._holders.get(asked[1]) if asked else None)
            if streams is not None:
                there, back = streams
                ends = (writer, back)
                self._open.append(ends)
                try:
                    back.write(
                        head
                        if _UPGRADE.search(head)
                        else _CONNECTION.sub(b"", head, 1).replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
                    )
                    await asyncio.gather(self._copy(reader, back), self._answer(there, writer, port, watch=not asked))
                finally:
                    self._open.remove(ends)
                    back.close()
        writer.close()

    async def _reach(self, holder: int | None) -> tuple[int, Streams | None]:
        others = [port for port in self._ports if port != holder]
        random.shuffle(others)
        for port in others if holder is None else [holder, *others]:
            with suppress(OSError):
                return port, await asyncio.open_connection("127.0.0.1", port)
        return 0, None

    async def _answer(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, port: int, *, watch: bool
    ) -> None:
        seen = b""
        while watch and len(seen) < 4096 and (data := await source.read(_CHUNK)):
            seen += data
            if given := _SID_GIVEN.search(seen):
                self._holders[given[1]] = port
                watch = False
            sink.write(data)
        await self._copy(source, sink)

    @staticmethod
    async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(_CHUNK):
                sink.write(data)
                await sink.drain()
        finally:
            # Either end's farewell is passed on, after what it said before.
            sink.close()


@asynccontextmanager
async def gateway(ports: Sequence[int]) -> AsyncIterator[Gateway]:
    """Yield a gateway to instances, open for clients."""
    door = Gateway(ports)
    await door.start()
    try:
        yield door
    finally:
        await door.close()
