"""What a running step tells, gathered and written in batches, so that a talkative command costs few transactions."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

import structlog

from providers.provisioning.contract import Stream
from services.provisioning.journal import Journal, LeaseLost, LogLine
from services.provisioning.timing import Timing

logger = structlog.get_logger(__name__)


class StepReporter:
    """A StepReport (see providers.provisioning.contract) for one step; to be used as an async context manager.

    When the journal cannot keep up, `line` waits and the command with it. A journal that is away for a while costs
    nothing: what was reported is kept and written when it is back. `on_lost` is called once the lease is lost; from
    then on everything is thrown away.
    """

    def __init__(self, journal: Journal, *, step: str, timing: Timing, on_lost: Callable[[], None]) -> None:
        self._journal = journal
        self._step = step
        self._timing = timing
        self._on_lost = on_lost
        self._lines: asyncio.Queue[LogLine] = asyncio.Queue(4 * timing.batch)
        self._unwritten: list[LogLine] = []
        self._fraction: float | None = None
        self._progress_due_at = 0.0
        self._wake = asyncio.Event()
        self._closing = False
        self._lost = False
        self._writing: asyncio.Task[None] | None = None

    async def line(self, stream: Stream, text: str) -> None:
        await self._lines.put(LogLine(self._step, stream, text))
        if self._lines.qsize() >= self._timing.batch:
            self._wake.set()

    async def progress(self, fraction: float) -> None:
        self._fraction = fraction

    async def __aenter__(self) -> Self:
        self._writing = asyncio.create_task(self._write_until_closed())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._wake.set()
        if self._writing is not None:
            await self._writing

    async def _write_until_closed(self) -> None:
        while not self._closing:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timing.flush_s):
                    await self._wake.wait()
            self._wake.clear()
            await self._write()
        # What came in during the last writing; given up at the first failure, for the step's end waits for this.
        while (self._unwritten or not self._lines.empty()) and await self._write():
            pass

    async def _write(self) -> bool:
        """Write what waits; returns whether that succeeded."""
        while not self._lines.empty() and len(self._unwritten) < 4 * self._timing.batch:
            self._unwritten.append(self._lines.get_nowait())
        fraction = self._due_fraction()
        try:
            if not self._lost and (self._unwritten or fraction is not None):
                await self._journal.report(self._unwritten, fraction=fraction)
        except LeaseLost:
            self._lost = True
            self._on_lost()
        except Exception as error:  # noqa: BLE001
            # Whatever keeps the journal away, the heartbeat decides when that has lasted too long.
            logger.warning("step report not written", step=self._step, error=repr(error))
            return False
        self._unwritten.clear()
        return True

    def _due_fraction(self) -> float | None:
        now = asyncio.get_running_loop().time()
        if self._fraction is None or now < self._progress_due_at:
            return None
        self._progress_due_at = now + self._timing.flush_s
        fraction, self._fraction = self._fraction, None
        return fraction
