"""Engine.IO 4 packets: a digit and its data, in websocket messages or in a polling payload.

https://socket.io/docs/v4/engine-io-protocol/
"""

from base64 import b64decode, b64encode
from collections.abc import Iterable

OPEN, CLOSE, PING, PONG, MESSAGE, UPGRADE, NOOP = "0", "1", "2", "3", "4", "5", "6"
PROBE = "probe"

_SEPARATOR = "\x1e"
_TYPES = frozenset("0123456")

Data = str | bytes


class PacketError(Exception):
    """The client sent what is no Engine.IO packet."""


def decode(text: str) -> tuple[str, str]:
    """Split a text packet into its type and data; raises PacketError."""
    if not text or text[0] not in _TYPES:
        raise PacketError("unknown packet type")
    return text[0], text[1:]


def decode_payload(body: str) -> list[tuple[str, Data]]:
    """Read the packets of a polling request; binary messages stand in base64 behind a `b`; raises PacketError."""
    packets: list[tuple[str, Data]] = []
    for part in body.split(_SEPARATOR):
        if part.startswith("b"):
            try:
                packets.append((MESSAGE, b64decode(part[1:], validate=True)))
            except ValueError as error:
                raise PacketError("malformed base64") from error
        else:
            packets.append(decode(part))
    return packets


def encode_payload(packets: Iterable[Data]) -> str:
    """Join packets for a polling answer; bytes are binary messages."""
    return _SEPARATOR.join(f"b{b64encode(item).decode()}" if isinstance(item, bytes) else item for item in packets)
