"""Followers: each instance's place in the streams of the tenants whose sockets it holds.

A bell is only a hint. Whatever it brings, an event is delivered when its number is the next one; an older number is
dropped, and a gap is read from the log. A periodic look at the heads repairs a bell that was lost, or one that a
crash between commit and bell never rang.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from uuid import UUID

import structlog

from realtime.log import NO_EVENTS, EventLog, NumberedEvent, StreamState
from realtime.meter import Meter

# Hands an event to every socket here that is entitled to it, in one go, and returns how many packets that were.
Deliver = Callable[[NumberedEvent, str], int]
# Told when the sockets of a tenant can no longer trust their positions, and why.
Lost = Callable[[UUID, str], None]

_READ_LIMIT = 500
# Beyond this many events held back for a gap it is cheaper to forget them and read the log.
_HELD_LIMIT = 1000
# How many packets one tenant's stream may hand out before the streams of others get their turn.
_QUANTUM = 2000
# How long a stream is still followed after its last socket has gone: most come back, and the log need not be asked.
_LINGER_S = 30.0
# How many of the newest events are kept at hand for sockets that come back, and for how long.
_RECENT_COUNT = 256
_RECENT_S = 60.0
# However often it is asked for, the heads are not looked at more often than this.
_MIN_PAUSE_S = 0.02

logger = structlog.get_logger(__name__)


class Stream:
    """Where this instance stands in one tenant's stream: `state.head` is the last event that was delivered here."""

    def __init__(self, tenant_id: UUID) -> None:
        self.tenant_id = tenant_id
        self.sockets = 0
        self.empty_since = 0.0
        self.state = NO_EVENTS
        self.head = 0
        self.heard_at = 0.0
        self.held: dict[int, NumberedEvent] = {}
        self.recent: deque[tuple[float, NumberedEvent]] = deque(maxlen=_RECENT_COUNT)
        self.placed = asyncio.Event()
        self.draining: asyncio.Task[None] | None = None

    @property
    def cursor(self) -> int:
        return self.state.head

    def hear(self, head: int, events: Sequence[NumberedEvent], now: float) -> None:
        if self.cursor >= self.head:
            self.heard_at = now
        self.head = max(self.head, head)
        if len(self.held) > _HELD_LIMIT:
            self.held.clear()
        self.held.update((event.seq, event) for event in events if event.seq > self.cursor)

    def advance(self, event: NumberedEvent, now: float) -> None:
        self.state = replace(self.state, head=event.seq)
        self.held.pop(event.seq, None)
        self.recent.append((now, event))

    def restart(self, state: StreamState) -> None:
        self.state = state
        self.head = state.head
        self.held.clear()
        self.recent.clear()

    def forget_old(self, now: float) -> None:
        while self.recent and self.recent[0][0] < now - _RECENT_S:
            self.recent.popleft()


class Follower:
    """Delivers every tenant's events in number order, each once, to the sockets of this instance."""

    def __init__(self, log: EventLog, *, meter: Meter) -> None:
        self._log = log
        self._meter = meter
        # Where events go, and who hears that positions are void; set once there are sockets to deliver to.
        self.deliver: Deliver = lambda _, __: 0
        self.on_lost: Lost = lambda _, __: None
        self._streams: dict[UUID, Stream] = {}
        self._look_now = asyncio.Event()
        self._checked_at = float("-inf")
        # Told when a tenant's stream begins and ceases to be followed here.
        self.on_follow: list[Callable[[UUID], None]] = []
        self.on_unfollow: list[Callable[[UUID], None]] = []

    async def join(self, tenant_id: UUID) -> None:
        """Count one more socket of a tenant; on return, everything committed from now on will be delivered.

        Raises whatever the database raises when the stream's head cannot be read.
        """
        stream = self._streams.get(tenant_id)
        if stream is None:
            stream = self._streams[tenant_id] = Stream(tenant_id)
            stream.sockets = 1
            for told in self.on_follow:
                told(tenant_id)
            try:
                await self._place(stream)
            except BaseException:
                self._forget(stream)
                stream.placed.set()
                raise
            return
        stream.sockets += 1
        if stream.placed.is_set():
            return
        await stream.placed.wait()
        if self._streams.get(tenant_id) is not stream:
            # The first socket could not place the stream; this one tries for itself.
            await self.join(tenant_id)

    def leave(self, tenant_id: UUID) -> None:
        """Count one socket less; the stream of a tenant without sockets here is forgotten after a while."""
        stream = self._streams.get(tenant_id)
        if stream is not None:
            stream.sockets -= 1
            stream.empty_since = asyncio.get_running_loop().time()

    def state(self, tenant_id: UUID) -> StreamState:
        """Return the state of a stream that a socket here has joined, as far as it was delivered here."""
        stream = self._streams.get(tenant_id)
        return stream.state if stream is not None else NO_EVENTS

    def recent(self, tenant_id: UUID, after: int) -> list[NumberedEvent] | None:
        """Return what was delivered here above `after`, in order; None when not all of it is at hand any more."""
        stream = self._streams.get(tenant_id)
        if stream is None or not stream.recent or stream.recent[0][1].seq > after + 1:
            return None
        return [event for _, event in stream.recent if event.seq > after]

    def is_behind(self, tenant_id: UUID) -> bool:
        """Tell whether more of a stream has been announced than was delivered here."""
        stream = self._streams.get(tenant_id)
        return stream is None or stream.cursor < stream.head

    def check_age_s(self) -> float:
        """Return how long ago the heads were last compared with the log."""
        return asyncio.get_running_loop().time() - self._checked_at

    @property
    def followed(self) -> int:
        """How many streams are followed."""
        return len(self._streams)

    def hear(self, tenant_id: UUID, head: int, events: Sequence[NumberedEvent] = ()) -> None:
        """Take a bell's word that the tenant's stream has reached `head`; `events` may be any part of it."""
        stream = self._streams.get(tenant_id)
        if stream is None:
            return
        stream.hear(head, events, asyncio.get_running_loop().time())
        self._drain_soon(stream)

    async def catch_up(self, tenant_id: UUID, seq: int) -> None:
        """Deliver what the log holds of a stream up to `seq`, now; raises what the database raises."""
        stream = self._streams.get(tenant_id)
        if stream is None:
            return
        delivered = stream.cursor
        state = (await self._log.states([tenant_id])).get(tenant_id)
        if state is None:
            return
        self._compare(stream, state, delivered)
        while stream.cursor < min(seq, stream.head) and stream.draining is not None and not stream.draining.done():
            await asyncio.wait([stream.draining])

    async def check_heads(self) -> None:
        """Compare every followed stream with the log and deliver what no bell announced."""
        asked_at = asyncio.get_running_loop().time()
        known = {tenant_id: stream.state for tenant_id, stream in self._streams.items() if stream.placed.is_set()}
        moved = await self._log.moved(known) if known else {}
        self._checked_at = asked_at
        for tenant_id, state in moved.items():
            stream = self._streams.get(tenant_id)
            if stream is not None:
                self._compare(stream, state, known[tenant_id].head)

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
            self._tidy()
            await asyncio.sleep(_MIN_PAUSE_S)

    async def close(self) -> None:
        """Stop delivering."""
        tasks = [stream.draining for stream in self._streams.values() if stream.draining is not None]
        self._streams.clear()
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _tidy(self) -> None:
        now = asyncio.get_running_loop().time()
        for stream in list(self._streams.values()):
            stream.forget_old(now)
            if stream.sockets <= 0 and now - stream.empty_since > _LINGER_S:
                self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        if self._streams.pop(stream.tenant_id, None) is not None:
            for told in self.on_unfollow:
                told(stream.tenant_id)

    async def _place(self, stream: Stream) -> None:
        states = await self._log.states([stream.tenant_id])
        stream.state = states.get(stream.tenant_id, NO_EVENTS)
        stream.placed.set()
        # A bell may have rung while the head was being read.
        self._drain_soon(stream)

    def _compare(self, stream: Stream, state: StreamState, delivered: int) -> None:
        """Take in what the log says; `delivered` is how far the stream was when it was asked."""
        if stream.state.epoch and (state.epoch != stream.state.epoch or state.head < delivered):
            # The log was restored: its numbers began anew somewhere, and positions of before mean nothing.
            stream.restart(state)
            self.on_lost(stream.tenant_id, "epoch")
            return
        if state.floor > stream.cursor:
            # What was next here has been pruned, which takes an instance that was cut off from the log for days.
            stream.restart(replace(state, head=state.floor))
            self.on_lost(stream.tenant_id, "pruned")
        stream.state = replace(stream.state, epoch=state.epoch, floor=state.floor)
        stream.hear(state.head, (), asyncio.get_running_loop().time())
        self._drain_soon(stream)

    def _drain_soon(self, stream: Stream) -> None:
        idle = stream.draining is None or stream.draining.done()
        if idle and stream.placed.is_set() and stream.cursor < stream.head:
            stream.draining = asyncio.create_task(self._drain(stream))

    async def _drain(self, stream: Stream) -> None:
        loop = asyncio.get_running_loop()
        quantum = _QUANTUM
        try:
            if not stream.state.epoch:
                await self._learn_epoch(stream)
            while stream.cursor < stream.head and self._is_followed(stream):
                event = stream.held.pop(stream.cursor + 1, None)
                batch = [event] if event else await self._read(stream)
                if not batch:
                    return
                for event in batch:
                    # Nothing is awaited between a delivery and the step of the cursor, so a socket that enters its
                    # rooms now has either had the event in its tail or gets it live, never both and never neither.
                    quantum -= 1 + self.deliver(event, stream.state.epoch)
                    now = loop.time()
                    stream.advance(event, now)
                    self._meter.events += 1
                    self._meter.bell_to_socket.observe(now - stream.heard_at)
                    if quantum <= 0:
                        quantum = _QUANTUM
                        await asyncio.sleep(0)
                        if stream.cursor != event.seq or not self._is_followed(stream):
                            # The log was restored meanwhile, or everybody has left.
                            break
        except Exception as error:  # noqa: BLE001
            # The cursor has not moved past what failed, so the next bell or head check takes it up again.
            logger.warning("delivery interrupted", tenant_id=str(stream.tenant_id), error=repr(error))

    def _is_followed(self, stream: Stream) -> bool:
        # Forgotten and joined again, a tenant has another stream, whose place is its own.
        return self._streams.get(stream.tenant_id) is stream

    async def _learn_epoch(self, stream: Stream) -> None:
        state = (await self._log.states([stream.tenant_id])).get(stream.tenant_id, NO_EVENTS)
        stream.state = replace(stream.state, epoch=state.epoch, floor=state.floor)

    async def _read(self, stream: Stream) -> Sequence[NumberedEvent]:
        after = stream.cursor
        self._meter.gap_repairs += 1
        batch = await self._log.read_after(stream.tenant_id, after, limit=_READ_LIMIT)
        if stream.cursor != after or not self._is_followed(stream):
            return ()
        if batch and batch[0].seq != after + 1:
            logger.error("events were pruned before delivery", tenant_id=str(stream.tenant_id), after=after)
            stream.restart(replace(stream.state, head=batch[0].seq - 1))
            stream.head = batch[-1].seq
            self.on_lost(stream.tenant_id, "pruned")
        return batch
