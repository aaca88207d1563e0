"""The event log: numbering inside the committing transaction, and reading back in order.

Appending takes the tenant's stream row as the transaction's last statement, so its lock is held until commit:
number order is commit order, without holes, and a rolled-back use case leaves no trace (realtime.md 3.4, way A).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from models.base import Base
from models.events import EventStream, LoggedEvent, new_epoch

_STREAMS = Base.metadata.tables[EventStream.__tablename__]
_EVENTS = Base.metadata.tables[LoggedEvent.__tablename__]


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingEvent:
    """An event that waits for its number; `room` is one of `realtime.rooms`."""

    id: UUID
    tenant_id: UUID
    namespace: str
    room: str
    name: str
    payload: Mapping[str, Any]
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberedEvent(PendingEvent):
    """An event with its place in the tenant's stream; numbers start at 1 and have no holes."""

    seq: int


async def append(session: AsyncSession, events: Iterable[PendingEvent]) -> list[NumberedEvent]:
    """Number `events` and write them to the log; to be called last before the commit.

    Streams are taken in the order of tenant ids, so that two transactions over several tenants cannot deadlock.
    """
    numbered: list[NumberedEvent] = []
    by_tenant = sorted(events, key=lambda event: event.tenant_id)
    for tenant_id, group in groupby(by_tenant, key=lambda event: event.tenant_id):
        batch = list(group)
        head = await _advance(session, tenant_id, len(batch))
        numbered += [_number(event, head - len(batch) + place) for place, event in enumerate(batch, start=1)]
    if numbered:
        await session.execute(insert(_EVENTS), [_row(event) for event in numbered])
    return numbered


async def _advance(session: AsyncSession, tenant_id: UUID, count: int) -> int:
    statement = upsert(_STREAMS).values(tenant_id=tenant_id, epoch=new_epoch(), head=count)
    statement = statement.on_conflict_do_update(
        index_elements=[_STREAMS.c.tenant_id], set_={"head": _STREAMS.c.head + count}
    )
    head: int = (await session.execute(statement.returning(_STREAMS.c.head))).scalar_one()
    return head


def _number(event: PendingEvent, seq: int) -> NumberedEvent:
    return NumberedEvent(
        id=event.id,
        tenant_id=event.tenant_id,
        namespace=event.namespace,
        room=event.room,
        name=event.name,
        payload=event.payload,
        created_at=event.created_at,
        seq=seq,
    )


def _row(event: NumberedEvent) -> dict[str, Any]:
    return {
        "tenant_id": event.tenant_id,
        "seq": event.seq,
        "id": event.id,
        "namespace": event.namespace,
        "room": event.room,
        "name": event.name,
        "payload": dict(event.payload),
        "created_at": event.created_at,
    }


class EventLog:
    """Reads the log on connections of its own, outside any unit of work."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def heads(self, tenant_ids: Collection[UUID]) -> dict[UUID, int]:
        """Return the newest number of each tenant that has any; one index query for all of them."""
        statement = select(_STREAMS.c.tenant_id, _STREAMS.c.head).where(_STREAMS.c.tenant_id.in_(tenant_ids))
        async with self._engine.connect() as connection:
            rows = (await connection.execute(statement)).all()
        return {row.tenant_id: row.head for row in rows}

    async def read_after(self, tenant_id: UUID, after: int, *, limit: int) -> Sequence[NumberedEvent]:
        """Return up to `limit` events with numbers above `after`, in order."""
        statement = (
            select(_EVENTS)
            .where(_EVENTS.c.tenant_id == tenant_id, _EVENTS.c.seq > after)
            .order_by(_EVENTS.c.seq)
            .limit(limit)
        )
        async with self._engine.connect() as connection:
            rows = (await connection.execute(statement)).mappings().all()
        return [NumberedEvent(**row) for row in rows]
