"""The events that have come in and wait to be handed over: in order, each once, and not without bound."""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from erpmax_client.events import Event, Position, Reset


class Item(NamedTuple):
    """Something to hand over, if anything, and the position of whoever has dealt with it, if that has moved."""

    what: Event | Reset | None
    after: Position | None


class Inbox:
    """Takes events from connections that come and go, and gives them to one reader.

    `received` is the position of what has come in; it is what the server is told when connecting again.
    """

    def __init__(self, limit: int, received: Position | None) -> None:
        self.received = received
        self._limit = limit
        self._items: deque[Item] = deque()
        self._held: list[Event] | None = None
        self._ended: BaseException | None = None
        self._over = False
        self._news = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()

    # ------------------------------------------------------------------------------------- from the connection

    def connected(self, position: Position | None) -> None:
        """Take the place where a connection begins; whoever has a position already keeps it.

        Should the two not fit, `rt:reset` says so, and moving before it would hide that. A log that held nothing yet
        had no epoch, which is learned afterwards.
        """
        known = self.received
        if position is not None and known is None:
            self._append(None, position)
        elif position is not None and known is not None and not known.epoch:
            self._append(None, Position(position.epoch, known.seq))

    def moved(self, position: Position) -> None:
        """Take note that nothing up to `position` is for us."""
        known = self.received
        if self._held is not None or known is None or known.seq >= position.seq:
            return
        if known.epoch in ("", position.epoch):
            self._append(None, position)

    def heard(self, event: Event) -> bool:
        """Take an event; False if there is no room for it, and then the connection has to end.

        What is not newer than the newest is dropped; so is what the log does not hold, when there is no room.
        """
        waiting = len(self._items) + len(self._held or ())
        if event.seq is None:
            if waiting < self._limit:
                self._append(event, None)
            return True
        if not self._is_new(event):
            return True
        if waiting >= self._limit:
            return False
        if self._held is not None:
            self._held.append(event)
        else:
            self._take(event)
        return True

    def reset(self, reset: Reset) -> None:
        """Go on from the head that the server names, once the reader has reloaded its state."""
        self._append(reset, reset.position)

    # -------------------------------------------------------------------------------- while missed events are paged

    def hold(self) -> None:
        """Keep what arrives live behind the missed events that are now fetched."""
        self._held = []

    def fetched(self, events: Iterable[Event], after_seq: int) -> None:
        """Take one page of missed events, which says all that there is up to `after_seq`."""
        for event in events:
            if self._is_new(event):
                self._take(event)
        if self.received is not None and self.received.seq < after_seq:
            self._append(None, Position(self.received.epoch, after_seq))

    def release(self) -> None:
        """Let what arrived live meanwhile follow the missed events."""
        held, self._held = self._held or [], None
        for event in held:
            if self._is_new(event):
                self._take(event)

    def drop_held(self) -> None:
        """Forget what arrived live: the connection is over before the missed events were fetched."""
        self._held = None

    async def emptied(self) -> None:
        """Wait until the reader has caught up."""
        await self._emptied.wait()

    # ------------------------------------------------------------------------------------------- to the reader

    def end(self, reason: BaseException | None = None) -> None:
        """Hand over what is there and then end, with an exception if there is a reason for one."""
        self._ended, self._over = reason, True
        self._news.set()

    async def next(self) -> Item | None:
        """Wait for the next item; None at the end. Raises what `end` was given."""
        while not self._items:
            if self._ended is not None:
                raise self._ended
            if self._over:
                return None
            self._news.clear()
            await self._news.wait()
        item = self._items.popleft()
        if not self._items:
            self._emptied.set()
        return item

    def _is_new(self, event: Event) -> bool:
        return event.seq is not None and (self.received is None or event.seq > self.received.seq)

    def _take(self, event: Event) -> None:
        known = self.received
        self._append(event, Position(known.epoch, event.seq) if known is not None and event.seq is not None else None)

    def _append(self, what: Event | Reset | None, after: Position | None) -> None:
        self._items.append(Item(what, after))
        self.received = after or self.received
        self._emptied.clear()
        self._news.set()
