"""A Socket.IO server for one test, with the handlers that conformance suites expect, and a client packet by packet."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

from aiohttp import web

from realtime.engine.attach import attach
from realtime.engine.manager import Broadcaster, client_of
from realtime.engine.server import EngineOptions
from realtime.engine.socketio_server import SocketIoServer
from tests.realtime.engine.raw import RawSocket
from tests.realtime.engine.serving import serving

Handler = TypeVar("Handler", bound=Callable[..., object])


class Served:
    """A running Socket.IO server; `events` holds what its handlers were told: (what, namespace, sid, details)."""

    def __init__(self, url: str, sio: SocketIoServer) -> None:
        self.url = url
        self.sio = sio
        self.events: list[tuple[str, str, str, Any]] = []

    @property
    def broadcaster(self) -> Broadcaster:
        return self.sio.manager

    def of(self, what: str, sid: str | None = None) -> list[Any]:
        return [details for kind, _, who, details in self.events if kind == what and sid in (None, who)]

    def on(self, event: str, *, namespace: str = "/") -> Callable[[Handler], Handler]:
        """Decorate a handler."""

        def register(handler: Handler) -> Handler:
            self.sio.on(event, handler, namespace=namespace)
            return handler

        return register

    def register(self, namespace: str) -> None:
        """Give a namespace the handlers of the public conformance suite."""
        sio = self.sio

        async def connect(sid, environ, auth) -> None:
            self.events.append(("connect", namespace, sid, auth))
            await sio.emit("auth", auth or {}, to=sid, namespace=namespace)

        async def disconnect(sid, reason) -> None:
            self.events.append(("disconnect", namespace, sid, reason))

        async def message(sid, *arguments) -> None:
            self.events.append(("message", namespace, sid, arguments))
            await sio.emit("message-back", arguments, to=sid, namespace=namespace)

        async def with_ack(sid, *arguments) -> tuple[Any, ...]:
            return arguments

        for name, handler in {
            "connect": connect,
            "disconnect": disconnect,
            "message": message,
            "message-with-ack": with_ack,
        }.items():
            sio.on(name, handler, namespace=namespace)

    def leftovers(self) -> dict[str, int]:
        """Return what is kept, by place; everything is 0 on a server that nobody uses."""
        engine, manager = self.sio.engine, self.broadcaster
        return {
            "sessions": len(engine.sessions),
            "members": len(manager.members),
            "rooms": len(manager._rooms),
            "callbacks": len(manager.callbacks),
            "environ": len(self.sio.environ),
            "binary packets": len(self.sio._binary_packet),
            "farewells": len(engine._farewells),
            "callbacks on the wheel": len(engine._wheel),
            "slots of the wheel": len(engine._wheel._slots),
            "links to flush": len(engine._flusher._marked),
            "tasks": len(engine._running),
        }

    def partial_packets(self) -> int:
        return sum(client_of(session).partial is not None for session in self.sio.engine.sessions.values())


@asynccontextmanager
async def talking(
    options: EngineOptions | None = None,
    *,
    connect_timeout_s: float = 45.0,
    namespaces: tuple[str, ...] = ("/", "/custom"),
    manager: Broadcaster | None = None,
) -> AsyncIterator[Served]:
    app = web.Application()
    sio = attach(app, options=options, connect_timeout_s=connect_timeout_s, manager=manager)
    async with serving(app) as url:
        served = Served(url, sio)
        for namespace in namespaces:
            served.register(namespace)
        yield served


class Talker(RawSocket):
    """A Socket.IO client by websocket, packet by packet."""

    @classmethod
    async def enter(cls, served: Served, packet: str = "40") -> Self:
        """Open a connection; with a CONNECT packet, enter its namespace and pass over its greeting."""
        talker = await cls.open(served.url, path="socket.io")
        assert str(await talker.message())[0] == "0"
        if packet:
            await talker.join(packet)
        return talker

    async def join(self, packet: str = "40") -> str:
        """Enter a namespace, pass over its greeting, and return the socket's id."""
        self.send(packet)
        answer = str(await self.message())
        assert answer.startswith(packet.split("{", 1)[0].rstrip(",")), answer
        assert '["auth",' in str(await self.message())
        return json.loads(answer[answer.index("{") :])["sid"]

    async def says_nothing(self, seconds: float = 0.05) -> bool:
        try:
            async with asyncio.timeout(seconds):
                raise AssertionError(await self.message())
        except TimeoutError:
            return True
