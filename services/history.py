"""The log as its readers page through it: what happened after a place they remember, and only what they may see."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict

from core.clock import Clock
from core.errors import DomainError, ErrorKind
from realtime.log import EventLog, NumberedEvent, StreamState
from realtime.position import Position
from realtime.rooms import entitled_rooms
from services.identity import Principal, require_tenant

MAX_PAGE = 1000


class PositionLost(DomainError):
    """What came after the reader's position cannot be told completely; the state must be loaded anew."""

    kind = ErrorKind.GONE
    code = "POSITION_LOST"
    message = "Events after this position are no longer known; load the present state and go on from head"

    def __init__(self, reason: str, state: StreamState) -> None:
        super().__init__(details={"reason": reason, "epoch": state.epoch, "head": state.head})


class HistoricEvent(BaseModel):
    """One event of the log; `data` is what sockets get."""

    model_config = ConfigDict(frozen=True)

    event: str
    namespace: str
    seq: int
    data: dict[str, Any]


class HistoryPage(BaseModel):
    """Events after a position. Go on with `after_seq=next_after_seq` while there is `more`."""

    model_config = ConfigDict(frozen=True)

    events: list[HistoricEvent]
    epoch: str
    head: int
    next_after_seq: int
    more: bool


def why_lost(position: Position, state: StreamState) -> str | None:
    """Return why nothing can be told after a position, or None when all can: the reasons of `rt:reset`."""
    if position.epoch and position.epoch != state.epoch:
        return "epoch"
    if position.seq > state.head:
        return "future"
    return "pruned" if position.seq < state.floor else None


def wire_payload(event: NumberedEvent) -> dict[str, Any]:
    """Return the payload that clients get: the event's own fields, its id and its number."""
    return {**event.payload, "event_id": event.id, "seq": event.seq}


class HistoryService:
    """Reads the log for clients, and lets it forget."""

    def __init__(self, log: EventLog, *, clock: Clock, keep: timedelta, keep_count: int) -> None:
        self._log = log
        self._clock = clock
        self._keep = keep
        self._keep_count = keep_count

    async def page(
        self, reader: Principal, position: Position, *, limit: int, namespace: str | None = None
    ) -> HistoryPage:
        """Show up to `limit` events after a position, in order; raises PositionLost and NoTenantInToken."""
        tenant_id = require_tenant(reader)
        rooms = entitled_rooms(tenant_id, reader.user_id, manager=reader.manages)
        tail = await self._log.read_tail(
            tenant_id, after=position.seq, upto=None, rooms=rooms, namespace=namespace, limit=limit
        )
        reason = why_lost(position, tail.state)
        if reason is not None:
            raise PositionLost(reason, tail.state)
        more = len(tail.events) == limit
        return HistoryPage(
            events=_shown(tail.events),
            epoch=tail.state.epoch,
            head=tail.state.head,
            next_after_seq=tail.events[-1].seq if more else tail.state.head,
            more=more,
        )

    async def prune(self) -> int:
        """Forget events that are too old, or too many of one tenant; returns how many."""
        return await self._log.prune(before=self._clock.now() - self._keep, keep_count=self._keep_count)


def _shown(events: Sequence[NumberedEvent]) -> list[HistoricEvent]:
    return [
        HistoricEvent(event=event.name, namespace=event.namespace, seq=event.seq, data=wire_payload(event))
        for event in events
    ]
