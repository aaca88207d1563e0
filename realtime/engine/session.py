"""The session: one Engine.IO connection, by polling or WebSocket, from its handshake to its end."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from enum import StrEnum
from typing import Any, Protocol

import structlog

from core.tasks import stopping
from realtime.engine import frames, packets
from realtime.engine.link import Link
from realtime.engine.packets import Data, PacketError

# How many packets one poll is answered with: python-engineio's client takes no more.
_PAYLOAD_PACKETS = 16
# How many messages of a client may wait for their turn before the server stops reading from it.
_INBOX_LIMIT = 64
# How many of them are worked off before others get their turn.
_IN_A_ROW = 16

# A polling client with more than this many bytes to fetch is spared ephemeral packets.
_LATEST_LIMIT = 64 * 1024
# A client with less than this to read is ready for more, and how often that is looked at.
_DRAINED_BYTES = 128 * 1024
_DRAIN_LOOK_S = 0.02

PING_FRAME = frames.text_frame(packets.PING)

logger = structlog.get_logger(__name__)


class Reason(StrEnum):
    """Why a session ended, in the words of the reference implementation."""

    CLIENT = "client disconnect"
    SERVER = "server disconnect"
    TRANSPORT_CLOSE = "transport close"
    TRANSPORT_ERROR = "transport error"
    PING_TIMEOUT = "ping timeout"
    OVERFLOW = "slow consumer"


class Listener(Protocol):
    """Whom a session tells of its life."""

    def on_arrival(self, session: "Session", data: Data) -> Any:  # noqa: ARG002 - for those who override it
        """Look at a message the moment it arrives, while earlier ones may still wait for their turn.

        What is returned comes back in `on_message` when its turn has come; None if that is not wanted.
        """
        return data

    def on_message(self, session: "Session", message: Any) -> Awaitable[None]:
        """Act on a message; the session's next one waits until this one is done."""
        ...

    def on_close(self, session: "Session", reason: Reason) -> Awaitable[None]:
        """Hear of the end, after all messages."""
        ...


class Host(Protocol):
    """The server that a session lives on. `max_held` bounds, in bytes, what a client may leave unread."""

    ping_interval_s: float
    ping_timeout_s: float
    max_held: int

    @property
    def listener(self) -> Listener: ...

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None: ...

    def run(self, work: Coroutine[Any, Any, None]) -> None: ...

    def forget(self, session: "Session", reason: Reason) -> None: ...


class Polling:
    """What a polling client has yet to fetch, and the request it may be waiting with."""

    __slots__ = ("_stamp", "poll", "queue", "size")

    def __init__(self) -> None:
        self.queue: list[Data] = []
        self.size = 0
        self.poll: asyncio.Future[None] | None = None
        self._stamp: str | None = None

    def is_repeated(self, stamp: str | None) -> bool:
        """Tell whether a request bears the stamp of the one before; clients stamp each as `t`, against caches."""
        former, self._stamp = self._stamp, stamp
        return stamp is not None and stamp == former

    def add(self, packet: Data) -> None:
        """Queue a packet and answer the waiting request, if there is one."""
        self.queue.append(packet)
        self.size += len(packet)
        if self.poll is not None and not self.poll.done():
            self.poll.set_result(None)

    def take(self, count: int = _PAYLOAD_PACKETS) -> list[Data]:
        """Return the first packets of the queue, and queue them no longer."""
        taken, self.queue = self.queue[:count], self.queue[count:]
        self.size -= sum(map(len, taken))
        return taken


class Session:
    """One Engine.IO connection. Exactly one of `link` and `polling` is set while it is open."""

    __slots__ = (
        "_awaits_pong",
        "_choked",
        "_host",
        "_inbox",
        "_ping_at",
        "_relief",
        "data",
        "link",
        "open",
        "polling",
        "sid",
        "upgrading",
    )

    def __init__(self, sid: str, host: Host) -> None:
        self.sid = sid
        self.open = True
        self.link: Link | None = None
        self.polling: Polling | None = None
        self.upgrading = False
        # For the listener: what it keeps with this connection.
        self.data: object = None
        self._host = host
        self._awaits_pong = False
        self._ping_at = 0.0
        self._inbox: deque[Any] | None = None
        # Whether the client is made to wait until its messages have been worked off, and who waits for that.
        self._choked = False
        self._relief: asyncio.Event | None = None

    # Sending

    def send(self, packet: Data, frame: bytes | None = None) -> None:
        """Send a packet: text with its type digit, or a binary message; `frame` is its WebSocket form if known."""
        if not self.open:
            return
        if self.link is not None:
            self.link.write(frame or packet_frame(packet))
        elif self.polling is not None:
            if self.polling.poll is None and self.polling.size > self._host.max_held:
                self.on_overflow()
            else:
                self.polling.add(packet)

    def send_latest(self, key: object, packet: Data, frame: bytes) -> None:
        """Send a packet that is worth something now or never: a slow client gets only the newest one of each key."""
        if self.link is not None:
            self.link.write_latest(key, frame)
        elif self.open and self.polling is not None and self.polling.size <= _LATEST_LIMIT:
            self.polling.add(packet)

    async def drained(self) -> None:
        """Wait until the client has read most of what was sent to it, or is gone."""
        # The transport tells only when it is nearly empty, and a polling client's requests tell nothing.
        while self.open and self.waiting_bytes > _DRAINED_BYTES:  # noqa: ASYNC110
            await asyncio.sleep(_DRAIN_LOOK_S)

    @property
    def waiting_bytes(self) -> int:
        """How much of what was sent the client has yet to read, as far as this process knows."""
        if self.link is not None:
            return self.link.waiting_bytes
        return self.polling.size if self.polling is not None else 0

    # Receiving, from a link or from a POST

    def on_text(self, text: str) -> None:
        try:
            kind, data = packets.decode(text)
        except PacketError:
            self.close(Reason.TRANSPORT_ERROR)
            return
        self.on_packet(kind, data)

    def on_binary(self, data: bytes) -> None:
        self.on_packet(packets.MESSAGE, data)

    def on_packet(self, kind: str, data: Data) -> None:
        """Act on one packet of the client."""
        if not self.open:
            return
        if kind == packets.MESSAGE:
            self._arrive(data)
        elif kind == packets.PONG:
            self._pong()
        elif kind == packets.CLOSE:
            self.close(Reason.CLIENT)
        else:
            self.close(Reason.TRANSPORT_ERROR)

    def on_overflow(self) -> None:
        self.close(Reason.OVERFLOW)

    def on_link_lost(self) -> None:
        self.close(Reason.TRANSPORT_CLOSE)

    # Heartbeat

    def beat(self) -> None:
        """Send a ping; called first some time within the first interval."""
        if not self.open:
            return
        self._awaits_pong = True
        self._ping_at = asyncio.get_running_loop().time()
        self.send(packets.PING, PING_FRAME)
        self._host.call_later(self._host.ping_timeout_s, self._check_pong)

    def _pong(self) -> None:
        # Only the first answer counts, or a client could have itself pinged more and more often.
        if self._awaits_pong:
            self._awaits_pong = False
            self._host.call_later(self._host.ping_interval_s, self.beat)

    def _check_pong(self) -> None:
        if not self.open or not self._awaits_pong:
            return
        if self._choked:
            # The answer may be among what we do not read at present.
            self._host.call_later(self._host.ping_timeout_s, self._check_pong)
        elif asyncio.get_running_loop().time() - self._ping_at >= self._host.ping_timeout_s:
            self.close(Reason.PING_TIMEOUT)

    # Ending

    def close(self, reason: Reason, *, code: int = frames.NORMAL) -> None:
        """End the session, once; the listener hears of it after the messages that came before."""
        if not self.open:
            return
        self.open = False
        if self.link is not None:
            self.link.close(code, reason.value)
            self.link = None
        if self.polling is not None:
            self._end_polling(self.polling, reason)
        self._host.forget(self, reason)
        self._relieve()
        self._enqueue(reason)

    @staticmethod
    def _end_polling(polling: Polling, reason: Reason) -> None:
        if reason is not Reason.SERVER:
            polling.take(len(polling.queue))
        # Told to go, python-socketio's client stays away. One that shall come back, or left by itself, only gets its
        # waiting poll back, and at its next one learns that there is no session.
        told_to_go = reason in (Reason.SERVER, Reason.TRANSPORT_ERROR)
        polling.add(packets.CLOSE if told_to_go else packets.NOOP)

    # One message at a time

    async def relieved(self) -> None:
        """Wait until the server is ready for more of this client's messages."""
        if self._choked:
            self._relief = self._relief or asyncio.Event()
            await self._relief.wait()

    def _arrive(self, data: Data) -> None:
        try:
            message = self._host.listener.on_arrival(self, data)
        except Exception:
            logger.exception("message refused", sid=self.sid)
            self.close(Reason.TRANSPORT_ERROR)
            return
        if message is not None and self.open:
            self._enqueue(message)

    def _enqueue(self, item: Any) -> None:
        if self._inbox is None:
            self._inbox = deque((item,))
            self._host.run(self._work(self._inbox))
            return
        self._inbox.append(item)
        if len(self._inbox) >= _INBOX_LIMIT and self.open:
            self._choked = True
            if self.link is not None:
                self.link.pause_reading()

    def _relieve(self) -> None:
        self._choked = False
        if self.link is not None:
            self.link.resume_reading()
        if self._relief is not None:
            self._relief.set()
            self._relief = None

    async def _work(self, inbox: deque[Any]) -> None:
        worked = 0
        while inbox:
            item = inbox.popleft()
            if self._choked and len(inbox) <= _INBOX_LIMIT // 2:
                self._relieve()
            try:
                if isinstance(item, Reason):
                    await self._host.listener.on_close(self, item)
                else:
                    await self._host.listener.on_message(self, item)
                worked += 1
                if worked % _IN_A_ROW == 0:
                    # Messages that nothing is waited for would keep everybody else from theirs.
                    await asyncio.sleep(0)
            except (asyncio.CancelledError, Exception):
                if stopping():
                    raise
                # The listener answers for its own faults; one that slips through costs this session and no other.
                logger.exception("session failed", sid=self.sid)
                self.close(Reason.TRANSPORT_ERROR)
        self._inbox = None


def packet_frame(packet: Data) -> bytes:
    """Return the WebSocket frame of a packet."""
    if isinstance(packet, bytes):
        return frames.frame(frames.BINARY, packet)
    return frames.text_frame(packet)
