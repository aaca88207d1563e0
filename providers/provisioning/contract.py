"""What the services floor knows of provisioning: the target, the plan of a job, the driver and its errors.

The services floor owns the job: it decides order, retries and cancellation and journals every step. A driver
only carries out one step at a time, and every step may be carried out again after a crash (providers.md 1.4).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, Protocol
from uuid import UUID

JobKind = Literal["create_site", "update_site", "delete_site", "backup_site", "restore_site"]
JOB_KINDS: Final[tuple[JobKind, ...]] = (
    "create_site",
    "update_site",
    "delete_site",
    "backup_site",
    "restore_site",
)

Stream = Literal["stdout", "stderr"]
Limit = bool | int | str | None

NO_OUTPUTS: Final[Mapping[str, str]] = MappingProxyType({})

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_SLUG = re.compile(_LABEL)
_SITE_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_SITE_URL = re.compile(r"https?://[A-Za-z0-9][^\s\\\x00-\x1f\x7f]{0,500}")
_PLAN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,49}")
_EMAIL = re.compile(r"\w[^\s@/\\\x00-\x1f\x7f]{0,63}@\w[\w.-]{0,252}")


class ProvisioningError(Exception):
    """Base of everything a driver raises."""


class InvalidTarget(ProvisioningError):
    """A field of the target could be misread by a command, for instance as an option or as a path."""


class UnknownStep(ProvisioningError):
    """The driver has no such job kind or step; a journal written by another recipe is the usual cause."""


class StepFailed(ProvisioningError):
    """A step, or its compensation, did not succeed.

    `message` is fit to be shown: secrets are masked in it. `retryable` tells whether another attempt can
    help. `exit_code` is the command's own (negative: minus the signal that ended it), None when no command
    was run to its end.
    """

    def __init__(self, message: str, *, retryable: bool, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retryable = retryable
        self.exit_code = exit_code


class StepTimedOut(StepFailed):
    """The step used up its `timeout_s`; its process group has been ended. Another attempt may help."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteTarget:
    """The site a job is about.

    Every field can end up as an argument of a command, so each is held to a form that can be taken neither
    for an option nor for a path. Raises InvalidTarget otherwise.
    """

    tenant_id: UUID
    slug: str
    site_name: str
    site_url: str
    plan: str
    limits: Mapping[str, Limit]
    admin_email: str | None

    def __post_init__(self) -> None:
        if not _SLUG.fullmatch(self.slug):
            raise InvalidTarget(f"slug {self.slug!r} is not a lower-case DNS label")
        if len(self.site_name) > 253 or not _SITE_NAME.fullmatch(self.site_name):
            raise InvalidTarget(f"site name {self.site_name!r} is not a lower-case host name")
        if not _SITE_URL.fullmatch(self.site_url):
            raise InvalidTarget(f"site address {self.site_url!r} is not an http(s) address")
        if not _PLAN.fullmatch(self.plan):
            raise InvalidTarget(f"plan code {self.plan!r} is not made of letters, digits, '_' and '-'")
        if self.admin_email is not None and not _EMAIL.fullmatch(self.admin_email):
            raise InvalidTarget("the administrator's e-mail address is malformed")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """One step of a job as the journal needs it.

    `weight` is the step's share of the job's progress, relative to the other steps. `max_attempts` counts all
    attempts, the first included. `timeout_s` is in seconds. `compensates` tells whether the step has
    something to undo.
    """

    name: str
    title: str
    weight: int
    max_attempts: int
    timeout_s: float
    compensates: bool


class StepReport(Protocol):
    """Where a running step tells what happens. A slow report slows the command down, never fills memory."""

    async def line(self, stream: Stream, text: str) -> None:
        """Take one line of output: without its line end, without terminal codes, bounded, secrets masked."""

    async def progress(self, fraction: float) -> None:
        """Take the progress of this step, 0.0 to 1.0, as the command itself stated it."""


class ProvisioningDriver(Protocol):
    """Carries out the steps of a job.

    Outputs are the journal's memory: what a step returns is handed to every later step, to every compensation
    of the same job, and is part of the job's result. Inputs that a job kind takes (`restore_site`:
    `backup_id`) are handed in the same way, before the first step.

    Cancelling the awaiting task ends the step's whole process group before the cancellation is passed on.
    """

    def plan(self, kind: str) -> tuple[StepPlan, ...]:
        """Return the steps of `kind` in their order; pure. Raises UnknownStep."""

    async def run_step(
        self,
        kind: str,
        step_name: str,
        target: SiteTarget,
        *,
        job_id: UUID,
        attempt: int,
        outputs: Mapping[str, str],
        report: StepReport,
    ) -> Mapping[str, str]:
        """Carry out one step and return its outputs (its own only).

        `attempt` counts from 1 within this step of this job. Safe to repeat after a crash. Raises
        UnknownStep, StepFailed or StepTimedOut.
        """

    async def compensate(
        self,
        kind: str,
        step_name: str,
        target: SiteTarget,
        *,
        job_id: UUID,
        outputs: Mapping[str, str],
        report: StepReport,
    ) -> None:
        """Undo one step, whether it succeeded, failed half-way or only began.

        To be called for the last step begun first. Does nothing for a step that has nothing to undo, and
        nothing to what this job did not make itself. Safe to repeat. Raises UnknownStep, StepFailed or
        StepTimedOut.
        """
