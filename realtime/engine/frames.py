"""WebSocket frames (RFC 6455): built once for everybody on the way out, parsed piece by piece on the way in."""

from collections.abc import Iterator

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

_FIN = 0x80
_MASKED = 0x80
_CONTROL = 0x08
_KNOWN = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})
_MAX_CONTROL = 125

# Close codes (RFC 6455, 7.4.1)
NORMAL, GOING_AWAY, PROTOCOL_ERROR, INVALID_DATA, TOO_BIG = 1000, 1001, 1002, 1007, 1009


class FrameError(Exception):
    """The peer broke the protocol; `code` is the close code to leave with."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        super().__init__(reason)


def frame(opcode: int, payload: bytes) -> bytes:
    """Return one whole, unmasked frame, as a server sends it."""
    size = len(payload)
    head = _FIN | opcode
    if size < 126:
        return bytes((head, size)) + payload
    if size < 65_536:
        return bytes((head, 126)) + size.to_bytes(2, "big") + payload
    return bytes((head, 127)) + size.to_bytes(8, "big") + payload


def text_frame(text: str) -> bytes:
    """Return a text frame."""
    return frame(TEXT, text.encode())


def close_frame(code: int, reason: str = "") -> bytes:
    """Return a close frame; `reason` is cut to what a control frame can hold."""
    return frame(CLOSE, code.to_bytes(2, "big") + reason.encode()[: _MAX_CONTROL - 2])


def close_code(payload: bytes) -> int:
    """Return the code to answer a close frame with; raises FrameError when it is not well formed (RFC 6455, 7.4)."""
    if not payload:
        return NORMAL
    code = int.from_bytes(payload[:2], "big")
    known = 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
    if len(payload) == 1 or not known:
        raise FrameError(PROTOCOL_ERROR, "close code that must not be sent")
    text(payload[2:])
    return code


def text(payload: bytes) -> str:
    """Decode a text message; raises FrameError."""
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise FrameError(INVALID_DATA, "invalid UTF-8") from error


class FrameParser:
    """Turns a client's bytes into messages; one per connection, and empty while the connection is idle."""

    __slots__ = ("_buffer", "_limit", "_message", "_opcode")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Bytes of a frame that is not all here, and of a message whose last fragment is not. They grow in place:
        # joining them anew with every piece would let a client that sends byte by byte keep the server copying.
        self._buffer: bytearray | None = None
        self._message: bytearray | None = None
        self._opcode = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (opcode, payload) of every message and control frame that `data` completes; raises FrameError.

        A caller that does not want all of them must not feed this parser again.
        """
        buffer: bytes | bytearray = data
        if self._buffer is not None:
            self._buffer += data
            buffer = self._buffer
        start = 0
        while (end := self._end_of_frame(buffer, start)) is not None:
            message = self._take(buffer, start, end)
            start = end
            if message is not None:
                yield message
        self._keep(buffer, start)

    def _keep(self, buffer: bytes | bytearray, start: int) -> None:
        if start == len(buffer):
            self._buffer = None
        elif self._buffer is None:
            self._buffer = bytearray(buffer[start:])
        else:
            del self._buffer[:start]

    def _end_of_frame(self, buffer: bytes | bytearray, start: int) -> int | None:
        """Check a frame's head and return where the frame ends; None while its bytes are not all here."""
        if len(buffer) < start + 2:
            return None
        first, second = buffer[start], buffer[start + 1]
        self._check_head(first, second)
        size = second & 0x7F
        body = start + 6
        if size == 126:
            if len(buffer) < start + 4:
                return None
            size, body = int.from_bytes(buffer[start + 2 : start + 4], "big"), start + 8
        elif size == 127:
            if len(buffer) < start + 10:
                return None
            size, body = int.from_bytes(buffer[start + 2 : start + 10], "big"), start + 14
        if not first & _CONTROL and len(self._message or b"") + size > self._limit:
            raise FrameError(TOO_BIG, "message too big")
        end = body + size
        return end if len(buffer) >= end else None

    def _check_head(self, first: int, second: int) -> None:
        opcode = first & 0x0F
        if first & 0x70 or opcode not in _KNOWN:
            raise FrameError(PROTOCOL_ERROR, "reserved bits or opcode")
        if not second & _MASKED:
            raise FrameError(PROTOCOL_ERROR, "client frames must be masked")
        if opcode & _CONTROL:
            if not first & _FIN or (second & 0x7F) > _MAX_CONTROL:
                raise FrameError(PROTOCOL_ERROR, "control frames are short and whole")
        elif (opcode == CONTINUATION) != (self._message is not None):
            raise FrameError(PROTOCOL_ERROR, "fragments out of order")

    def _take(self, buffer: bytes | bytearray, start: int, end: int) -> tuple[int, bytes] | None:
        first, size = buffer[start], buffer[start + 1] & 0x7F
        mask_at = start + (2 if size < 126 else 4 if size == 126 else 10)
        payload = _unmask(buffer[mask_at : mask_at + 4], buffer[mask_at + 4 : end])
        opcode = first & 0x0F
        if opcode & _CONTROL:
            return opcode, payload
        if first & _FIN and self._message is None:
            return opcode, payload
        return self._join(opcode, payload, final=bool(first & _FIN))

    def _join(self, opcode: int, payload: bytes, *, final: bool) -> tuple[int, bytes] | None:
        if self._message is None:
            self._message, self._opcode = bytearray(), opcode
        self._message += payload
        if not final:
            return None
        whole, self._message = bytes(self._message), None
        return self._opcode, whole


def _unmask(mask: bytes | bytearray, payload: bytes | bytearray) -> bytes:
    size = len(payload)
    if not size:
        return b""
    # One XOR of two large integers is the quickest way without an extension.
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")
