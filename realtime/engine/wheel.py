"""One timer wheel for every connection's pings and deadlines, in place of a sleeping task or a timer for each."""

import asyncio
from collections.abc import Callable

import structlog

Callback = Callable[[], None]

logger = structlog.get_logger(__name__)


class Wheel:
    """Calls back within two ticks after the time asked for, never before it.

    There is no cancelling: a callback finds out for itself whether it is still wanted.
    """

    def __init__(self, tick_s: float) -> None:
        self._tick_s = tick_s
        self._slots: dict[int, list[Callback]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Return how many callbacks are outstanding."""
        return sum(map(len, self._slots.values()))

    def call_later(self, delay_s: float, callback: Callback) -> None:
        """Have `callback` called once, about `delay_s` seconds from now."""
        loop = asyncio.get_running_loop()
        slot = int((loop.time() + delay_s) / self._tick_s) + 1
        self._slots.setdefault(slot, []).append(callback)
        if self._timer is None:
            self._timer = loop.call_later(self._tick_s, self._turn)

    def close(self) -> None:
        """Forget everything."""
        self._slots.clear()
        self._rest()

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        # Set before anything is called, so that what a callback asks for does not start a second timer.
        self._timer = loop.call_later(self._tick_s, self._turn)
        now = int(loop.time() / self._tick_s)
        # A loop that was held up turns the wheel over every slot it missed.
        for slot in sorted(slot for slot in self._slots if slot <= now):
            for callback in self._slots.pop(slot, ()):
                self._call(callback)
        if not self._slots:
            self._rest()

    @staticmethod
    def _call(callback: Callback) -> None:
        try:
            callback()
        except Exception:
            # Everybody's heartbeat hangs on this wheel, so one connection's fault must not stop it.
            logger.exception("callback failed")
