"""A circuit breaker: after several failures in a row a service is left alone for a while, then tried by one call.

Our own, because the libraries (purgatory, circuitbreaker, pybreaker) read the machine's clock behind their caller's
back and let every waiting call through at once when the pause is over, which is what a service that is just getting
up needs least.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from core.clock import Clock


class CircuitOpen(Exception):
    """The service is being left alone; `retry_after_s` says for how many more seconds, at least 1."""

    def __init__(self, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"left alone for {retry_after_s} s")


class Circuit:
    """The breaker of one service.

    Args:
        failures: how many calls in a row must fail to open it.
        pause: how long it then stays open, before one call is let through to try.
        is_failure: tells which exceptions speak against the service; all others mean that it is well.
        clock: tells the time.
    """

    def __init__(
        self, *, failures: int, pause: timedelta, is_failure: Callable[[BaseException], bool], clock: Clock
    ) -> None:
        self._limit = failures
        self._pause = pause
        self._is_failure = is_failure
        self._clock = clock
        self._failed = 0
        self._open_until: datetime | None = None
        self._is_trying = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing is remembered of the service, so that this object may be dropped."""
        return self._failed == 0 and not self._is_trying

    @contextmanager
    def call(self) -> Iterator[None]:
        """Wrap one call.

        Raises:
            CircuitOpen: the call must not be made.
        """
        is_trial = self._enter()
        try:
            yield
        except Exception as error:
            self._leave(failed=self._is_failure(error))
            raise
        else:
            self._leave(failed=False)
        finally:
            # Also when the call was cancelled, which says nothing of the service.
            if is_trial:
                self._is_trying = False

    def _enter(self) -> bool:
        if self._open_until is None:
            return False
        left_s = (self._open_until - self._clock.now()).total_seconds()
        if left_s > 0 or self._is_trying:
            raise CircuitOpen(max(1, round(left_s)))
        self._is_trying = True
        return True

    def _leave(self, *, failed: bool) -> None:
        if not failed:
            self._failed = 0
            self._open_until = None
            return
        self._failed += 1
        if self._failed >= self._limit:
            self._open_until = self._clock.now() + self._pause
