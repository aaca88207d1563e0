"""The factories: a conforming Socket.IO or Engine.IO server on any aiohttp application, with no database or Redis."""

from collections.abc import Sequence

from aiohttp import web

from realtime.engine.manager import Broadcaster
from realtime.engine.server import EngineListener, EngineOptions, EngineServer
from realtime.engine.socketio_server import SocketIoServer


def attach(
    app: web.Application,
    *,
    paths: Sequence[str] = ("socket.io",),
    options: EngineOptions | None = None,
    connect_timeout_s: float = 45.0,
    manager: Broadcaster | None = None,
) -> SocketIoServer:
    """Attach a Socket.IO server to `app` at each of `paths` and return it, ready for namespaces and handlers.

    It lives as long as the application: its connections are closed when the application shuts down.
    """
    server = SocketIoServer(manager or Broadcaster(), options or EngineOptions(), connect_timeout_s=connect_timeout_s)
    for path in paths:
        server.attach(app, path)

    async def start(_: web.Application) -> None:
        server.start()

    async def close(_: web.Application) -> None:
        await server.shutdown()

    app.on_startup.append(start)
    app.on_shutdown.append(close)
    return server


def attach_engine(
    app: web.Application,
    listener: EngineListener,
    *,
    paths: Sequence[str] = ("engine.io",),
    options: EngineOptions | None = None,
) -> EngineServer:
    """Attach a bare Engine.IO server to `app` at each of `paths` and return it; `listener` hears of its sessions.

    It lives as long as the application: its connections are closed when the application shuts down.
    """
    server = EngineServer(listener, options or EngineOptions())
    for path in paths:
        server.attach(app, path)

    async def close(_: web.Application) -> None:
        await server.shutdown()

    app.on_shutdown.append(close)
    return server
