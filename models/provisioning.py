"""Provisioning jobs, the journal of their steps, and the lines their commands printed (providers.md 1.4)."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, String, Text, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Identified, JsonObject, TenantOwned, enum_column


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


class StepState(StrEnum):
    """Where one step of a job stands."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    COMPENSATED = "compensated"


class ProvisioningJob(Identified, TenantOwned, Base):
    """A long operation on a tenant's site. The row is the truth; a queue message about it is only a doorbell.

    A worker owns the row while `lease_until` is ahead and `fence` is the number it claimed with.
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
    requested_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    cancel_requested_at: Mapped[datetime | None]
    fence: Mapped[int] = mapped_column(default=0)
    lease_until: Mapped[datetime | None]
    next_run_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]


class ProvisioningStep(Identified, TenantOwned, Base):
    """One step of a job's recipe and what came of it; `weight` is its share of the progress bar."""

    __tablename__ = "provisioning_steps"
    __table_args__ = (UniqueConstraint("job_id", "position"),)

    job_id: Mapped[UUID] = mapped_column(ForeignKey("provisioning_jobs.id", ondelete="CASCADE"))
    position: Mapped[int]
    name: Mapped[str] = mapped_column(String(100))
    title: Mapped[str] = mapped_column(String(255))
    weight: Mapped[int] = mapped_column(default=1)
    state: Mapped[StepState] = mapped_column(enum_column(StepState, name="state"), default=StepState.PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    outputs: Mapped[JsonObject] = mapped_column(default=dict)
    error: Mapped[str | None] = mapped_column(Text)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


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
