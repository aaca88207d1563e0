"""What a provisioning job looks like on the wire, and the forms in which clients name job types and statuses.

The first ancestor's keys are kept exactly; the richer ones stand beside them (contract.md 5.1, 5.4).
"""

import re
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict

from models.provisioning import (
    JobState,
    JobType,
    ProvisioningJob,
    ProvisioningLogLine,
    ProvisioningStep,
    StepState,
)

WireStatus = Literal["pending", "running", "completed", "failed"]

_WIRE_STATUS: Final[dict[JobState, WireStatus]] = {
    JobState.QUEUED: "pending",
    JobState.RUNNING: "running",
    JobState.RETRYING: "running",
    JobState.SUCCEEDED: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "failed",
}
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class JobStatusFilter(StrEnum):
    """What a list of jobs can be limited to: one of the four wire statuses, or one of the richer states."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    QUEUED = "queued"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"

    def states(self) -> tuple[JobState, ...]:
        """Return the states that the filter lets through; a wire status stands for all states shown as it."""
        if self.value in _WIRE_STATUS.values():
            return tuple(state for state, status in _WIRE_STATUS.items() if status == self.value)
        return (JobState(self.value),)


_STATUS_ALIASES: Final = {"in_progress": "running", "canceled": "cancelled"}


def wire_status(state: JobState) -> WireStatus:
    """Return the status that the released clients know; a fifth would crash them (contract.md 5.4)."""
    return _WIRE_STATUS[state]


def instance_form(job_type: JobType) -> str:
    """Return the form of the written report: `create_site` is `CREATE_INSTANCE`."""
    return job_type.value.replace("_site", "_instance").upper()


def _snake(value: str) -> str:
    return re.sub(r"[\s-]+", "_", _HUMP.sub("_", value.strip())).lower()


def _canonical_type(value: object) -> object:
    return _snake(value).replace("_instance", "_site") if isinstance(value, str) else value


def _canonical_status(value: object) -> object:
    if not isinstance(value, str):
        return value
    snake = _snake(value)
    return _STATUS_ALIASES.get(snake, snake)


# Any case, in snake, camel or kebab form; `*_instance` is `*_site` (contract.md 5.4).
JobTypeName = Annotated[JobType, BeforeValidator(_canonical_type)]
JobStatusName = Annotated[JobStatusFilter, BeforeValidator(_canonical_status)]


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class StepView(_View):
    """One step; `weight` is its share of the progress bar, relative to the other steps."""

    name: str
    title: str
    state: StepState
    weight: int
    attempts: int
    error: str | None
    started_at: datetime | None
    finished_at: datetime | None


class LogLineView(_View):
    """One line that a step's command printed."""

    at: datetime
    step: str
    stream: str
    text: str


class JobMetadata(_View):
    """How often a worker has taken the job up."""

    attempt: int


class JobDetails(JobMetadata):
    """The steps in their order, and the newest log lines, oldest first."""

    steps: list[StepView]
    log: list[LogLineView]


class JobView(_View):
    """A job as a list shows it; `job_type` is the first ancestor's form, `type` the written report's."""

    id: UUID
    tenant_id: UUID
    job_type: JobType
    type: str
    status: WireStatus
    state: JobState
    progress: int
    message: str | None
    error: str | None
    error_message: str | None
    result: dict[str, Any] | None
    metadata: JobMetadata
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None


class JobDetailView(JobView):
    """A job with its steps and the end of its log."""

    metadata: JobDetails


class SiteView(_View):
    """What the site of a tenant can tell about itself."""

    tenant_id: UUID
    name: str
    slug: str
    url: str
    status: str
    plan: str | None
    facts: dict[str, str]


def job_view(job: ProvisioningJob) -> JobView:
    """Show a job without its steps."""
    return JobView(**_fields(job), metadata=JobMetadata(attempt=job.attempt))


def job_detail_view(
    job: ProvisioningJob, steps: Sequence[ProvisioningStep], log: Sequence[ProvisioningLogLine]
) -> JobDetailView:
    """Show a job with its steps and log."""
    details = JobDetails(
        attempt=job.attempt, steps=[_step_view(step) for step in steps], log=[_line_view(line) for line in log]
    )
    return JobDetailView(**_fields(job), metadata=details)


def _fields(job: ProvisioningJob) -> dict[str, Any]:
    return {
        "id": job.id,
        "tenant_id": job.tenant_id,
        "job_type": job.job_type,
        "type": instance_form(job.job_type),
        "status": wire_status(job.state),
        "state": job.state,
        "progress": job.progress,
        "message": job.message,
        "error": job.error,
        "error_message": job.error,
        "result": job.result if job.state is JobState.SUCCEEDED else None,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "completed_at": job.completed_at,
    }


def _step_view(step: ProvisioningStep) -> StepView:
    return StepView(
        name=step.name,
        title=step.title,
        state=step.state,
        weight=step.weight,
        attempts=step.attempts,
        error=step.error,
        started_at=step.started_at,
        finished_at=step.finished_at,
    )


def _line_view(line: ProvisioningLogLine) -> LogLineView:
    return LogLineView(at=line.at, step=line.step, stream=line.stream, text=line.text)
