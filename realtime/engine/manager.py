"""Rooms: who is in which, so that a broadcast is one loop and a farewell costs only one's own rooms.

These are python-socketio's client managers with another heart. A broadcast encodes its packet once, frames it once,
and gives the same bytes to every socket: no task and no await per client, and so no other broadcast in between.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import socketio
from socketio import packet as sio

from realtime.engine import packets
from realtime.engine.packet import Packet
from realtime.engine.packets import Data
from realtime.engine.session import Reason, Session, packet_frame
from realtime.meter import Meter


class Member:
    """One socket: a client's place in one namespace. `stored` is its session in python-socketio's sense.

    It is joining until its CONNECT is answered, then connected, and in the end leaving. What is said to it while it
    joins waits in `early`: a client may not hear of a namespace that it is not connected to yet.

    A `positioned` client is told with every event where in the stream it is: it takes the trailing string of an event
    for that (socket.io-client's connection state recovery).
    """

    __slots__ = ("connected", "early", "positioned", "rooms", "session", "sid", "stored")

    def __init__(self, sid: str, session: Session) -> None:
        self.sid = sid
        self.session = session
        self.connected = False
        self.positioned = False
        self.early: list[Data] | None = []
        self.rooms: tuple[str, ...] = ()
        self.stored: dict[str, Any] | None = None

    @property
    def joining(self) -> bool:
        return self.early is not None

    def admit(self) -> None:
        """Say what has been waiting; the CONNECT answer has been sent."""
        self.connected = True
        early, self.early = self.early, None
        for packet in early or ():
            self.session.send(packet)


class Client:
    """What is kept with a connection: its sockets by namespace, and a packet whose attachments are still to come.

    `admitted` tells whether any namespace has ever let it in, `refused` whether it has broken the protocol: what it
    said after that is not heard. `refusals` counts how often in a row it was let into no namespace.
    """

    __slots__ = ("admitted", "members", "partial", "refusals", "refused")

    def __init__(self) -> None:
        self.admitted = False
        self.refusals = 0
        self.refused = False
        self.members: dict[str, Member] = {}
        self.partial: Packet | None = None


def client_of(session: Session) -> Client:
    """Return what is kept with a connection."""
    if not isinstance(session.data, Client):
        session.data = Client()
    return session.data


Room = dict[str, Member]


class Broadcaster(socketio.AsyncManager):  # type: ignore[misc]
    """Keeps the sockets of this process and sends to them."""

    def __init__(self) -> None:
        super().__init__()
        self.meter = Meter()
        self.members: dict[str, Room] = {}
        self._rooms: dict[tuple[str, str], Room] = {}

    async def close(self) -> None:
        """Let go of what joins this process to others; there is nothing here."""

    # Sending

    async def emit(  # noqa: PLR0917 - python-socketio's signature
        self,
        event: str,
        data: Any,
        namespace: str,
        room: Any = None,
        skip_sid: Any = None,
        callback: Any = None,
        to: Any = None,
        **_: Any,
    ) -> None:
        """Send an event to a room (or rooms, or everybody) of a namespace, once to each socket."""
        room = to or room
        skipped = set(skip_sid) if isinstance(skip_sid, list) else {skip_sid}
        arguments = [event, *_arguments(data)]
        if callback is not None:
            for member in list(self._audience(namespace, room)):
                if member.sid not in skipped:
                    number = self._generate_ack_id(member.sid, callback)
                    _Encoding(self.server, namespace, arguments, number).send(member, None)
            return
        audience = (member for member in self._audience(namespace, room) if member.sid not in skipped)
        self._say(arguments, namespace, audience, None, None)

    def broadcast(
        self,
        event: str,
        data: Any,
        namespace: str,
        room: str,
        *,
        position: str | None = None,
        key: str | None = None,
        plain_only: bool = False,
        positioned_only: bool = False,
        except_room: str = "",
    ) -> int:
        """Send an event to a room of this process, at once and without a turn of the loop; returns to how many.

        Positioned clients get `position` behind the data, or with `plain_only` nothing at all, and with
        `positioned_only` nobody else gets anything; who is in `except_room` as well is left out. With a `key` the event
        is ephemeral: a client that is slow to read gets only the newest one of each key, once it has read the rest.
        """
        members = self._room(namespace, room)
        if not members:
            return 0
        audience: Iterable[Member] = members.values()
        if plain_only or positioned_only or except_room:
            left_out = self._room(namespace, except_room)
            forms = (False,) if plain_only else (True,) if positioned_only else (False, True)
            audience = [member for member in audience if member.positioned in forms and member.sid not in left_out]
        self._say([event, *_arguments(data)], namespace, audience, position, key)
        return len(members)

    def say(self, member: Member, event: str, data: Any, namespace: str, *, position: str | None = None) -> int:
        """Send an event to one socket, as `broadcast` does; returns its size in bytes."""
        return self._say([event, *_arguments(data)], namespace, (member,), position, None)

    def _say(
        self, arguments: list[Any], namespace: str, audience: Iterable[Member], position: str | None, key: str | None
    ) -> int:
        plain, positioned = _Encoding(self.server, namespace, arguments), None
        size = 0
        for member in audience:
            if member.positioned:
                # A trailing string that is no position would be taken for one; null is not.
                trailing = position is not None or isinstance(arguments[-1], str)
                positioned = positioned or (
                    _Encoding(self.server, namespace, [*arguments, position]) if trailing else plain
                )
                size = positioned.send(member, key)
            else:
                size = plain.send(member, key)
            self.meter.delivered_bytes += size
            self.meter.deliveries += 1
        return size

    def _audience(self, namespace: str, room: Any) -> Iterator[Member]:
        if room is None:
            yield from self.members.get(namespace, {}).values()
        elif isinstance(room, (list, tuple, set, frozenset)):
            union: Room = {}
            for name in room:
                union.update(self._room(namespace, name))
            yield from union.values()
        else:
            yield from self._room(namespace, room).values()

    def _room(self, namespace: str, room: str) -> Room:
        # Every socket is alone in a room that bears its id.
        member = self.member(room, namespace)
        return {room: member} if member is not None else self._rooms.get((namespace, room), {})

    async def trigger_callback(self, sid: str, id: int, data: list[Any]) -> None:  # noqa: A002 - the library's name
        # The library keeps its counter under the number 0, which a client could acknowledge.
        if id:
            await super().trigger_callback(sid, id, data)

    # Coming and going

    async def pre_connect(self, eio_sid: str, namespace: str) -> str | None:
        session = self.server.eio.sessions.get(eio_sid)
        if session is None or namespace in client_of(session).members:
            return None
        member = Member(self.server.eio.generate_id(), session)
        self.members.setdefault(namespace, {})[member.sid] = member
        client_of(session).members[namespace] = member
        return member.sid

    async def connect(self, sid: str, namespace: str) -> str | None:
        member = self.member(sid, namespace)
        if member is None:
            return None
        client = client_of(member.session)
        client.admitted, client.refusals = True, 0
        member.admit()
        return sid

    async def disconnect(self, sid: str, namespace: str, **_: Any) -> None:
        member = self.members.get(namespace, {}).pop(sid, None)
        if member is None:
            return
        if not self.members[namespace]:
            del self.members[namespace]
        for room in member.rooms:
            self._leave(member, namespace, room)
        self.callbacks.pop(sid, None)
        client_of(member.session).members.pop(namespace, None)

    def pre_disconnect(self, sid: str, namespace: str) -> str | None:
        member = self.member(sid, namespace)
        if member is None:
            return None
        member.connected, member.early = False, None
        return member.session.sid

    async def enter_room(
        self,
        sid: str,
        namespace: str,
        room: str,
        eio_sid: str | None = None,  # noqa: ARG002 - python-socketio's signature
    ) -> None:
        member = self.member(sid, namespace)
        if member is None:
            raise ValueError("sid is not connected to requested namespace")
        if room == sid:
            return
        if self.member(room, namespace) is not None:
            raise ValueError("cannot enter a sid room")
        self.enter(member, namespace, room)

    def enter(self, member: Member, namespace: str, room: str) -> None:
        """Have a socket of this process enter a room, at once."""
        if room not in member.rooms:
            member.rooms = (*member.rooms, room)
            self._rooms.setdefault((namespace, room), {})[member.sid] = member

    def exit(self, member: Member, namespace: str, room: str) -> None:
        """Have a socket of this process leave a room, at once."""
        if room in member.rooms:
            member.rooms = tuple(name for name in member.rooms if name != room)
            self._leave(member, namespace, room)

    def resume(self, member: Member, namespace: str, sid: str) -> None:
        """Give a joining socket, which is in no room yet, the id that it had on an earlier connection.

        Where that connection still stands, because nobody has missed it yet, it is ended under the other id.
        """
        sockets = self.members[namespace]
        former = sockets.get(sid)
        del sockets[member.sid]
        if former is not None:
            for room in former.rooms:
                self._leave(former, namespace, room)
            former.rooms, former.sid = (), member.sid
            sockets[former.sid] = former
            former.session.close(Reason.TRANSPORT_CLOSE)
        member.sid = sid
        sockets[sid] = member

    async def leave_room(self, sid: str, namespace: str, room: str) -> None:
        member = self.member(sid, namespace)
        if member is not None:
            self.exit(member, namespace, room)

    async def close_room(self, room: str, namespace: str) -> None:
        for sid in list(self._rooms.get((namespace, room), ())):
            # Not that of a subclass, which would tell the other instances of each socket.
            await Broadcaster.leave_room(self, sid, namespace, room)

    def _leave(self, member: Member, namespace: str, room: str) -> None:
        members = self._rooms.get((namespace, room))
        if members is not None:
            members.pop(member.sid, None)
            if not members:
                del self._rooms[namespace, room]

    # Looking up

    def member(self, sid: str, namespace: str) -> Member | None:
        return self.members.get(namespace, {}).get(sid)

    def is_connected(self, sid: str, namespace: str) -> bool:
        member = self.member(sid, namespace)
        return member is not None and member.connected

    def is_pre_connected(self, sid: str, namespace: str) -> bool:
        member = self.member(sid, namespace)
        return member is not None and member.joining

    def get_namespaces(self) -> Iterable[str]:
        return self.members.keys()

    def get_participants(self, namespace: str, room: Any) -> Iterator[tuple[str, str]]:
        for member in list(self._audience(namespace, room)):
            yield member.sid, member.session.sid

    def get_rooms(self, sid: str, namespace: str) -> list[str]:
        member = self.member(sid, namespace)
        return [sid, *member.rooms] if member is not None else []

    def sid_from_eio_sid(self, eio_sid: str, namespace: str) -> str | None:
        session = self.server.eio.sessions.get(eio_sid)
        member = client_of(session).members.get(namespace) if session is not None else None
        return member.sid if member is not None else None

    def eio_sid_from_sid(self, sid: str, namespace: str) -> str | None:
        member = self.member(sid, namespace)
        return member.session.sid if member is not None else None


def _arguments(data: Any) -> list[Any]:
    if isinstance(data, tuple):
        return list(data)
    return [] if data is None else [data]


class _Encoding:
    """One event, encoded and framed once for however many clients get it, at the first of them."""

    __slots__ = ("_arguments", "_framed", "_namespace", "_number", "_server", "_size")

    def __init__(self, server: Any, namespace: str, arguments: list[Any], number: int | None = None) -> None:
        self._server = server
        self._namespace = namespace
        self._arguments = arguments
        self._number = number
        self._framed: list[tuple[Data, bytes]] | None = None
        self._size = 0

    def send(self, member: Member, key: str | None) -> int:
        """Send to one socket and return how many bytes that were."""
        framed = self._framed or self._encode()
        if not member.connected:
            if member.early is not None:
                member.early.extend(packet for packet, _ in framed)
            return self._size
        for packet, frame in framed:
            if key is None:
                member.session.send(packet, frame)
            else:
                member.session.send_latest((self._namespace, key), packet, frame)
        return self._size

    def _encode(self) -> list[tuple[Data, bytes]]:
        packet = self._server.packet_class(sio.EVENT, namespace=self._namespace, data=self._arguments, id=self._number)
        self._framed = [(part, packet_frame(part)) for part in engine_packets(packet)]
        self._size = sum(len(frame) for _, frame in self._framed)
        return self._framed


def engine_packets(packet: Any) -> list[Data]:
    """Encode a Socket.IO packet into Engine.IO packets: a text, and one binary message for each attachment."""
    encoded = packet.encode()
    parts = encoded if isinstance(encoded, list) else [encoded]
    return [packets.MESSAGE + part if isinstance(part, str) else bytes(part) for part in parts]
