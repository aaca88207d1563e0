"""Recovery: a socket that was away gets what it missed, in order, and then goes on live; or is told that it cannot.

Nothing is kept for a client that is away. It brings its position, and for npm's `socket.io-client` the pid that it was
given, and what it missed is read from the log, whichever instance it comes back to (realtime.md 3.3).
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog

from namespaces.names import subject_of
from namespaces.seats import Seat
from realtime.engine.session import Reason
from realtime.follower import Follower
from realtime.log import EventLog, NumberedEvent, StreamState, Tail
from realtime.meter import Meter
from realtime.position import PidDesk, Position
from realtime.rooms import entitled_rooms
from services.history import why_lost

# A tail of more events than this is not told: loading the state anew is quicker for everybody.
MAX_TAIL = 10_000
_PAGE = 500
# How much is told of it at a time.
_GULP_BYTES = 64 * 1024
# How many tails are read from the log at once; the others wait their turn, and the doors keep their connections.
_READS_AT_ONCE = 4
# How often reading on is tried when the log cannot be read, and how long is waited in between, in seconds.
_READ_ATTEMPTS = 5
_READ_PAUSE_S = 0.5

# Sends one event of the log to one seat, at the position `epoch` and its number; returns its size in bytes.
Tell = Callable[[Seat, NumberedEvent, str], int]

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """What a connecting client asks for: everything after a position, under the socket id of before.

    `fault` is set when it asks for something that cannot be: it starts anew, and is told why.
    """

    after: Position | None = None
    sid: str | None = None
    fault: str | None = None


class Recovery:
    """Decides what a connecting client may resume, and replays what it missed."""

    def __init__(self, *, follower: Follower, log: EventLog, pids: PidDesk, meter: Meter, tell: Tell) -> None:
        self._follower = follower
        self._log = log
        self._pids = pids
        self._meter = meter
        self._tell = tell
        self._reading = asyncio.Semaphore(_READS_AT_ONCE)

    def read(self, seat: Seat, auth: object) -> Resumption:
        """Read what a client asks for in its auth payload."""
        tenant_id = seat.principal.tenant_id
        if not isinstance(auth, Mapping) or tenant_id is None:
            return Resumption()
        # A recovering client that has just been started has no pid, but it may have kept its position itself; and one
        # that was cut off before it heard anything has a pid, but no offset yet.
        if auth.get("recovery") is True and "pid" in auth and "offset" in auth:
            return self._read_offset(seat, tenant_id, auth)
        return _read_last_seq(auth)

    def pid(self, seat: Seat) -> str:
        """Return the pid by which the client of a seat may come back; a resumed socket has the one of before."""
        principal = seat.principal
        if principal.tenant_id is None:
            raise ValueError("no pid without a tenant")
        return self._pids.issue(
            seat.sid, namespace=seat.namespace, tenant_id=principal.tenant_id, user_id=principal.user_id
        )

    async def refusal(self, seat: Seat, resumption: Resumption) -> str | None:
        """Return why a resumption cannot be whole, or None when it can: the reasons of `rt:reset`."""
        tenant_id, after = seat.principal.tenant_id, resumption.after
        if resumption.fault is not None or after is None or tenant_id is None:
            return resumption.fault
        if why_lost(after, self._follower.state(tenant_id)) in ("epoch", "future"):
            # Another instance may have told the client of what this one has yet to hear.
            await self._follower.catch_up(tenant_id, after.seq)
        state = self._follower.state(tenant_id)
        if why_lost(after, state) is None and state.head - after.seq > MAX_TAIL:
            rooms, namespace = _entitlement(seat, tenant_id)
            async with self._reading:
                owed = await self._log.count_owed(
                    tenant_id, after=after.seq, rooms=rooms, namespace=namespace, limit=MAX_TAIL + 1
                )
            if owed > MAX_TAIL:
                return "too_many"
        return why_lost(after, self._follower.state(tenant_id))

    async def replay(self, seat: Seat, after: int, *, live: Callable[[], None], lost: Callable[[str], None]) -> None:
        """Send a seat what it missed, page by page as it reads it, and let it go `live` when it has all.

        `lost` is called instead when the log no longer has it. Whatever goes wrong otherwise ends the connection,
        because its client then comes back and asks again.
        """
        tenant_id = seat.principal.tenant_id
        try:
            outcome = await self._replay(seat, tenant_id, after) if tenant_id is not None else None
        except Exception:
            logger.exception("replay failed", tenant_id=str(tenant_id))
            self._meter.recoveries["failed"] += 1
            seat.member.session.close(Reason.TRANSPORT_CLOSE)
            return
        if not seat.member.connected:
            self._meter.recoveries["left"] += 1
        elif outcome is None:
            self._meter.recoveries["recovered"] += 1
            live()
        else:
            lost(outcome)

    async def _replay(self, seat: Seat, tenant_id: UUID, after: int) -> str | None:
        # What is awaited last is not followed by an await before `live`: in between nothing is delivered live.
        epoch = self._follower.state(tenant_id).epoch
        while seat.member.connected:
            state = self._follower.state(tenant_id)
            reason = why_lost(Position(epoch, after), state)
            if reason is not None or after == state.head:
                return reason
            owed, upto = await self._page(seat, tenant_id, after, state)
            if owed is None:
                return "pruned"
            await self._tell_all(seat, owed, epoch)
            after = upto
        return None

    async def _tell_all(self, seat: Seat, events: Sequence[NumberedEvent], epoch: str) -> None:
        told = 0
        for event in events:
            told += self._tell(seat, event, epoch)
            if told > _GULP_BYTES:
                # A client that reads slowly is waited for: all at once, a page could be more than it may leave unread.
                told = 0
                await seat.member.session.drained()
        await seat.member.session.drained()

    async def _page(
        self, seat: Seat, tenant_id: UUID, after: int, state: StreamState
    ) -> tuple[Sequence[NumberedEvent] | None, int]:
        """Return what the seat is owed next, and how far that reaches; None when it has been pruned."""
        rooms, namespace = _entitlement(seat, tenant_id)
        recent = self._follower.recent(tenant_id, after)
        if recent is not None:
            owed = [event for event in recent if event.room in rooms and namespace in (None, event.namespace)]
            return owed, state.head
        async with self._reading:
            tail = await self._read_patiently(
                tenant_id, after=after, upto=state.head, rooms=rooms, namespace=namespace, limit=_PAGE
            )
        if tail.state.floor > after:
            return None, after
        return tail.events, tail.events[-1].seq if len(tail.events) == _PAGE else state.head

    async def _read_patiently(self, tenant_id: UUID, **wanted: Any) -> Tail:
        attempt = 1
        while True:
            try:
                return await self._log.read_tail(tenant_id, **wanted)
            except Exception as error:
                # A database that restarts is back in seconds, and the client would only come back to it.
                if attempt == _READ_ATTEMPTS:
                    raise
                logger.warning("tail not read", tenant_id=str(tenant_id), error=repr(error))
            attempt += 1
            await asyncio.sleep(_READ_PAUSE_S)

    def _read_offset(self, seat: Seat, tenant_id: UUID, auth: Mapping[str, Any]) -> Resumption:
        sid = self._pids.read(
            auth["pid"], namespace=seat.namespace, tenant_id=tenant_id, user_id=seat.principal.user_id
        )
        if sid is None:
            return Resumption(fault="invalid")
        try:
            return Resumption(after=Position.parse(auth.get("offset")), sid=sid)
        except ValueError:
            return Resumption(fault="invalid")


def _entitlement(seat: Seat, tenant_id: UUID) -> tuple[tuple[str, ...], str | None]:
    """Return the rooms whose events the seat may hear, and the one namespace of those, if not all."""
    principal = seat.principal
    rooms = entitled_rooms(tenant_id, principal.user_id, manager=principal.manages)
    return rooms, subject_of(seat.namespace)


def _read_last_seq(auth: Mapping[str, Any]) -> Resumption:
    if auth.get("last_seq") is None:
        return Resumption()
    seq, epoch = auth["last_seq"], "" if auth.get("epoch") is None else auth["epoch"]
    if isinstance(seq, bool) or not isinstance(seq, int) or seq < 0 or not isinstance(epoch, str):
        return Resumption(fault="invalid")
    return Resumption(after=Position(epoch, seq))
