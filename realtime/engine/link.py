"""The link: a WebSocket taken over from aiohttp after its handshake, as one small object without a task.

Frames that go to one client within one turn of the loop leave in one write. What a client does not read is kept as
references to shared frames, counted in bytes, and past the limit the client is cut off: it recovers from the log.
"""

import asyncio
from collections import deque
from typing import Protocol

import structlog

from realtime.engine import frames
from realtime.engine.frames import FrameError, FrameParser

# Above this many bytes in the transport's own buffer, a client counts as slow and its frames are held back here.
_HIGH_WATER = 32 * 1024
_CHUNK = 64 * 1024
# How many links are written to before the loop gets to do something else.
_FLUSH_SLICE = 256
# How many lost connections are dealt with before the loop gets to do something else.
_PART_SLICE = 128
# Of how many keys the newest ephemeral frame is kept for a client that does not read.
_LATEST_LIMIT = 64
# How long a client has to read the last of what was sent to it.
_GOODBYE_S = 5.0

logger = structlog.get_logger(__name__)


class Peer(Protocol):
    """What a link tells: its messages and its end."""

    def on_text(self, text: str) -> None: ...

    def on_binary(self, data: bytes) -> None: ...

    def on_overflow(self) -> None: ...

    def on_link_lost(self) -> None: ...


class Flusher:
    """Does for many links, in slices, what would hold up the loop if each did it at once.

    It writes out, once per turn of the loop, what the links have gathered, and tells the peers of links that were lost.
    """

    def __init__(self) -> None:
        self._marked: list[Link] = []
        self._scheduled = False
        self._parted: deque[Peer] = deque()

    def part(self, peer: Peer) -> None:
        """Have a peer told that its link is lost: when thousands are lost in one turn, a few of them in each."""
        if not self._parted:
            asyncio.get_running_loop().call_soon(self._tell_parted)
        self._parted.append(peer)

    def _tell_parted(self) -> None:
        for _ in range(min(_PART_SLICE, len(self._parted))):
            try:
                self._parted[0].on_link_lost()
            except Exception:
                logger.exception("farewell failed")
            self._parted.popleft()
        if self._parted:
            asyncio.get_running_loop().call_soon(self._tell_parted)

    def mark(self, link: "Link") -> None:
        self._marked.append(link)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        now, later = self._marked[:_FLUSH_SLICE], self._marked[_FLUSH_SLICE:]
        self._marked = later
        # A large room is served in slices, so that pings, accepts and small rooms are not held up by it.
        self._scheduled = bool(later)
        if later:
            asyncio.get_running_loop().call_soon(self._flush)
        for link in now:
            try:
                link.flush()
            except Exception:
                # One broken connection must not cost the others of this slice their frames.
                logger.exception("flush failed")


class Link(asyncio.Protocol):
    """One client's WebSocket. `transport` is None once it has said goodbye or was lost."""

    __slots__ = (
        "_deadline",
        "_flusher",
        "_held",
        "_held_bytes",
        "_latest",
        "_limit",
        "_parser",
        "_paused",
        "_pending",
        "peer",
        "transport",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        peer: Peer,
        flusher: Flusher,
        *,
        max_message: int,
        max_held: int,
    ) -> None:
        self.transport: asyncio.Transport | None = transport
        self.peer: Peer | None = peer
        self._flusher = flusher
        self._parser: FrameParser | None = FrameParser(max_message)
        self._limit = max_held
        self._paused = False
        self._pending: bytes | list[bytes] | None = None
        self._held: deque[bytes] | None = None
        self._held_bytes = 0
        self._latest: dict[object, bytes] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        transport.set_write_buffer_limits(high=_HIGH_WATER)
        transport.set_protocol(self)

    def write(self, frame: bytes) -> None:
        """Send a frame at the end of this turn of the loop, after everything written before it."""
        pending = self._pending
        if pending is None:
            self._pending = frame
            self._flusher.mark(self)
        elif isinstance(pending, list):
            pending.append(frame)
        else:
            self._pending = [pending, frame]

    def write_latest(self, key: object, frame: bytes) -> None:
        """Send a frame that is worth something now or never: while the client does not read, the newest of a key waits.

        The number of keys is bounded; beyond it new ones are dropped.
        """
        if not self._paused:
            self.write(frame)
            return
        latest = self._latest = self._latest or {}
        if key in latest or len(latest) < _LATEST_LIMIT:
            latest[key] = frame

    def flush(self) -> None:
        """Hand the gathered frames to the transport, or hold them while the client does not read."""
        pending, self._pending = self._pending, None
        transport = self.transport
        if pending is None or transport is None or transport.is_closing():
            return
        if self._paused:
            self._hold(pending if isinstance(pending, list) else [pending])
        else:
            transport.write(b"".join(pending) if isinstance(pending, list) else pending)

    def close(self, code: int = frames.NORMAL, reason: str = "") -> None:
        """Send what can be sent, say goodbye and close; the peer is told nothing more."""
        transport = self._say_goodbye(code, reason)
        if transport is not None:
            transport.close()

    def pause_reading(self) -> None:
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.transport is not None:
            self.transport.resume_reading()

    @property
    def waiting_bytes(self) -> int:
        """How much this client has yet to read of what was sent to it."""
        pending = self._pending
        gathered = sum(map(len, pending)) if isinstance(pending, list) else len(pending or b"")
        buffered = self.transport.get_write_buffer_size() if self.transport else 0
        return gathered + self._held_bytes + buffered

    # What the transport calls

    def data_received(self, data: bytes) -> None:
        if self._parser is None:
            return
        try:
            for opcode, payload in self._parser.feed(data):
                self._receive(opcode, payload)
                if self.transport is None:
                    return
        except FrameError as error:
            self._fail(error)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._let_go()
        peer, self.peer = self.peer, None
        if peer is not None:
            self._flusher.part(peer)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        held = self._held
        while held and not self._paused and self.transport is not None:
            self.transport.write(self._next_chunk(held))
        if not held:
            self._held = None
        if not self._paused and self._latest:
            latest, self._latest = self._latest, None
            for frame in latest.values():
                self.write(frame)

    def _receive(self, opcode: int, payload: bytes) -> None:
        peer = self.peer
        if opcode == frames.PING:
            self.write(frames.frame(frames.PONG, payload))
        elif opcode == frames.CLOSE:
            self.close(frames.close_code(payload))
            if peer is not None:
                peer.on_link_lost()
        elif opcode == frames.TEXT and peer is not None:
            peer.on_text(frames.text(payload))
        elif opcode == frames.BINARY and peer is not None:
            peer.on_binary(payload)

    def _fail(self, error: FrameError) -> None:
        peer = self.peer
        transport = self._say_goodbye(error.code, str(error))
        # Closed at once, with bytes of the client still unread, the connection would be reset, and the client would
        # never see the code. So only our half is closed, and what still comes is read and thrown away.
        if transport is not None and transport.can_write_eof():
            transport.write_eof()
        if peer is not None:
            peer.on_link_lost()

    def _say_goodbye(self, code: int, reason: str) -> asyncio.Transport | None:
        transport = self.transport
        if transport is None:
            return None
        self.peer = None
        self.flush()
        self._let_go()
        if transport.is_closing():
            return None
        transport.write(frames.close_frame(code, reason))
        # A client that does not read would keep the connection, and what waits in it, for as long as it likes.
        self._deadline = asyncio.get_running_loop().call_later(_GOODBYE_S, transport.abort)
        return transport

    def _let_go(self) -> None:
        self.transport = self._parser = self._held = self._latest = self._pending = None
        self._held_bytes = 0

    def _hold(self, waiting: list[bytes]) -> None:
        if self._held is None:
            self._held = deque()
        self._held.extend(waiting)
        self._held_bytes += sum(map(len, waiting))
        if self._held_bytes > self._limit:
            self._overflow()

    def _overflow(self) -> None:
        transport, peer, self.peer = self.transport, self.peer, None
        self._let_go()
        if transport is not None:
            transport.abort()
        if peer is not None:
            peer.on_overflow()

    def _next_chunk(self, held: deque[bytes]) -> bytes:
        chunk: list[bytes] = []
        size = 0
        while held and size < _CHUNK:
            item = held.popleft()
            size += len(item)
            chunk.append(item)
        self._held_bytes -= size
        return b"".join(chunk)
