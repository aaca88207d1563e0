"""A server on a free port for one test, and a bare Engine.IO listener that sends back what it is told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import ClientSession, web

from realtime.engine.attach import attach_engine
from realtime.engine.server import EngineListener, EngineOptions, EngineServer
from realtime.engine.session import Reason, Session

# The times that conformance suites use: whole sessions end within half a second.
QUICK = EngineOptions(ping_interval_s=0.3, ping_timeout_s=0.2, upgrade_timeout_s=0.4)


@asynccontextmanager
async def serving(app: web.Application, *, handler_cancellation: bool = False) -> AsyncIterator[str]:
    """Yield the address of `app` on a free port."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=handler_cancellation)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Echo(EngineListener):
    """Sends every message back, and remembers its sessions."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.heard: dict[str, list[str | bytes]] = {}
        self.ended: dict[str, Reason] = {}

    def on_open(self, session, request) -> None:
        self.sessions.append(session)

    async def on_message(self, session, message) -> None:
        self.heard.setdefault(session.sid, []).append(message)
        session.send(message if isinstance(message, bytes) else f"4{message}")

    async def on_close(self, session, reason) -> None:
        self.ended[session.sid] = reason


class Bare:
    """A bare Engine.IO server: its address, its listener and itself."""

    def __init__(self, url: str, echo: Echo, server: EngineServer) -> None:
        self.url = url
        self.echo = echo
        self.server = server

    @property
    def session(self) -> Session:
        return self.echo.sessions[-1]


@asynccontextmanager
async def bare(
    options: EngineOptions | None = None, echo: Echo | None = None, *, handler_cancellation: bool = False
) -> AsyncIterator[Bare]:
    app, listener = web.Application(), echo or Echo()
    server = attach_engine(app, listener, options=options)
    async with serving(app, handler_cancellation=handler_cancellation) as url:
        yield Bare(url, listener, server)


class Poller:
    """An Engine.IO client by polling, packet by packet."""

    def __init__(self, http: ClientSession, url: str, *, path: str = "engine.io") -> None:
        self._http = http
        self._url = f"{url}/{path}/"
        self.query = {"EIO": "4", "transport": "polling"}

    async def open(self) -> "Poller":
        status, body = await self.get()
        assert (status, body[0]) == (200, "0")
        self.query["sid"] = body.split('"sid":"')[1].split('"')[0]
        return self

    @property
    def sid(self) -> str:
        return self.query["sid"]

    async def get(self) -> tuple[int, str]:
        async with self._http.get(self._url, params=self.query) as response:
            return response.status, await response.text()

    async def post(self, body: str | bytes) -> tuple[int, str]:
        async with self._http.post(self._url, params=self.query, data=body) as response:
            return response.status, await response.text()


async def until(true: Callable[[], object], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.005)


async def within(seconds: float, awaitable: Awaitable):
    return await asyncio.wait_for(awaitable, seconds)
