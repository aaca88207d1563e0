"""Provisioning jobs, the journal of their steps, and the lines their commands printed (providers.md 1.4).

```
queued ──claim──▶ running ──every step done──▶ succeeded
running ──a step failed, may help again──▶ retrying ──due, claim──▶ running      running ──for good──▶ failed
running ──lease expired, claim──▶ running          running ──its worker stops──▶ retrying, due at once
queued, retrying ──cancel, nothing begun──▶ cancelled
otherwise unfinished ──cancel──▶ cancellation requested ──claim if need be, undo──▶ cancelled, or failed
failed, cancelled, succeeded ──retry──▶ queued
```
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, String, Text, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Identified, JsonObject, TenantOwned, enum_column

# A job whose worker was lost this many times in a row is not handed to yet another one.
MAX_INTERRUPTIONS: Final = 5


class JobType(StrEnum):
    """What a job does to the tenant's site (contract.md 5.4)."""

    CREATE_SITE = "create_site"
    UPDATE_SITE = "update_site"
    DELETE_SITE = "delete_site"
    BACKUP_SITE = "backup_site"
    RESTORE_SITE = "restore_site"


class JobState(StrEnum):
    """The rich state; the wire's older `status` is derived from it (contract.md 5.4)."""

    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


UNFINISHED: Final = (JobState.QUEUED, JobState.RUNNING, JobState.RETRYING)


class StepState(StrEnum):
    """Where one step of a job stands."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    COMPENSATED = "compensated"


class ProvisioningJob(Identified, TenantOwned, Base):
    """A long operation on a tenant's site. The row is the truth; a queue message about it is only a doorbell.

    A worker owns the row while `state` is running and `fence` is the number it claimed with; it may be taken from
    it once `lease_until` has passed. `attempt` counts claims, `interruptions` those that followed a lost worker,
    `rung_at` is when the worker was last rung for the row.
    """

    __tablename__ = "provisioning_jobs"
    __table_args__ = (
        Index("ix_provisioning_jobs_tenant_id", "tenant_id", "created_at"),
        Index(
            "uq_provisioning_jobs_one_running",
            "tenant_id",
            unique=True,
            postgresql_where=text("state = 'running'"),
        ),
        Index(
            "ix_provisioning_jobs_unfinished",
            "next_run_at",
            postgresql_where=text("state IN ('queued', 'running', 'retrying')"),
        ),
    )

    job_type: Mapped[JobType] = mapped_column(enum_column(JobType, name="job_type"))
    state: Mapped[JobState] = mapped_column(enum_column(JobState, name="state"), default=JobState.QUEUED)
    progress: Mapped[int] = mapped_column(default=0)
    message: Mapped[str | None] = mapped_column(String(500))
    error: Mapped[str | None] = mapped_column(Text)
    result: Mapped[JsonObject] = mapped_column(default=dict)
    attempt: Mapped[int] = mapped_column(default=0)
    interruptions: Mapped[int] = mapped_column(default=0)
    requested_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    cancel_requested_at: Mapped[datetime | None]
    fence: Mapped[int] = mapped_column(default=0)
    lease_until: Mapped[datetime | None]
    next_run_at: Mapped[datetime]
    rung_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]

    @property
    def is_finished(self) -> bool:
        return self.state not in UNFINISHED

    def is_due(self, now: datetime) -> bool:
        """Tell whether a worker may take the job now, were it first in its tenant's line."""
        if self.state is JobState.RUNNING:
            return self.lease_until is None or self.lease_until <= now
        return not self.is_finished and self.next_run_at <= now

    def claim(self, now: datetime, *, lease: timedelta) -> bool:
        """Give the job to a worker; returns False, with nothing given, when too many workers were lost over it."""
        if self.state is JobState.RUNNING:
            self.interruptions += 1
        if self.interruptions >= MAX_INTERRUPTIONS:
            return False
        self.state = JobState.RUNNING
        self.fence += 1
        self.attempt += 1
        self.lease_until = now + lease
        self.started_at = self.started_at or now
        return True

    def succeed(self, result: Mapping[str, str], *, now: datetime) -> None:
        """End the job well."""
        self._end(JobState.SUCCEEDED, message="Completed", error=None)
        self.progress = 100
        self.result = dict(result)
        self.completed_at = now

    def fail(self, error: str, *, now: datetime) -> None:
        """End the job for good; `error` is shown to its users."""
        self._end(JobState.FAILED, message="Failed", error=error)
        self.completed_at = now

    def cancelled(self) -> None:
        """End the job as its user wished; as ever, such a job was never completed (contract.md 5.2)."""
        self._end(JobState.CANCELLED, message="Cancelled", error="Cancelled by user")
        self.progress = 0
        self.completed_at = None

    def _end(self, state: JobState, *, message: str, error: str | None) -> None:
        self.state = state
        self.message = message
        self.error = error
        self.lease_until = None

    def can_cancel_at_once(self, steps: Iterable["ProvisioningStep"]) -> bool:
        """Tell whether there is nothing to stop and nothing to undo."""
        return self.state in (JobState.QUEUED, JobState.RETRYING) and not any(step.is_begun for step in steps)

    def request_cancel(self, now: datetime) -> None:
        """Ask the worker of an unfinished job, now or as soon as one takes it up, to undo it."""
        self.cancel_requested_at = self.cancel_requested_at or now
        self.message = "Cancelling"
        if self.state is not JobState.RUNNING:
            self.next_run_at = now

    def retry(self, now: datetime) -> bool:
        """Queue a finished job anew (contract.md 5.2); returns False when it is not finished."""
        if not self.is_finished:
            return False
        self.state = JobState.QUEUED
        self.progress = 0
        self.message = "Queued"
        self.error = None
        self.result = {}
        self.interruptions = 0
        self.cancel_requested_at = None
        self.next_run_at = now
        self.rung_at = now
        self.started_at = None
        self.completed_at = None
        return True

    def back_off(self, message: str, *, until: datetime) -> None:
        """Let go of the job until another attempt is due."""
        self.state = JobState.RETRYING
        self.message = message
        self.lease_until = None
        self.next_run_at = until


def line_place(job: ProvisioningJob) -> tuple[int, datetime, UUID]:
    """Return the sort key of a tenant's line of unfinished jobs: what has begun first, then the oldest."""
    ranks = {JobState.RUNNING: 0, JobState.RETRYING: 1}
    return ranks.get(job.state, 2), job.created_at, job.id


class ProvisioningStep(Identified, TenantOwned, Base):
    """One step of a job's recipe and what came of it; `weight` is its share of the progress bar.

    `attempts` counts how often the step was begun, `failures` how often it failed since the job was last queued: a
    lost worker is no failure of the step.
    """

    __tablename__ = "provisioning_steps"
    __table_args__ = (UniqueConstraint("job_id", "position"),)

    job_id: Mapped[UUID] = mapped_column(ForeignKey("provisioning_jobs.id", ondelete="CASCADE"))
    position: Mapped[int]
    name: Mapped[str] = mapped_column(String(100))
    title: Mapped[str] = mapped_column(String(255))
    weight: Mapped[int] = mapped_column(default=1)
    state: Mapped[StepState] = mapped_column(enum_column(StepState, name="state"), default=StepState.PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    outputs: Mapped[JsonObject] = mapped_column(default=dict)
    error: Mapped[str | None] = mapped_column(Text)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    @property
    def is_begun(self) -> bool:
        """Whether there may be something to undo."""
        return self.state in (StepState.RUNNING, StepState.SUCCEEDED, StepState.FAILED)

    def begin(self, now: datetime) -> None:
        if self.state is StepState.COMPENSATED:
            # What an earlier run did is undone, so this is the first attempt again.
            self.attempts = 0
        self.state = StepState.RUNNING
        self.attempts += 1
        self.error = None
        self.started_at = now
        self.finished_at = None

    def succeed(self, outputs: Mapping[str, str], *, now: datetime) -> None:
        self.state = StepState.SUCCEEDED
        self.outputs = dict(outputs)
        self.finished_at = now

    def fail(self, error: str, *, now: datetime) -> None:
        self.state = StepState.FAILED
        self.failures += 1
        self.error = error
        self.finished_at = now

    def interrupt(self, now: datetime) -> None:
        """Note that the worker stopped in the middle of the step."""
        self.state = StepState.FAILED
        self.error = "Interrupted"
        self.finished_at = now

    def compensate(self, now: datetime) -> None:
        self.state = StepState.COMPENSATED
        self.outputs = {}
        self.finished_at = now

    def reset(self) -> None:
        """Forget what came of the step, so that it is run as if for the first time."""
        self.state = StepState.PENDING
        self.attempts = 0
        self.failures = 0
        self.outputs = {}
        self.error = None
        self.started_at = None
        self.finished_at = None


def first_unfinished(steps: Sequence[ProvisioningStep]) -> ProvisioningStep | None:
    """Return the step at which the job goes on, None when every step is done; `steps` are in order."""
    return next((step for step in steps if step.state is not StepState.SUCCEEDED), None)


def last_begun(steps: Sequence[ProvisioningStep]) -> ProvisioningStep | None:
    """Return the step to undo next, None when there is nothing to undo; `steps` are in order."""
    return next((step for step in reversed(steps) if step.is_begun), None)


def merged_outputs(steps: Iterable[ProvisioningStep]) -> dict[str, str]:
    """Return what all finished steps stated; of two equal names the later step's counts."""
    return {name: str(value) for step in steps for name, value in step.outputs.items()}


def progress_percent(steps: Sequence[ProvisioningStep], *, fraction: float = 0.0) -> int:
    """Return the job's progress, 0..100: the weights of finished steps, and `fraction` (0..1) of the one under way."""
    total = sum(step.weight for step in steps)
    done = sum(step.weight for step in steps if step.state is StepState.SUCCEEDED)
    current = first_unfinished(steps)
    if current is None:
        return 100
    return min(99, int(100 * (done + current.weight * min(max(fraction, 0.0), 1.0)) / total))


class ProvisioningLogLine(TenantOwned, Base):
    """A line a step's command printed, secrets already masked."""

    __tablename__ = "provisioning_log_lines"
    __table_args__ = (Index("ix_provisioning_log_lines_job_id", "job_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("provisioning_jobs.id", ondelete="CASCADE"))
    step: Mapped[str] = mapped_column(String(100))
    stream: Mapped[str] = mapped_column(String(10))
    text: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
