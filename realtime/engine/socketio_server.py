"""The Socket.IO server: python-socketio's programming model over the Engine.IO of this package.

Namespaces, `emit`, rooms, acknowledgements, sessions and external emitters are the library's; connections, rooms and
the way of a packet are ours, because the library holds a task, a queue and a request for every client.
"""

import asyncio
import inspect
import secrets
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

import socketio
import structlog
from aiohttp import web
from socketio.exceptions import ConnectionRefusedError as Refused

from realtime.engine import packet as sio
from realtime.engine.manager import Broadcaster, Member, client_of, engine_packets
from realtime.engine.packet import InvalidPacket, Packet
from realtime.engine.packets import MESSAGE, Data
from realtime.engine.server import EngineOptions, EngineServer
from realtime.engine.session import Reason, Session

# The attachments of one packet may together be this many times as big as the biggest message.
_ATTACHMENTS_SIZE = 10
# How often in a row a connection may ask for a namespace in vain: every refusal costs the look at a token.
_MAX_REFUSALS = 20

logger = structlog.get_logger(__name__)


Gate = Callable[[Member, str, int], Mapping[str, Any] | None]
AddressOf = Callable[[web.Request], str]


class _Engine:
    """What python-socketio expects of an Engine.IO server, in terms of ours."""

    async_mode = "aiohttp"

    def __init__(self, server: EngineServer) -> None:
        self._server = server

    @property
    def sessions(self) -> dict[str, Session]:
        return self._server.sessions

    def on(self, event: str, handler: object) -> None:
        """Take no handlers: sessions speak to the Socket.IO server itself."""

    def generate_id(self) -> str:
        return secrets.token_urlsafe(15)

    def attach(self, app: web.Application, path: str) -> None:
        self._server.attach(app, path)

    async def send(self, sid: str, data: Data) -> None:
        session = self.sessions.get(sid)
        if session is not None:
            session.send(MESSAGE + data if isinstance(data, str) else bytes(data))

    def transport(self, sid: str) -> str:
        return "polling" if self.sessions[sid].link is None else "websocket"

    async def disconnect(self, sid: str) -> None:
        session = self.sessions.get(sid)
        if session is not None:
            session.close(Reason.SERVER)

    async def shutdown(self) -> None:
        await self._server.shutdown()

    def start_background_task(self, target: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> asyncio.Task[Any]:
        return asyncio.get_running_loop().create_task(target(*args))

    async def sleep(self, seconds: float = 0) -> None:
        await asyncio.sleep(seconds)

    def create_event(self) -> asyncio.Event:
        return asyncio.Event()


def _peer(request: web.Request) -> str:
    return request.remote or ""


class SocketIoServer(socketio.AsyncServer):  # type: ignore[misc]
    """A conforming Socket.IO 5 server.

    `connect_timeout_s` is how long a connection may stay without being let into any namespace; `address_of` tells where
    a request comes from, for `environ["REMOTE_ADDR"]`, if others than the peer of its connection may know better.
    """

    def __init__(
        self,
        manager: Broadcaster,
        options: EngineOptions,
        *,
        connect_timeout_s: float = 45.0,
        address_of: AddressOf = _peer,
    ) -> None:
        self.engine = EngineServer(self, options)
        self._address_of = address_of
        self._connect_timeout_s = connect_timeout_s
        self._max_attachments = options.max_payload * _ATTACHMENTS_SIZE
        self.manager_initialized = False
        # Decides, by its size in bytes, whether an event is heard; what it returns is acknowledged instead.
        self.gate: Gate = lambda _, __, ___: None
        super().__init__(client_manager=manager, serializer=Packet)

    def _engineio_server_class(self) -> Callable[..., _Engine]:
        return lambda **_: _Engine(self.engine)

    def start(self) -> None:
        """Have the manager listen to other instances; done by the first connection if nobody did it before."""
        if not self.manager_initialized:
            self.manager_initialized = True
            self.manager.initialize()

    async def shutdown(self) -> None:
        """End every connection, and what joins this instance to others."""
        await super().shutdown()
        await self.manager.close()

    # What the engine tells

    def on_open(self, session: Session, request: web.Request) -> None:
        self.start()
        self.environ[session.sid] = _environ(request, self._address_of(request))
        self.engine.call_later(self._connect_timeout_s, partial(self._expect_namespace, session))

    def on_arrival(self, session: Session, data: Data) -> Packet | None:
        """Decode at once; what is no packet ends the session, and acknowledgements overtake events.

        A handler may be waiting for the very acknowledgement, and the events behind it wait for the handler.
        """
        try:
            packet = self._assemble(session, data)
            if packet is None or packet.packet_type not in (sio.ACK, sio.BINARY_ACK):
                return packet
            member = client_of(session).members.get(packet.namespace or "/")
            if member is None:
                raise InvalidPacket("not in this state")
        except InvalidPacket as error:
            self._refuse(session, error)
            return None
        self.engine.run(self._acknowledged(member, packet))
        return None

    async def on_message(self, session: Session, message: Packet) -> None:
        client = client_of(session)
        if client.refused:
            return
        try:
            await self._act(session, message)
        except InvalidPacket as error:
            client.refused = True
            self._refuse(session, error)

    async def on_close(self, session: Session, reason: Reason) -> None:
        for namespace, member in list(client_of(session).members.items()):
            await self._leave(member, namespace, reason.value)
        self.environ.pop(session.sid, None)
        # The timer wheel knows the session until its last deadline has passed, so it must be light by now.
        session.data = None

    # The way of a packet

    def _assemble(self, session: Session, data: Data) -> Packet | None:
        """Return the packet that `data` completes; None while attachments are outstanding."""
        client = client_of(session)
        partial_packet = client.partial
        if isinstance(data, bytes):
            if partial_packet is None:
                raise InvalidPacket("a binary message belongs to no packet")
            if not sio.add_attachment(partial_packet, data, max_total=self._max_attachments):
                return None
            client.partial = None
            return partial_packet
        if partial_packet is not None:
            raise InvalidPacket("text where an attachment was due")
        packet = sio.decode(data)
        if packet.attachment_count:
            client.partial = packet
            return None
        return packet

    async def _act(self, session: Session, packet: Any) -> None:
        namespace, kind = packet.namespace or "/", packet.packet_type
        member = client_of(session).members.get(namespace)
        if kind == sio.CONNECT and member is None:
            await self._enter(session, namespace, packet.data)
        elif member is None or kind in (sio.CONNECT, sio.CONNECT_ERROR):
            raise InvalidPacket("not in this state")
        elif kind == sio.DISCONNECT:
            await self._leave(member, namespace, Reason.CLIENT.value)
        elif member.connected:
            await self._hear(member, namespace, packet)

    async def _hear(self, member: Member, namespace: str, packet: Any) -> None:
        refusal = self.gate(member, namespace, packet.size)
        if refusal is None:
            await self._event(member, namespace, packet)
        elif packet.id is not None:
            answer = Packet(sio.ACK, namespace=namespace, data=[refusal], id=packet.id)
            for part in engine_packets(answer):
                member.session.send(part)

    async def _event(self, member: Member, namespace: str, packet: Any) -> None:
        try:
            await self._handle_event_internal(self, member.sid, member.session.sid, packet.data, namespace, packet.id)
        except Exception:
            # An event that fails is not answered; the connection goes on.
            logger.exception("event handler failed", namespace=namespace, event_name=packet.data[0])

    async def _acknowledged(self, member: Member, packet: Any) -> None:
        try:
            await self.manager.trigger_callback(member.sid, packet.id, packet.data)
        except Exception:
            logger.exception("acknowledgement callback failed", namespace=packet.namespace or "/")

    def _refuse(self, session: Session, error: InvalidPacket) -> None:
        logger.info("invalid packet", sid=session.sid, error=str(error))
        session.close(Reason.TRANSPORT_ERROR)

    # Coming and going

    async def _enter(self, session: Session, namespace: str, auth: Any) -> None:
        if not self._knows(namespace):
            self._turn_away(session, namespace, {"message": "Invalid namespace"})
            return
        sid = await self.manager.pre_connect(session.sid, namespace)
        if sid is None:
            # The session has ended meanwhile.
            return
        member = self._member(sid, namespace)
        refusal, additions = await self._ask(session, namespace, sid, auth)
        if refusal is not None:
            await self.manager.disconnect(member.sid, namespace, ignore_queue=True)
            self._turn_away(session, namespace, refusal)
            return
        self._say(session, sio.CONNECT, namespace, {"sid": member.sid, **additions})
        await self.manager.connect(member.sid, namespace)

    def _turn_away(self, session: Session, namespace: str, refusal: Any) -> None:
        self._say(session, sio.CONNECT_ERROR, namespace, refusal)
        client = client_of(session)
        client.refusals += 1
        if client.refusals >= _MAX_REFUSALS:
            logger.info("refused too often", sid=session.sid)
            session.close(Reason.TRANSPORT_ERROR)

    def _knows(self, namespace: str) -> bool:
        # The main namespace is always there; the application may add to `namespaces`, or set it to "*" for all.
        open_to_all = self.namespaces == "*" or namespace in self.namespaces
        return open_to_all or namespace in self.handlers or namespace in self.namespace_handlers

    async def _ask(self, session: Session, namespace: str, sid: str, auth: Any) -> tuple[Any, Mapping[str, Any]]:
        """Let the connect handler decide: what to tell a client that is refused, else None, and what CONNECT adds.

        A handler that returns a mapping agrees, and has it sent to the client beside its `sid`.
        """
        try:
            agreed = await self._trigger_event("connect", namespace, sid, self.environ[session.sid], auth)
        except Refused as error:
            return error.error_args, {}
        except Exception:
            logger.exception("connect handler failed", namespace=namespace)
            return {"message": "Internal error"}, {}
        if agreed is False:
            return Refused().error_args, {}
        return None, agreed if isinstance(agreed, Mapping) else {}

    async def disconnect(self, sid: str, namespace: str | None = None, ignore_queue: bool = False) -> None:  # noqa: FBT001, FBT002 - python-socketio's signature
        """Put a socket out of a namespace, here or on another instance; its connection stays."""
        namespace = namespace or "/"
        member = self.manager.member(sid, namespace)
        if member is not None and member.connected:
            self._say(member.session, sio.DISCONNECT, namespace, None)
            await self._leave(member, namespace, Reason.SERVER.value)
        elif not ignore_queue:
            await self.manager.can_disconnect(sid, namespace)

    async def _leave(self, member: Member, namespace: str, reason: str) -> None:
        if not member.connected and not member.joining:
            # Somebody else is seeing it out.
            return
        was_connected = member.connected
        self.manager.pre_disconnect(member.sid, namespace)
        try:
            if was_connected:
                await self._trigger_event("disconnect", namespace, member.sid, reason)
        except Exception:
            logger.exception("disconnect handler failed", namespace=namespace)
        finally:
            await self.manager.disconnect(member.sid, namespace, ignore_queue=True)

    def _say(self, session: Session, kind: int, namespace: str, data: Any) -> None:
        for packet in engine_packets(Packet(kind, namespace=namespace, data=data)):
            session.send(packet)

    def _expect_namespace(self, session: Session) -> None:
        if session.open and not client_of(session).admitted:
            session.close(Reason.TRANSPORT_CLOSE)

    async def _trigger_event(self, event: str, namespace: str, *args: Any) -> Any:
        if event == "connect" and not self._takes_auth(namespace):
            args = args[:2]
        return await super()._trigger_event(event, namespace, *args)

    def _takes_auth(self, namespace: str) -> bool:
        """Tell whether a connect handler asks for the auth payload; those of the library's older form do not."""
        handler, extra = self._get_event_handler("connect", namespace, ())
        if handler is None:
            owner, extra = self._get_namespace_handler(namespace, ())
            handler = getattr(owner, "on_connect", None)
        return handler is None or len(inspect.signature(handler).parameters) != len(extra) + 2

    # What python-socketio calls a session: data of the application's for one socket

    async def get_session(self, sid: str, namespace: str | None = None) -> dict[str, Any]:
        member = self._member(sid, namespace)
        if member.stored is None:
            member.stored = {}
        return member.stored

    async def save_session(self, sid: str, session: dict[str, Any], namespace: str | None = None) -> None:
        self._member(sid, namespace).stored = session

    def _member(self, sid: str, namespace: str | None) -> Member:
        member: Member | None = self.manager.member(sid, namespace or "/")
        if member is None:
            raise KeyError("Session not found")
        return member


def _environ(request: web.Request, address: str) -> dict[str, Any]:
    """Keep of a handshake what a connect handler may ask for, and not the request."""
    kept = {"QUERY_STRING": request.query_string, "REMOTE_ADDR": address}
    for name in ("Authorization", "Cookie", "Origin", "User-Agent", "X-API-Key", "X-Forwarded-For"):
        if name in request.headers:
            kept[f"HTTP_{name.upper().replace('-', '_')}"] = request.headers[name]
    return kept
