"""Other programs' events: python-socketio's own manager protocol, carried by our bus instead of connections of its own.

Its messages are not signed, because stock write-only emitters do not sign. What we gain by the bus is its probe, which
tells a deaf subscription, and its batches: what is emitted in one turn of the loop leaves in one round trip.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from socketio.async_pubsub_manager import AsyncPubSubManager

from realtime.bus import RedisBus
from realtime.engine.manager import Broadcaster

# What was heard and not handled yet; beyond this the oldest is dropped.
_HEARD_LIMIT = 10_000
_TURN = 32


class BusBroadcaster(AsyncPubSubManager, Broadcaster):  # type: ignore[misc]
    """Keeps this process's sockets, joins them with those of other instances, and lets external emitters in."""

    name = "bus"

    def __init__(self, bus: RedisBus, *, channel: str = "socketio") -> None:
        # Named, because for mypy the library's class is unknown and `super` would be the other one.
        AsyncPubSubManager.__init__(self, channel=channel)
        self._bus = bus
        self._heard: deque[bytes] = deque(maxlen=_HEARD_LIMIT)
        self._news = asyncio.Event()
        # How an event of our own ends and begins; it has been delivered here already.
        self._own = (b'{"method":"emit"', f'"host_id":"{self.host_id}"}}'.encode())

    def initialize(self) -> None:
        """Begin to listen."""
        super().initialize()
        self._bus.overhear(self.channel, self._hear)

    async def close(self) -> None:
        """Listen no longer."""
        self._bus.unsubscribe(self.channel)
        listening = getattr(self, "thread", None)
        if listening is not None:
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening

    def _hear(self, message: bytes) -> None:
        begin, end = self._own
        if not (message.startswith(begin) and message.endswith(end)):
            self._heard.append(message)
            self._news.set()

    async def _publish(self, data: dict[str, Any]) -> None:
        self._bus.send(self.channel, self.json.dumps(data).encode())

    async def _listen(self) -> AsyncIterator[bytes]:
        turn = 0
        while True:
            await self._news.wait()
            self._news.clear()
            while self._heard:
                yield self._heard.popleft()
                turn += 1
                if turn % _TURN == 0:
                    # An emitter that floods must not hold up everybody else.
                    await asyncio.sleep(0)
