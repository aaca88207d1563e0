"""The journal of one claimed run: what it has done, written so that only the job's owner can write.

Every method is a transaction of its own that first locks the job's row while the fence still matches. A worker that
was taken for dead finds that out here (LeaseLost) before it can spoil what its successor does.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import insert, select

from models.provisioning import (
    JobState,
    ProvisioningJob,
    ProvisioningLogLine,
    ProvisioningStep,
    StepState,
    first_unfinished,
    last_begun,
    merged_outputs,
    progress_percent,
)
from providers.provisioning.contract import Stream
from services.events import JobLog, JobLogLine
from services.provisioning.claims import Claim, steps_of
from services.provisioning.outcomes import RUN_TASK, Outcomes, announce
from services.provisioning.safe_text import safe_text
from services.provisioning.timing import Timing
from services.unit_of_work import TenantScope, UnitOfWork, UnitOfWorkFactory

# How many of the lines that were written at once are shown live.
_LINES_SHOWN = 50


class LeaseLost(Exception):
    """The job is no longer this run's: another worker has it, or it has ended."""


class CancelRequested(Exception):
    """The user wants the job cancelled; nothing further may be begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTurn:
    """A step that is to be run or undone, with everything stated before it; `attempt` counts from 1."""

    position: int
    name: str
    title: str
    attempt: int
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a step did not succeed; `text` still has to be made safe to show."""

    text: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line that the command of `step` printed."""

    step: str
    stream: Stream
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Owned:
    """The job while its row is locked."""

    uow: UnitOfWork
    job: ProvisioningJob
    steps: Sequence[ProvisioningStep]

    def say(self, message: str, *, fraction: float = 0.0) -> None:
        """Show where the job stands."""
        self.job.message = message
        self.job.progress = progress_percent(self.steps, fraction=fraction)
        announce(self.uow, self.job)


class Journal:
    """Writes on behalf of one claim. Every method raises LeaseLost when the claim no longer holds."""

    def __init__(self, units: UnitOfWorkFactory, outcomes: Outcomes, claim: Claim, *, timing: Timing) -> None:
        self._units = units
        self._outcomes = outcomes
        self._claim = claim
        self._timing = timing

    async def begin_step(self) -> StepTurn | None:
        """Begin the first unfinished step; None when every step is done. Raises CancelRequested."""
        async with self._owned() as owned:
            step = first_unfinished(owned.steps)
            if step is None:
                return None
            _refuse_cancelled(owned.job)
            step.begin(owned.uow.now)
            owned.say(step.title)
            return _turn(step, owned.steps)

    async def finish_step(self, turn: StepTurn, outputs: Mapping[str, str]) -> None:
        """Note that the step is done and what it stated."""
        async with self._owned() as owned:
            step = owned.steps[turn.position]
            step.succeed(outputs, now=owned.uow.now)
            owned.say(step.title)

    async def fail_step(self, turn: StepTurn, problem: Problem, *, max_attempts: int, delay_s: float) -> None:
        """Note that the step failed: try again in `delay_s` seconds, or end the job. Raises CancelRequested."""
        async with self._owned() as owned:
            step, job = owned.steps[turn.position], owned.job
            error = self._safe(problem.text)
            step.fail(error, now=owned.uow.now)
            if job.cancel_requested_at is None:
                if problem.retryable and step.failures < max_attempts:
                    until = owned.uow.now + timedelta(seconds=delay_s)
                    job.back_off(f"Trying again: {step.title}", until=until)
                    announce(owned.uow, job)
                else:
                    await self._outcomes.failed(owned.uow, job, error)
            requested = job.cancel_requested_at is not None
        if requested:
            raise CancelRequested

    async def succeed(self) -> None:
        """End the job well."""
        target = self._claim.target
        async with self._owned() as owned:
            await self._outcomes.succeeded(
                owned.uow, owned.job, owned.steps, site_name=target.site_name, url=target.site_url
            )

    async def next_undo(self) -> StepTurn | None:
        """Return the step to undo next, the last that was begun; None when nothing is left to undo."""
        async with self._owned() as owned:
            step = last_begun(owned.steps)
            if step is None:
                return None
            owned.say(f"Undoing: {step.title}"[:500])
            return _turn(step, owned.steps)

    async def finish_undo(self, turn: StepTurn) -> None:
        """Note that the step is undone."""
        async with self._owned() as owned:
            owned.steps[turn.position].compensate(owned.uow.now)

    async def fail_undo(self, problem: Problem) -> None:
        """End a cancelled job of which something could not be undone; a retry goes on from what is left."""
        error = f"Cancelled by user, but not everything could be undone. {self._safe(problem.text)}"
        async with self._owned() as owned:
            await self._outcomes.failed(owned.uow, owned.job, error)

    async def cancelled(self) -> None:
        """End the job as its user wished."""
        async with self._owned() as owned:
            await self._outcomes.cancelled(owned.uow, owned.job)

    async def release(self) -> None:
        """Let go of the job so that another worker can go on with it at once."""
        async with self._owned() as owned:
            uow, job = owned.uow, owned.job
            for step in owned.steps:
                if step.state is StepState.RUNNING:
                    step.interrupt(uow.now)
            job.back_off(job.message or "Interrupted", until=uow.now)
            # Should this last ring be lost with the process, the next sweep must not think that it was heard.
            job.rung_at = None
            announce(uow, job)
            uow.ring(RUN_TASK, job.id)

    async def beat(self, *, extend: bool) -> bool:
        """Give a sign of life, and the lease a new end if `extend`; returns whether cancellation is wanted."""
        async with self._locked() as (uow, job):
            if extend:
                job.lease_until = uow.now + self._timing.lease
            return job.cancel_requested_at is not None

    async def report(self, lines: Sequence[LogLine], *, fraction: float | None) -> None:
        """Write log lines, and the progress within the step under way (0..1) unless it is None."""
        async with self._owned() as owned:
            uow, job = owned.uow, owned.job
            if lines:
                rows = [self._row(line, uow) for line in lines]
                await uow.session.execute(insert(ProvisioningLogLine), rows)
                shown = tuple(JobLogLine.model_validate(row) for row in rows[-_LINES_SHOWN:])
                uow.whisper(JobLog(tenant_id=job.tenant_id, job_id=job.id, lines=shown))
            if fraction is not None and progress_percent(owned.steps, fraction=fraction) > job.progress:
                owned.say(job.message or "", fraction=fraction)

    @asynccontextmanager
    async def _owned(self) -> AsyncIterator[_Owned]:
        async with self._locked() as (uow, job):
            yield _Owned(uow=uow, job=job, steps=await steps_of(uow, job.id))

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[tuple[UnitOfWork, ProvisioningJob]]:
        claim = self._claim
        mine = select(ProvisioningJob).where(
            ProvisioningJob.id == claim.job_id,
            ProvisioningJob.fence == claim.fence,
            ProvisioningJob.state == JobState.RUNNING,
        )
        async with self._units(TenantScope(claim.tenant_id)) as uow:
            job = (await uow.session.scalars(mine.with_for_update(key_share=True))).one_or_none()
            if job is None:
                raise LeaseLost
            yield uow, job

    def _row(self, line: LogLine, uow: UnitOfWork) -> dict[str, object]:
        return {
            "tenant_id": self._claim.tenant_id,
            "job_id": self._claim.job_id,
            "step": line.step,
            "stream": line.stream,
            "text": self._safe(line.text),
            "at": uow.now,
        }

    def _safe(self, text: str) -> str:
        return safe_text(text, site_name=self._claim.target.site_name)


def _refuse_cancelled(job: ProvisioningJob) -> None:
    if job.cancel_requested_at is not None:
        raise CancelRequested


def _turn(step: ProvisioningStep, steps: Sequence[ProvisioningStep]) -> StepTurn:
    return StepTurn(
        position=step.position,
        name=step.name,
        title=step.title,
        attempt=step.attempts,
        outputs=merged_outputs(steps),
    )
