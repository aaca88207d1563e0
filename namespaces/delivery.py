"""Delivery: from the log, and from those who whisper, to the sockets of this instance that may hear it."""

from collections.abc import Callable, Mapping
from uuid import UUID

from namespaces.names import ALL, ROOTS, places
from namespaces.seats import Seat, Seats
from realtime.engine.manager import Broadcaster
from realtime.engine.wheel import Callback
from realtime.exchange import EphemeralEvent
from realtime.follower import Follower
from realtime.log import NumberedEvent, StreamState
from realtime.meter import Meter
from realtime.position import Position
from realtime.rooms import managers_room, tenant_room
from services.events import ROOT_TWINS
from services.history import wire_payload

# Above this many, the list of who is online is not sent unasked.
_LISTED = 500


class Delivery:
    """Says things to sockets; everything here happens at once, within one turn of the loop."""

    def __init__(self, manager: Broadcaster, *, meter: Meter) -> None:
        self._manager = manager
        self._meter = meter

    def deliver(self, event: NumberedEvent, epoch: str) -> int:
        """Send one event of the log to the sockets here that are entitled to it; returns to how many."""
        payload, position = wire_payload(event), f"{epoch}.{event.seq}"
        count = 0
        for namespace, name in places(event):
            count += self._manager.broadcast(name, payload, namespace, event.room, position=position)
            if namespace in ROOTS and name in ROOT_TWINS:
                # Clients that recover never hear the second name: cut off between both, they could not tell.
                twin = ROOT_TWINS[name]
                count += self._manager.broadcast(twin, payload, namespace, event.room, plain_only=True)
        return count

    def whisper(self, event: EphemeralEvent) -> None:
        """Send an ephemeral event to whoever of the room is here."""
        for namespace in (event.namespace, f"/ws{event.namespace}", *ROOTS):
            self._manager.broadcast(event.name, event.payload, namespace, event.room, key=event.key)

    def presence(self, tenant_id: UUID, online: frozenset[UUID]) -> None:
        """Tell a tenant's people how many of them are online, and its owners and admins who."""
        everybody, managers = tenant_room(tenant_id), managers_room(tenant_id)
        count = {"online": len(online)}
        listed = {**count, "users": sorted(map(str, online))} if len(online) <= _LISTED else count
        for root in ROOTS:
            self._manager.broadcast("presence:changed", listed, root, managers, key="presence")
            self._manager.broadcast("presence:changed", count, root, everybody, key="presence", except_room=managers)

    def tell(self, seat: Seat, event: NumberedEvent, epoch: str) -> int:
        """Send one event of the log to one socket; returns its size in bytes."""
        return self.say(seat, event.name, wire_payload(event), position=f"{epoch}.{event.seq}")

    def say(self, seat: Seat, name: str, payload: Mapping[str, object] | None, *, position: str | None = None) -> int:
        """Send an event to one socket; returns its size in bytes."""
        return self._manager.say(seat.member, name, payload, seat.namespace, position=position)

    def reset(self, seat: Seat, reason: str, state: StreamState) -> None:
        """Tell a socket that it must load its state anew, and that it hears everything after the head."""
        self._meter.resets[reason] += 1
        place = Position(state.epoch, state.head)
        self.say(seat, "rt:reset", {"reason": reason, "epoch": state.epoch, "head": state.head}, position=str(place))

    def place(self, seat: Seat, place: Position) -> None:
        """Tell a recovering client where in the stream it is."""
        if seat.member.positioned:
            self.say(seat, "rt:pos", None, position=str(place))

    def place_all(self, tenant_id: UUID, place: Position) -> None:
        """Tell every recovering client of a tenant that is live where in the stream it is."""
        for namespace in ALL:
            room = tenant_room(tenant_id)
            self._manager.broadcast("rt:pos", None, namespace, room, position=str(place), positioned_only=True)


class Reminder:
    """Tells recovering clients now and then where they are.

    A client that is entitled to none of the events which others get would otherwise keep a position for so long that
    the log forgets what came after it.
    """

    _INTERVAL_S = 600.0

    def __init__(self, seats: Seats, follower: Follower, delivery: Delivery) -> None:
        self._seats = seats
        self._follower = follower
        self._delivery = delivery

    def start(self, call_later: Callable[[float, Callback], None]) -> None:
        """Remind for as long as the wheel turns."""

        def remind() -> None:
            self.remind()
            call_later(self._INTERVAL_S, remind)

        call_later(self._INTERVAL_S, remind)

    def remind(self) -> None:
        """Tell every client that is live where it is."""
        for tenant_id in self._seats.tenants():
            state = self._follower.state(tenant_id)
            self._delivery.place_all(tenant_id, Position(state.epoch, state.head))
