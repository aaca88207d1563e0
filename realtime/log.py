"""The event log: numbering inside the committing transaction, and reading back in order.

Appending takes the tenant's stream row as the transaction's last statement, so its lock is held until commit:
number order is commit order, without holes, and a rolled-back use case leaves no trace (realtime.md 3.4, way A).
"""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Text,
    Uuid,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    select,
    text,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from models.base import Base
from models.events import EventStream, LoggedEvent, new_epoch
from models.isolation import enter

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


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """Where a stream stands: the log holds the numbers above `floor`, up to `head`.

    `epoch` names the life of the numbering; it is another one after a restore from a backup or the promotion of a
    replica, which may have lost numbers that clients have seen. A stream without events has no epoch yet.
    """

    epoch: str
    floor: int
    head: int


NO_EVENTS = StreamState(epoch="", floor=0, head=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """Part of a stream for one reader, as one snapshot saw it: the state, and the events asked for, in order."""

    state: StreamState
    events: Sequence[NumberedEvent]


# The server's identity and timeline are part of it, so that a restored or promoted database changes it by itself.
_EPOCH = """left(encode(sha256(convert_to(
    s.epoch || (SELECT system_identifier FROM pg_control_system()) || left(pg_walfile_name(pg_current_wal_lsn()), 8),
    'UTF8')), 'hex'), 10)"""
_STATES = text(f"""
    SELECT s.tenant_id, {_EPOCH} AS epoch, s.floor, s.head FROM event_streams s WHERE s.tenant_id = ANY(:tenant_ids)
""").bindparams(bindparam("tenant_ids", type_=ARRAY(Uuid)))  # noqa: S608 - no part of it comes from outside
_MOVED = text(f"""
    SELECT m.* FROM (
        SELECT s.tenant_id, {_EPOCH} AS epoch, s.floor, s.head, k.epoch AS known_epoch, k.floor AS known_floor,
               k.cursor
        FROM unnest(:tenant_ids, :epochs, :floors, :cursors) AS k(tenant_id, epoch, floor, cursor)
        JOIN event_streams s USING (tenant_id)
    ) m
    WHERE m.head <> m.cursor OR m.epoch <> m.known_epoch OR m.floor <> m.known_floor
""").bindparams(  # noqa: S608 - no part of it comes from outside
    bindparam("tenant_ids", type_=ARRAY(Uuid)),
    bindparam("epochs", type_=ARRAY(Text)),
    bindparam("floors", type_=ARRAY(BigInteger)),
    bindparam("cursors", type_=ARRAY(BigInteger)),
)

_COLUMNS = tuple(column.name for column in _EVENTS.columns)
_STATE_COLUMNS: tuple[ColumnElement[Any], ...] = (
    literal_column(_EPOCH).label("stream_epoch"),
    literal_column("s.floor").label("stream_floor"),
    literal_column("s.head").label("stream_head"),
)

# By age an event goes with all that came before it, for numbers are given in the order of commits, not of clocks.
_FLOORS = text("""
    SELECT s.tenant_id, s.floor, greatest(old.seq, s.head - :keep_count) AS wanted
    FROM event_streams s
    LEFT JOIN (SELECT tenant_id, max(seq) AS seq FROM events WHERE created_at < :before GROUP BY tenant_id) old
      USING (tenant_id)
    WHERE greatest(old.seq, s.head - :keep_count) > s.floor
""")
_PRUNE_STEP = 1000


class EventLog:
    """Reads the log on connections of its own, outside any unit of work."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @asynccontextmanager
    async def _connected(self, tenant_id: UUID | None) -> AsyncIterator[AsyncConnection]:
        """Yield a connection to the rows of one tenant, or with None of all."""
        async with self._engine.connect() as connection:
            if connection.sync_connection is not None:
                enter(connection.sync_connection, tenant_id)
            yield connection

    async def states(self, tenant_ids: Collection[UUID]) -> dict[UUID, StreamState]:
        """Return where each stream stands that has any events; one index query for all of them."""
        async with self._connected(None) as connection:
            rows = (await connection.execute(_STATES, {"tenant_ids": list(tenant_ids)})).all()
        return {row.tenant_id: StreamState(epoch=row.epoch, floor=row.floor, head=row.head) for row in rows}

    async def moved(self, known: Mapping[UUID, StreamState]) -> dict[UUID, StreamState]:
        """Return the state of those streams whose state is no longer as `known`."""
        arrays = {
            "tenant_ids": list(known),
            "epochs": [state.epoch for state in known.values()],
            "floors": [state.floor for state in known.values()],
            "cursors": [state.head for state in known.values()],
        }
        async with self._connected(None) as connection:
            rows = (await connection.execute(_MOVED, arrays)).all()
        return {row.tenant_id: StreamState(epoch=row.epoch, floor=row.floor, head=row.head) for row in rows}

    async def read_after(self, tenant_id: UUID, after: int, *, limit: int) -> Sequence[NumberedEvent]:
        """Return up to `limit` events with numbers above `after`, in order."""
        statement = (
            select(_EVENTS)
            .where(_EVENTS.c.tenant_id == tenant_id, _EVENTS.c.seq > after)
            .order_by(_EVENTS.c.seq)
            .limit(limit)
        )
        async with self._connected(tenant_id) as connection:
            rows = (await connection.execute(statement)).mappings().all()
        return [NumberedEvent(**row) for row in rows]

    async def read_since(self, tenant_id: UUID, since: datetime) -> Sequence[NumberedEvent]:
        """Return every event of a stream that was written after `since`, in order."""
        statement = (
            select(_EVENTS)
            .where(_EVENTS.c.tenant_id == tenant_id, _EVENTS.c.created_at > since)
            .order_by(_EVENTS.c.seq)
        )
        async with self._connected(tenant_id) as connection:
            rows = (await connection.execute(statement)).mappings().all()
        return [NumberedEvent(**row) for row in rows]

    async def read_tail(
        self,
        tenant_id: UUID,
        *,
        after: int,
        upto: int | None,
        rooms: Collection[str],
        namespace: str | None,
        limit: int,
    ) -> Tail:
        """Return what a reader of `rooms` is owed: up to `limit` events above `after` and not above `upto`.

        `namespace` limits them to one namespace. The tail is whole only while the returned floor is not above `after`.
        """
        stream_is = literal_column("s.tenant_id") == bindparam("stream", tenant_id, type_=Uuid)
        state = select(*_STATE_COLUMNS).select_from(text("event_streams s")).where(stream_is)
        owed = select(_EVENTS).where(
            _EVENTS.c.tenant_id == tenant_id, _EVENTS.c.seq > after, _EVENTS.c.room.in_(list(rooms))
        )
        if upto is not None:
            owed = owed.where(_EVENTS.c.seq <= upto)
        if namespace is not None:
            owed = owed.where(_EVENTS.c.namespace == namespace)
        events = owed.order_by(_EVENTS.c.seq).limit(limit).subquery("owed")
        stream = state.subquery("stream")
        # One statement, one snapshot: what a pruner takes away meanwhile is either wholly there or told by the floor.
        statement = select(stream, events).select_from(stream.outerjoin(events, true())).order_by(events.c.seq)
        async with self._connected(tenant_id) as connection:
            rows = (await connection.execute(statement)).mappings().all()
        if not rows:
            return Tail(state=NO_EVENTS, events=())
        first = rows[0]
        return Tail(
            state=StreamState(epoch=first["stream_epoch"], floor=first["stream_floor"], head=first["stream_head"]),
            events=[NumberedEvent(**{name: row[name] for name in _COLUMNS}) for row in rows if row["seq"] is not None],
        )

    async def count_owed(
        self, tenant_id: UUID, *, after: int, rooms: Collection[str], namespace: str | None, limit: int
    ) -> int:
        """Count what a reader of `rooms` is owed above `after`, up to `limit`."""
        owed = select(_EVENTS.c.seq).where(
            _EVENTS.c.tenant_id == tenant_id, _EVENTS.c.seq > after, _EVENTS.c.room.in_(list(rooms))
        )
        if namespace is not None:
            owed = owed.where(_EVENTS.c.namespace == namespace)
        async with self._connected(tenant_id) as connection:
            count = await connection.scalar(select(func.count()).select_from(owed.limit(limit).subquery()))
        return count or 0

    async def prune(self, *, before: datetime, keep_count: int) -> int:
        """Forget events written before a moment, and all but the newest `keep_count` of each stream; returns how many.

        A stream is pruned in small steps, each of which holds its numbering only for a moment. The floor rises in the
        same transaction, so that a reader never mistakes what is left for the whole.
        """
        async with self._connected(None) as connection:
            floors = (await connection.execute(_FLOORS, {"before": before, "keep_count": keep_count})).all()
        return sum([await self._raise_floor(row.tenant_id, row.floor, row.wanted) for row in floors])

    async def _raise_floor(self, tenant_id: UUID, floor: int, wanted: int) -> int:
        removed = 0
        while floor < wanted:
            floor = min(wanted, floor + _PRUNE_STEP)
            async with self._connected(tenant_id) as connection, connection.begin():
                stream_is = _STREAMS.c.tenant_id == tenant_id
                await connection.execute(
                    update(_STREAMS).where(stream_is).values(floor=func.greatest(_STREAMS.c.floor, floor))
                )
                old = delete(_EVENTS).where(_EVENTS.c.tenant_id == tenant_id, _EVENTS.c.seq <= floor)
                removed += (await connection.execute(old)).rowcount
        return removed
