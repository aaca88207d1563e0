"""The event that is measured: 256 bytes on the wire, with the time it was said and its number in front."""

import time
from typing import Any

from services.events import DomainEvent

NAMESPACE = "/billing"
NAME = "bench"
# What there is of the packet without the padding: number, namespace, name, and the fields with a few digits each.
_AROUND = 65
# What the log adds: the tenant, the event's id and its number.
_AROUND_LOGGED = _AROUND + 115


class Beat(DomainEvent):
    """A measured event on its way through the log; the fields in front are what the load generator reads."""

    event = NAME
    namespace = NAMESPACE

    t: int
    s: int
    pad: str


def body(number: int, size: int) -> dict[str, Any]:
    """Return what an event of about `size` bytes carries; `t` is in microseconds of the monotonic clock."""
    return {"t": time.monotonic_ns() // 1000, "s": number, "pad": "x" * max(0, size - _AROUND)}


def logged_pad(size: int) -> str:
    """Return the padding of a `Beat` that is about `size` bytes long on the wire."""
    return "x" * max(0, size - _AROUND_LOGGED)
