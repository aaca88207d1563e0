"""One claimed run of a job: its steps one after another, its heartbeat, and every way it can be interrupted."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from enum import Enum, auto
from functools import partial
from typing import Any, TypeVar

import structlog

from core.backoff import full_jitter_s
from providers.provisioning.contract import ProvisioningDriver, StepFailed, StepReport, UnknownStep
from services.provisioning.claims import Claim
from services.provisioning.journal import CancelRequested, Journal, LeaseLost, Problem, StepTurn
from services.provisioning.reporter import StepReporter
from services.provisioning.timing import Timing

T = TypeVar("T")

logger = structlog.get_logger(__name__)


class Interrupt(Enum):
    """Why a run may not go on; a later member outweighs an earlier one."""

    CANCEL = auto()
    STOP = auto()
    LOST = auto()


class Interrupted(Exception):
    """The step was ended, or not even begun, because of an Interrupt."""


class Execution:
    """Runs one claim to its end, or to its interruption. Only the driver's work is ever cut short, never a write."""

    def __init__(self, claim: Claim, journal: Journal, driver: ProvisioningDriver, *, timing: Timing) -> None:
        self._claim = claim
        self._journal = journal
        self._driver = driver
        self._timing = timing
        self._interrupt: Interrupt | None = None
        self._undoing = False
        self._over = False
        self._work: asyncio.Task[Any] | None = None
        self._look = asyncio.Event()
        self._log = logger.bind(job_id=str(claim.job_id), kind=claim.kind, fence=claim.fence)

    def look(self) -> None:
        """Look at once whether the job was cancelled."""
        self._look.set()

    def stop(self) -> None:
        """End the step under way and hand the job back."""
        self._interrupt_by(Interrupt.STOP)

    async def run(self) -> None:
        """Run the job as far as it goes; raises only what the database raises."""
        watch = asyncio.create_task(self._watch())
        try:
            await self._run_or_undo()
        except LeaseLost:
            self._log.warning("provisioning lease lost")
        except Interrupted:
            await self._hand_back()
        finally:
            # Not cancelled, because that would tear a connection in the middle of a statement.
            self._over = True
            self._look.set()
            await watch

    async def _hand_back(self) -> None:
        if self._interrupt is not Interrupt.STOP:
            self._log.warning("provisioning run given up")
            return
        with suppress(LeaseLost):
            await self._journal.release()
            self._log.info("provisioning job handed back")

    async def _run_or_undo(self) -> None:
        try:
            await self._forward()
        except (CancelRequested, Interrupted):
            if self._interrupt in (Interrupt.STOP, Interrupt.LOST):
                raise Interrupted from None
            self._undoing = True
            self._interrupt = None
            await self._undo()

    async def _forward(self) -> None:
        while True:
            self._refuse_interrupted()
            turn = await self._journal.begin_step()
            if turn is None:
                await self._journal.succeed()
                return
            outputs = await self._try(turn, partial(self._step, turn))
            if isinstance(outputs, Problem):
                await self._fail(turn, outputs)
                return
            await self._journal.finish_step(turn, outputs)

    async def _fail(self, turn: StepTurn, problem: Problem) -> None:
        delay_s = full_jitter_s(turn.attempt, base_s=self._timing.retry_base_s, cap_s=self._timing.retry_cap_s)
        max_attempts = self._max_attempts(turn) if problem.retryable else 1
        await self._journal.fail_step(turn, problem, max_attempts=max_attempts, delay_s=delay_s)

    async def _undo(self) -> None:
        while (turn := await self._journal.next_undo()) is not None:
            self._refuse_interrupted()
            problem = await self._try(turn, partial(self._compensate, turn))
            if problem is not None:
                await self._journal.fail_undo(problem)
                return
            await self._journal.finish_undo(turn)
        await self._journal.cancelled()

    def _step(self, turn: StepTurn, report: StepReport) -> Coroutine[Any, Any, Mapping[str, str]]:
        claim = self._claim
        return self._driver.run_step(
            claim.kind,
            turn.name,
            claim.target,
            job_id=claim.job_id,
            attempt=turn.attempt,
            outputs=turn.outputs,
            report=report,
        )

    async def _compensate(self, turn: StepTurn, report: StepReport) -> None:
        claim = self._claim
        attempt = 1
        while True:
            try:
                await self._driver.compensate(
                    claim.kind, turn.name, claim.target, job_id=claim.job_id, outputs=turn.outputs, report=report
                )
            except StepFailed as failure:
                if not failure.retryable or attempt >= self._timing.undo_attempts:
                    raise
                await report.line("stderr", f"{failure.message}; trying again")
            else:
                return
            await asyncio.sleep(
                full_jitter_s(attempt, base_s=self._timing.retry_base_s, cap_s=self._timing.retry_cap_s)
            )
            attempt += 1

    async def _try(self, turn: StepTurn, work: Callable[[StepReport], Coroutine[Any, Any, T]]) -> T | Problem:
        """Let the driver work and return what it returns, or why it did not succeed. Raises Interrupted."""
        try:
            return await self._drive(turn, work)
        except Interrupted:
            raise
        except Exception as error:  # noqa: BLE001
            # In whatever manner a driver breaks, the job must come to an end that its people can see.
            return self._problem(turn, error)

    async def _drive(self, turn: StepTurn, work: Callable[[StepReport], Coroutine[Any, Any, T]]) -> T:
        """Let the driver work in a task of its own, which is what an interrupt cancels. Raises Interrupted."""
        async with StepReporter(
            self._journal,
            step=turn.name,
            timing=self._timing,
            on_lost=lambda: self._interrupt_by(Interrupt.LOST),
        ) as report:
            task: asyncio.Task[T] = asyncio.create_task(work(report))
            self._work = task
            if self._interrupt is not None:
                # It came between the decision to begin and this moment.
                task.cancel()
            await asyncio.wait({task})
            self._work = None
        if task.cancelled():
            raise Interrupted
        return task.result()

    def _problem(self, turn: StepTurn, error: Exception) -> Problem:
        if isinstance(error, StepFailed):
            return Problem(text=error.message, retryable=error.retryable)
        if isinstance(error, UnknownStep):
            return Problem(text=f"{turn.title}: this step is no longer part of the recipe", retryable=False)
        self._log.error("provisioning step broke", step=turn.name, exc_info=error)
        return Problem(text=f"{turn.title}: an unexpected error", retryable=True)

    def _max_attempts(self, turn: StepTurn) -> int:
        steps = self._driver.plan(self._claim.kind)
        return next((step.max_attempts for step in steps if step.name == turn.name), 1)

    def _refuse_interrupted(self) -> None:
        if self._interrupt in (Interrupt.STOP, Interrupt.LOST):
            raise Interrupted

    def _interrupt_by(self, interrupt: Interrupt) -> None:
        if self._interrupt is not None and self._interrupt.value >= interrupt.value:
            return
        self._interrupt = interrupt
        if self._work is not None:
            self._work.cancel()

    async def _watch(self) -> None:
        """Keep the lease, and interrupt the run when it is lost or the job cancelled."""
        loop = asyncio.get_running_loop()
        kept_at = loop.time()
        # Whoever cannot extend the lease for so long must have ended its commands before another worker begins.
        patience_s = self._timing.lease.total_seconds() - self._timing.heartbeat_s
        while await self._pause():
            asked_at = loop.time()
            extend = asked_at - kept_at >= self._timing.heartbeat_s
            beat = asyncio.create_task(self._beat(extend=extend))
            # A connection that hangs can be neither waited for nor cancelled in time, so it is left behind.
            await asyncio.wait({beat}, timeout=max(0.0, kept_at + patience_s - loop.time()))
            if beat.done() and beat.result():
                kept_at = asked_at if extend else kept_at
            elif loop.time() - kept_at >= patience_s:
                self._interrupt_by(Interrupt.LOST)
                return

    async def _beat(self, *, extend: bool) -> bool:
        """Give one sign of life, and see whether the job is still ours and wanted; returns False if it failed."""
        try:
            if await self._journal.beat(extend=extend) and not self._undoing:
                self._interrupt_by(Interrupt.CANCEL)
        except LeaseLost:
            self._interrupt_by(Interrupt.LOST)
        except Exception as error:  # noqa: BLE001
            # The database may be away in many manners; what counts is for how long.
            self._log.warning("provisioning heartbeat failed", error=repr(error))
            return False
        return True

    async def _pause(self) -> bool:
        """Wait until it is time for a sign of life, or for the run's end; returns whether it goes on."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timing.poll_s):
                await self._look.wait()
        self._look.clear()
        return not self._over
