"""Limits: how much one client, and one tenant's clients together, may ask of an instance."""

import math
from dataclasses import dataclass

# A bucket holds this many seconds' worth, so that short bursts pass.
_BURST_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketLimits:
    """What one tenant's sockets may do together, on all instances, and each alone.

    Rates are per second, sizes in bytes; -1 stands for no limit.
    """

    connections: int
    connects_per_s: int
    events_per_s: int
    socket_events_per_s: int
    payload_bytes: int


class Bucket:
    """A token bucket: `take` returns 0 when there was a token, else after how many seconds there will be one."""

    __slots__ = ("_filled_at", "_rate", "_tokens")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._tokens = self._size
        self._filled_at = now

    @property
    def _size(self) -> float:
        return max(1.0, self._rate * _BURST_S) if self._rate > 0 else 0.0

    def take(self, now: float, *, rate: float | None = None) -> int:
        """Take one token; a new `rate` holds from now on."""
        if rate is not None:
            self._rate = rate
        if self._rate < 0:
            return 0
        self._tokens = min(self._size, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0
        return max(1, math.ceil((1.0 - self._tokens) / self._rate)) if self._rate > 0 else 60
