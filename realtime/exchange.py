"""The exchange: what an instance tells the others of a tenant, and what it does with what it is told.

Two kinds of things travel. Bells say that a tenant's stream has grown; a bell may be lost or rung twice without harm
(see `realtime.follower`). Ephemeral events are worth something now or never: they have no number, are not kept, and
of several with one key only the newest is said.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, Protocol
from uuid import UUID

from realtime.bus import Bus
from realtime.follower import Follower
from realtime.log import NumberedEvent

# Ephemeral events are gathered for this long, which is how newer ones take the place of older ones.
_GATHER_S = 0.05
# Beyond this many gathered at once, those of other keys are dropped.
_GATHER_LIMIT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class EphemeralEvent:
    """Something worth telling now or never; an earlier one with the same `key` gives way to it."""

    tenant_id: UUID
    namespace: str
    room: str
    name: str
    payload: Mapping[str, Any]
    key: str


class Bell(Protocol):
    """Rings after a commit, or tells those who are listening now; it never waits and never fails."""

    def ring(self, events: Sequence[NumberedEvent]) -> None: ...

    def whisper(self, event: EphemeralEvent) -> None: ...


Deliver = Callable[[EphemeralEvent], None]


class Exchange:
    """Reaches the sockets of this process at once, and those of every other one over the bus."""

    def __init__(self, bus: Bus, follower: Follower) -> None:
        self._bus = bus
        self._follower = follower
        # Where ephemeral events go; set once there are sockets to deliver to.
        self.deliver: Deliver = lambda _: None
        self._gathered: dict[tuple[UUID, str], EphemeralEvent] = {}
        # What else instances tell each other about a tenant, by kind.
        self.listeners: dict[str, Callable[[UUID, dict[str, Any]], None]] = {}
        follower.on_follow.append(self._open)
        follower.on_unfollow.append(self._close)

    def ring(self, events: Sequence[NumberedEvent]) -> None:
        """Say that events were committed; they are sorted by tenant and number."""
        for tenant_id, group in groupby(events, key=lambda event: event.tenant_id):
            batch = list(group)
            self._follower.hear(tenant_id, batch[-1].seq, batch)
            message = bell_message(batch)
            if not self._bus.publish(channel_of(tenant_id), message):
                # The head alone will do: whoever hears it reads the log.
                self._bus.publish(channel_of(tenant_id), {**message, "events": []})

    def whisper(self, event: EphemeralEvent) -> None:
        """Say an ephemeral event, soon."""
        if not self._gathered:
            asyncio.get_running_loop().call_later(_GATHER_S, self._say)
        key = (event.tenant_id, event.key)
        if key in self._gathered or len(self._gathered) < _GATHER_LIMIT:
            self._gathered[key] = event

    def tell(self, tenant_id: UUID, kind: str, message: Mapping[str, Any]) -> None:
        """Tell the other instances that follow a tenant; their listener for `kind` hears it."""
        self._bus.publish(channel_of(tenant_id), {"kind": kind, **message})

    def _say(self) -> None:
        gathered, self._gathered = self._gathered, {}
        for event in gathered.values():
            self.deliver(event)
            self._bus.publish(channel_of(event.tenant_id), _whisper_message(event))

    def _open(self, tenant_id: UUID) -> None:
        self._bus.subscribe(channel_of(tenant_id), lambda message: self._hear(tenant_id, message))

    def _close(self, tenant_id: UUID) -> None:
        self._bus.unsubscribe(channel_of(tenant_id))

    def _hear(self, tenant_id: UUID, message: dict[str, Any]) -> None:
        kind = message["kind"]
        if kind == "bell":
            self._follower.hear(tenant_id, int(message["head"]), events_of(tenant_id, message))
        elif kind == "whisper":
            self.deliver(_read_whisper(tenant_id, message))
        elif kind in self.listeners:
            self.listeners[kind](tenant_id, message)


def channel_of(tenant_id: UUID) -> str:
    """Return the channel of one tenant's stream."""
    return f"erpmax:stream:{tenant_id.hex}"


def bell_message(events: Sequence[NumberedEvent]) -> dict[str, Any]:
    """Write one tenant's consecutive events for the bus."""
    return {"kind": "bell", "head": events[-1].seq, "events": [_event_fields(event) for event in events]}


def events_of(tenant_id: UUID, message: Mapping[str, Any]) -> list[NumberedEvent]:
    """Read what `bell_message` wrote; raises ValueError, KeyError or TypeError when it is something else."""
    return [
        NumberedEvent(
            id=UUID(fields["id"]),
            tenant_id=tenant_id,
            namespace=fields["namespace"],
            room=fields["room"],
            name=fields["name"],
            payload=fields["payload"],
            created_at=datetime.fromisoformat(fields["created_at"]),
            seq=fields["seq"],
        )
        for fields in message["events"]
    ]


def _event_fields(event: NumberedEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        "namespace": event.namespace,
        "room": event.room,
        "name": event.name,
        "payload": event.payload,
        "created_at": event.created_at,
        "seq": event.seq,
    }


def _whisper_message(event: EphemeralEvent) -> dict[str, Any]:
    return {
        "kind": "whisper",
        "namespace": event.namespace,
        "room": event.room,
        "name": event.name,
        "payload": event.payload,
        "key": event.key,
    }


def _read_whisper(tenant_id: UUID, message: Mapping[str, Any]) -> EphemeralEvent:
    return EphemeralEvent(
        tenant_id=tenant_id,
        namespace=message["namespace"],
        room=message["room"],
        name=message["name"],
        payload=message["payload"],
        key=message["key"],
    )
