"""The Socket.IO server of the product: the engine at both paths, its namespaces, and the log's deliveries."""

from collections.abc import Sequence

from aiohttp import web

from namespaces.names import ALL, places
from namespaces.orchestrator import OrchestratorNamespace
from namespaces.seats import Seats
from realtime.engine.manager import Broadcaster, RedisBroadcaster
from realtime.engine.server import EngineOptions
from realtime.engine.socketio_server import SocketIoServer
from realtime.log import NumberedEvent
from services.registry import Services
from services.unit_of_work import UnitOfWorkFactory

# The documented endpoint and the one under which the first ancestor mounted its server (contract.md 7.1).
PATHS = ("socket.io", "ws/socket.io")
# The channel of python-socketio's own manager, to which external write-only emitters publish.
EMITTER_CHANNEL = "socketio"
_MAX_MESSAGE_BYTES = 128 * 1024


class SocketServer:
    """Serves the namespaces and delivers the log's events to this instance's sockets."""

    def __init__(self, *, redis_url: str, origins: Sequence[str]) -> None:
        manager = RedisBroadcaster(redis_url, channel=EMITTER_CHANNEL) if redis_url else Broadcaster()
        self.sio = SocketIoServer(manager, EngineOptions(origins=tuple(origins), max_payload=_MAX_MESSAGE_BYTES))

    def open(self, app: web.Application, *, units: UnitOfWorkFactory, services: Services, seats: Seats) -> None:
        """Register every namespace and attach both paths to `app`."""
        for name in ALL:
            namespace = OrchestratorNamespace(name, units=units, services=services, seats=seats)
            self.sio.register_namespace(namespace)
        for path in PATHS:
            self.sio.attach(app, path)

    async def deliver(self, event: NumberedEvent) -> None:
        """Send one event of the log to the sockets here that are entitled to it."""
        payload = {**event.payload, "event_id": event.id, "seq": event.seq}
        for namespace, name in places(event):
            await self.sio.emit(name, payload, room=event.room, namespace=namespace, ignore_queue=True)

    async def close(self) -> None:
        """Close every connection, so that clients look for another instance."""
        await self.sio.shutdown()
