"""Followers: each instance's place in the streams of the tenants whose sockets it holds.

A bell is only a hint. Whatever it brings, an event is delivered when its number is the next one; an older number is
dropped, and a gap is read from the log. A periodic look at the heads repairs a bell that was lost, or one that a
crash between commit and bell never rang.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from uuid import UUID

import structlog

from realtime.log import EventLog, NumberedEvent

Deliver = Callable[[NumberedEvent], Awaitable[None]]

_READ_LIMIT = 500
# Beyond this many events held back for a gap it is cheaper to forget them and read the log.
_HELD_LIMIT = 1000

logger = structlog.get_logger(__name__)


class _Stream:
    """Where this instance stands in one tenant's stream."""

    def __init__(self, tenant_id: UUID) -> None:
        self.tenant_id = tenant_id
        self.sockets = 0
        self.cursor = 0
        self.head = 0
        self.held: dict[int, NumberedEvent] = {}
        self.placed = asyncio.Event()
        self.draining: asyncio.Task[None] | None = None

    def hear(self, head: int, events: Sequence[NumberedEvent]) -> None:
        self.head = max(self.head, head)
        if len(self.held) > _HELD_LIMIT:
            self.held.clear()
        self.held.update((event.seq, event) for event in events if event.seq > self.cursor)


class Follower:
    """Delivers every tenant's events in number order, each once, to the sockets of this instance."""

    def __init__(self, log: EventLog, deliver: Deliver) -> None:
        self._log = log
        self._deliver = deliver
        self._streams: dict[UUID, _Stream] = {}
        self._look_now = asyncio.Event()

    async def join(self, tenant_id: UUID) -> None:
        """Count one more socket of a tenant; on return, everything committed from now on will be delivered.

        Raises whatever the database raises when the stream's head cannot be read.
        """
        stream = self._streams.get(tenant_id)
        if stream is None:
            stream = self._streams[tenant_id] = _Stream(tenant_id)
            stream.sockets = 1
            try:
                await self._place(stream)
            except BaseException:
                del self._streams[tenant_id]
                stream.placed.set()
                raise
            return
        stream.sockets += 1
        await stream.placed.wait()
        if self._streams.get(tenant_id) is not stream:
            # The first socket could not place the stream; this one tries for itself.
            await self.join(tenant_id)

    def leave(self, tenant_id: UUID) -> None:
        """Count one socket less; the stream of a tenant without sockets here is forgotten."""
        stream = self._streams.get(tenant_id)
        if stream is None:
            return
        stream.sockets -= 1
        if stream.sockets <= 0:
            del self._streams[tenant_id]

    def hear(self, tenant_id: UUID, head: int, events: Sequence[NumberedEvent] = ()) -> None:
        """Take a bell's word that the tenant's stream has reached `head`; `events` may be any part of it."""
        stream = self._streams.get(tenant_id)
        if stream is None:
            return
        stream.hear(head, events)
        self._drain_soon(stream)

    async def check_heads(self) -> None:
        """Compare every followed stream with the log and deliver what no bell announced."""
        if not self._streams:
            return
        heads = await self._log.heads(list(self._streams))
        for tenant_id, head in heads.items():
            self.hear(tenant_id, head)

    def look_now(self) -> None:
        """Have the heads checked at once, because bells may have been missed."""
        self._look_now.set()

    async def run(self, interval_s: Callable[[], float]) -> None:
        """Check the heads for ever, `interval_s()` seconds apart; a database that is away is tried again."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(interval_s()):
                    await self._look_now.wait()
            self._look_now.clear()
            try:
                await self.check_heads()
            except Exception as error:  # noqa: BLE001
                # Whatever keeps the log from being read now, the next look must still take place.
                logger.warning("head check failed", error=repr(error))

    async def close(self) -> None:
        """Stop delivering."""
        tasks = [stream.draining for stream in self._streams.values() if stream.draining is not None]
        self._streams.clear()
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _place(self, stream: _Stream) -> None:
        heads = await self._log.heads([stream.tenant_id])
        stream.cursor = heads.get(stream.tenant_id, 0)
        stream.placed.set()
        # A bell may have rung while the head was being read.
        self._drain_soon(stream)

    def _drain_soon(self, stream: _Stream) -> None:
        idle = stream.draining is None or stream.draining.done()
        if idle and stream.placed.is_set() and stream.cursor < stream.head:
            stream.draining = asyncio.create_task(self._drain(stream))

    async def _drain(self, stream: _Stream) -> None:
        try:
            while stream.cursor < stream.head and stream.tenant_id in self._streams:
                event = stream.held.pop(stream.cursor + 1, None)
                batch = [event] if event else await self._read(stream)
                if not batch:
                    return
                for event in batch:
                    await self._deliver(event)
                    stream.cursor = event.seq
                    stream.held.pop(event.seq, None)
        except Exception as error:  # noqa: BLE001
            # The cursor has not moved past what failed, so the next bell or head check takes it up again.
            logger.warning("delivery interrupted", tenant_id=str(stream.tenant_id), error=repr(error))

    async def _read(self, stream: _Stream) -> Sequence[NumberedEvent]:
        batch = await self._log.read_after(stream.tenant_id, stream.cursor, limit=_READ_LIMIT)
        if batch and batch[0].seq != stream.cursor + 1:
            logger.error("events were pruned before delivery", tenant_id=str(stream.tenant_id), after=stream.cursor)
        return batch
