"""Socket.IO 5 packets, held to the protocol: what is not a packet raises, where the library would shrug.

https://socket.io/docs/v4/socket-io-protocol/; the rules of validity are those of socket.io-parser.
"""

from typing import Any

from socketio import packet as library

from realtime.wire import SocketJson

CONNECT, DISCONNECT, EVENT, ACK = library.CONNECT, library.DISCONNECT, library.EVENT, library.ACK
CONNECT_ERROR, BINARY_EVENT, BINARY_ACK = library.CONNECT_ERROR, library.BINARY_EVENT, library.BINARY_ACK

_TYPES = frozenset("0123456")
_RESERVED = frozenset(("connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"))
_MAX_ATTACHMENTS = 100


class InvalidPacket(ValueError):
    """The client sent what is no Socket.IO packet."""


class Packet(library.Packet):  # type: ignore[misc]
    """A packet in the project's JSON. A class of our own, so that the library's clients beside us keep theirs."""

    json = SocketJson
    # How many bytes a packet that was received had, attachments included.
    size = 0

    @classmethod
    def _reconstruct_binary_internal(cls, data: Any, attachments: list[bytes]) -> Any:
        if isinstance(data, dict) and data.get("_placeholder") is True and not _points_into(data, attachments):
            raise InvalidPacket("a placeholder for no attachment")
        return super()._reconstruct_binary_internal(data, attachments)


def decode(text: str) -> Packet:
    """Decode a text packet; raises InvalidPacket. A binary packet still waits for its attachments."""
    if text[:1] not in _TYPES:
        raise InvalidPacket("unknown packet type")
    try:
        packet = Packet(encoded_packet=text)
    except (ValueError, TypeError, IndexError, RecursionError) as error:
        raise InvalidPacket(str(error)) from error
    packet.size = len(text)
    if packet.attachment_count > _MAX_ATTACHMENTS:
        raise InvalidPacket("too many attachments")
    if (packet.packet_type in (BINARY_EVENT, BINARY_ACK)) != (packet.attachment_count > 0):
        raise InvalidPacket("illegal attachments")
    if not _is_valid(packet):
        raise InvalidPacket("invalid payload")
    return packet


def add_attachment(packet: Packet, attachment: bytes, *, max_total: int) -> bool:
    """Give a binary packet its next attachment and tell whether it was the last; raises InvalidPacket.

    All attachments together may hold `max_total` bytes: they are kept until the last one has come.
    """
    if sum(map(len, packet.attachments)) + len(attachment) > max_total:
        raise InvalidPacket("attachments too big")
    packet.size += len(attachment)
    return bool(packet.add_attachment(attachment))


def _points_into(placeholder: dict[str, Any], attachments: list[bytes]) -> bool:
    number = placeholder.get("num")
    return isinstance(number, int) and 0 <= number < len(attachments)


def _is_valid(packet: Any) -> bool:
    kind, data = packet.packet_type, packet.data
    if kind == CONNECT:
        return data is None or isinstance(data, dict)
    if kind == DISCONNECT:
        return data is None
    if kind in (EVENT, BINARY_EVENT):
        return _is_event(data)
    if kind in (ACK, BINARY_ACK):
        return isinstance(data, list) and packet.id is not None
    return False


def _is_event(data: object) -> bool:
    if not isinstance(data, list) or not data:
        return False
    name = data[0]
    return isinstance(name, str) and name not in _RESERVED
