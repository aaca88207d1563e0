"""The WebSocket handshake (RFC 6455, 4.2), and the taking over of the connection from aiohttp."""

import asyncio
from base64 import b64decode, b64encode
from hashlib import sha1

from aiohttp import hdrs, web

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3


class TakenOver(web.StreamResponse):
    """Stands for an answer that has left by another way."""

    def __init__(self) -> None:
        super().__init__(status=101)

    @property
    def prepared(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> None:  # noqa: ARG002 - aiohttp's signature
        return None

    async def write_eof(self, data: bytes = b"") -> None:  # noqa: ARG002 - aiohttp's signature
        return None


def websocket_key(request: web.Request) -> str | None:
    """Return the client's key if the request is a WebSocket handshake that can be answered."""
    headers = request.headers
    key = headers.get(hdrs.SEC_WEBSOCKET_KEY, "")
    try:
        well_formed = len(b64decode(key, validate=True)) == 16
    except ValueError:
        well_formed = False
    asked = (
        headers.get(hdrs.UPGRADE, "").lower() == "websocket"
        and "upgrade" in headers.get(hdrs.CONNECTION, "").lower()
        and headers.get(hdrs.SEC_WEBSOCKET_VERSION) == "13"
        and request.transport is not None
    )
    return key if well_formed and asked else None


def take_over(request: web.Request, key: str) -> asyncio.Transport:
    """Answer a WebSocket handshake and part aiohttp from the connection, so that nothing of the request is kept.

    No extension is accepted: a compressed frame could not be shared between clients.
    """
    transport, protocol = request.transport, request.protocol
    if transport is None:
        raise ConnectionResetError("the client has gone")
    accept = b64encode(sha1(f"{key}{_GUID}".encode(), usedforsecurity=False).digest())
    transport.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    # To aiohttp the connection is lost: it frees the request and its buffers, and no longer counts it at shutdown.
    protocol.transport = None
    protocol.connection_lost(None)
    return transport
