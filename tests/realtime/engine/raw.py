"""A WebSocket client that can break every rule of RFC 6455, and an encoder of its own for the frames it sends."""

import asyncio
import base64
import contextlib
import hashlib
import os
import struct
from typing import Self
from urllib.parse import urlsplit

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

_PATIENCE_S = 5.0


def encoded(opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, reserved: int = 0) -> bytes:
    """Return a frame as a client sends it; written from the RFC, without a look at the product."""
    head = bytearray([(0x80 if fin else 0) | reserved << 4 | opcode])
    flag = 0x80 if masked else 0
    if len(payload) <= 125:
        head.append(flag | len(payload))
    elif len(payload) <= 0xFFFF:
        head.append(flag | 126)
        head += struct.pack("!H", len(payload))
    else:
        head.append(flag | 127)
        head += struct.pack("!Q", len(payload))
    if not masked:
        return bytes(head) + payload
    mask = os.urandom(4)
    return bytes(head) + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


class RawSocket:
    """A WebSocket connection, frame by frame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: str) -> None:
        self.reader = reader
        self.writer = writer
        # The head of the server's answer to the handshake.
        self.answer = answer

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        path: str = "engine.io",
        query: str = "EIO=4&transport=websocket",
        sid: str = "",
        headers: str = "",
        receive_buffer: int | None = None,
    ) -> Self:
        address = urlsplit(url)
        assert address.hostname is not None
        # A small limit keeps the client's own reader from reading ahead of the test.
        reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=receive_buffer or 2**16)
        key = base64.b64encode(os.urandom(16)).decode()
        target = f"/{path}/?{query}" + (f"&sid={sid}" if sid else "")
        writer.write(
            f"GET {target} HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n".encode()
        )
        async with asyncio.timeout(_PATIENCE_S):
            answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        if answer.startswith("HTTP/1.1 101"):
            accept = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode(), usedforsecurity=False).digest()
            assert f"Sec-WebSocket-Accept: {base64.b64encode(accept).decode()}\r\n" in answer
        return cls(reader, writer, answer)

    def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self.raw(encoded(TEXT, message.encode()))
        else:
            self.raw(encoded(BINARY, message))

    def raw(self, data: bytes) -> None:
        self.writer.write(data)

    async def frame(self) -> tuple[int, bytes]:
        """Return the next frame of the server; every one must be whole and unmasked."""
        async with asyncio.timeout(_PATIENCE_S):
            first, second = await self.reader.readexactly(2)
            assert first & 0xF0 == 0x80
            size = second
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
                assert size > 125
            elif size == 127:
                (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
                assert size > 0xFFFF
            return first & 0x0F, await self.reader.readexactly(size)

    async def message(self, *, pings: bool = False) -> str | bytes:
        """Return the next message; pings of Engine.IO are answered and passed over unless they are asked for."""
        while True:
            opcode, payload = await self.frame()
            assert opcode in (TEXT, BINARY), (opcode, payload)
            if opcode == BINARY:
                return payload
            if payload != b"2" or pings:
                return payload.decode()
            self.send("3")

    async def close_code(self) -> int:
        """Read to the end of the connection and return the code of the close frame before it."""
        opcode, payload = await self.frame()
        while opcode != CLOSE:
            opcode, payload = await self.frame()
        await self.end()
        return int.from_bytes(payload[:2], "big")

    async def end(self) -> None:
        """Read to the end of the connection, which must be an end and no reset."""
        async with asyncio.timeout(_PATIENCE_S):
            await self.reader.read(-1)
        await self.drop()

    async def drop(self) -> None:
        """Leave without a word."""
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()
