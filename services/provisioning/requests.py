"""What people ask of provisioning: a job, the list of jobs, another try, an end (contract.md 5.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import func, select

from core.pagination import Page, PageRequest
from models.provisioning import (
    JobState,
    JobType,
    ProvisioningJob,
    ProvisioningLogLine,
    ProvisioningStep,
    StepState,
)
from models.tenants import Tenant
from providers.provisioning.contract import ProvisioningDriver, UnknownStep
from services.closed_tenants import TenantDeleted
from services.entitlements.desk import EntitlementDesk
from services.identity import Principal, require_may, require_tenant
from services.permissions import Permission
from services.provisioning.claims import steps_of
from services.provisioning.errors import JobNotFound, JobNotRetryable, JobTypeUnavailable, TooManyJobs
from services.provisioning.outcomes import RUN_TASK, Outcomes, announce
from services.provisioning.room import require_room_for
from services.provisioning.views import JobDetailView, JobView, job_detail_view, job_view
from services.unit_of_work import UnitOfWork

_LOG_LINES: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs to list; None means all."""

    states: tuple[JobState, ...] | None = None
    job_type: JobType | None = None


class JobRequests:
    """The use cases of a tenant's people; `max_waiting` jobs of one tenant may wait at once."""

    def __init__(
        self, driver: ProvisioningDriver, outcomes: Outcomes, *, entitlements: EntitlementDesk, max_waiting: int
    ) -> None:
        self._driver = driver
        self._entitlements = entitlements
        self._outcomes = outcomes
        self._max_waiting = max_waiting

    async def enqueue(
        self,
        uow: UnitOfWork,
        tenant: Tenant,
        job_type: JobType,
        *,
        requested_by: UUID | None,
        key_id: UUID | None = None,
    ) -> ProvisioningJob:
        """Queue a job for a tenant that is in the database, or about to be, in the caller's transaction.

        `requested_by` is the user who asks, `key_id` the API key that does instead. Raises JobTypeUnavailable.
        """
        job = ProvisioningJob(
            id=uuid4(),
            tenant_id=tenant.id,
            job_type=job_type,
            state=JobState.QUEUED,
            progress=0,
            message="Queued",
            result={},
            attempt=0,
            requested_by=requested_by,
            next_run_at=uow.now,
            rung_at=uow.now,
            created_at=uow.now,
        )
        uow.session.add(job)
        uow.session.add_all(self._steps(job))
        self._audit(uow, job, "requested", actor_id=requested_by or key_id)
        announce(uow, job)
        uow.ring(RUN_TASK, job.id)
        return job

    async def ensure_site(self, uow: UnitOfWork, *, tenant_id: UUID, requested_by: UUID) -> None:
        """Queue the making of a tenant's site, unless it was asked for before (demo accounts)."""
        # Locked, so that two processes that seed at once do not both queue it.
        statement = select(Tenant).where(Tenant.id == tenant_id).with_for_update(key_share=True)
        tenant = (await uow.session.scalars(statement)).one()
        earlier = await uow.session.scalar(
            select(ProvisioningJob.id)
            .where(ProvisioningJob.tenant_id == tenant_id, ProvisioningJob.job_type == JobType.CREATE_SITE)
            .limit(1)
        )
        if earlier is None:
            await self.enqueue(uow, tenant, JobType.CREATE_SITE, requested_by=requested_by)

    async def create(self, uow: UnitOfWork, actor: Principal, *, job_type: JobType) -> JobDetailView:
        """Queue a job for the caller's tenant; for owners and admins.

        Raises JobTypeUnavailable, TenantDeleted, TooManyJobs and PlanLimitReached.
        """
        tenant_id = require_tenant(actor)
        require_may(actor, Permission.JOBS_MANAGE)
        tenant = await self._tenant_with_room(uow, tenant_id)
        await require_room_for(uow, self._entitlements, tenant_id=tenant_id, job_type=job_type)
        job = await self.enqueue(uow, tenant, job_type, requested_by=actor.person_id, key_id=actor.key_id)
        # Flushed so that the steps just added can be read back in their order.
        await uow.session.flush()
        return await self._details(uow, job)

    async def list(self, uow: UnitOfWork, actor: Principal, page: PageRequest, *, only: JobFilter) -> Page[JobView]:
        """Show the jobs of the caller's tenant, newest first."""
        tenant_id = require_tenant(actor)
        wanted = [ProvisioningJob.tenant_id == tenant_id]
        if only.states is not None:
            wanted.append(ProvisioningJob.state.in_(only.states))
        if only.job_type is not None:
            wanted.append(ProvisioningJob.job_type == only.job_type)
        total = await uow.session.scalar(select(func.count()).select_from(ProvisioningJob).where(*wanted))
        jobs = await uow.session.scalars(
            select(ProvisioningJob)
            .where(*wanted)
            .order_by(ProvisioningJob.created_at.desc(), ProvisioningJob.id.desc())
            .offset(page.offset)
            .limit(page.size)
        )
        return Page(items=[job_view(job) for job in jobs], total=total or 0, request=page)

    async def show(self, uow: UnitOfWork, actor: Principal, *, job_id: UUID) -> JobDetailView:
        """Show one job of the caller's tenant with its steps and its last log lines. Raises JobNotFound."""
        return await self._details(uow, await self._job(uow, actor, job_id))

    async def retry(self, uow: UnitOfWork, actor: Principal, *, job_id: UUID) -> JobDetailView:
        """Queue a finished job anew; for owners and admins.

        Raises JobNotFound, JobNotRetryable, TenantDeleted, TooManyJobs and PlanLimitReached.
        A failed or cancelled job goes on at its first unfinished step; a completed one is done once more as a whole.
        """
        job = await self._job(uow, actor, job_id, for_change=True)
        if not job.is_finished:
            raise JobNotRetryable
        await self._tenant_with_room(uow, job.tenant_id)
        await require_room_for(uow, self._entitlements, tenant_id=job.tenant_id, job_type=job.job_type)
        done_before = job.state is JobState.SUCCEEDED
        job.retry(uow.now)
        for step in await steps_of(uow, job.id):
            step.failures = 0
            if done_before:
                step.reset()
        self._audit(uow, job, "retried", actor_id=actor.user_id)
        announce(uow, job)
        uow.ring(RUN_TASK, job.id)
        return await self._details(uow, job)

    async def cancel(self, uow: UnitOfWork, actor: Principal, *, job_id: UUID) -> JobDetailView:
        """Cancel a job; for owners and admins. Raises JobNotFound.

        A job of which nothing was begun is cancelled at once. Otherwise a worker ends the step under way and undoes
        the others first. A finished job is returned as it is.
        """
        job = await self._job(uow, actor, job_id, for_change=True)
        if not job.is_finished:
            await self.cancel_job(uow, job, actor_id=actor.user_id)
        return await self._details(uow, job)

    async def cancel_job(self, uow: UnitOfWork, job: ProvisioningJob, *, actor_id: UUID | None) -> None:
        """Cancel a locked, unfinished job; whoever calls has checked who asks."""
        self._audit(uow, job, "cancel_requested", actor_id=actor_id)
        if job.can_cancel_at_once(await steps_of(uow, job.id)):
            await self._outcomes.cancelled(uow, job)
        else:
            job.request_cancel(uow.now)
            announce(uow, job)
            uow.ring(RUN_TASK, job.id)

    def _steps(self, job: ProvisioningJob) -> Sequence[ProvisioningStep]:
        try:
            plan = self._driver.plan(job.job_type.value)
        except UnknownStep as error:
            raise JobTypeUnavailable from error
        return [
            ProvisioningStep(
                tenant_id=job.tenant_id,
                job_id=job.id,
                position=position,
                name=step.name,
                title=step.title,
                weight=step.weight,
                state=StepState.PENDING,
            )
            for position, step in enumerate(plan)
        ]

    async def _job(
        self, uow: UnitOfWork, actor: Principal, job_id: UUID, *, for_change: bool = False
    ) -> ProvisioningJob:
        tenant_id = require_tenant(actor)
        statement = select(ProvisioningJob).where(ProvisioningJob.id == job_id, ProvisioningJob.tenant_id == tenant_id)
        if for_change:
            require_may(actor, Permission.JOBS_MANAGE)
            # Locked, so that a worker's claim comes either before this change or after it.
            statement = statement.with_for_update(key_share=True)
        job = (await uow.session.scalars(statement)).one_or_none()
        if job is None:
            raise JobNotFound
        return job

    async def _tenant_with_room(self, uow: UnitOfWork, tenant_id: UUID) -> Tenant:
        """Return a tenant for which one more job may wait, locked."""
        # Locked, so that whoever asks for the tenant's deletion at this moment finds the job, or is found here, and
        # that of many who ask for a job at once each counts what the one before has queued.
        statement = select(Tenant).where(Tenant.id == tenant_id).with_for_update(key_share=True)
        tenant = (await uow.session.scalars(statement)).one()
        if tenant.deletion_due_at is not None:
            raise TenantDeleted
        waiting = await uow.session.scalar(
            select(func.count())
            .select_from(ProvisioningJob)
            .where(
                ProvisioningJob.tenant_id == tenant_id,
                ProvisioningJob.state.in_((JobState.QUEUED, JobState.RETRYING)),
            )
        )
        if (waiting or 0) >= self._max_waiting:
            raise TooManyJobs
        return tenant

    async def _details(self, uow: UnitOfWork, job: ProvisioningJob) -> JobDetailView:
        newest = select(ProvisioningLogLine).where(ProvisioningLogLine.job_id == job.id)
        lines = (await uow.session.scalars(newest.order_by(ProvisioningLogLine.id.desc()).limit(_LOG_LINES))).all()
        return job_detail_view(job, await steps_of(uow, job.id), lines[::-1])

    def _audit(self, uow: UnitOfWork, job: ProvisioningJob, verb: str, *, actor_id: UUID | None) -> None:
        uow.audit(
            f"provisioning_job.{verb}",
            actor_id=actor_id,
            tenant_id=job.tenant_id,
            subject=("provisioning_job", job.id),
            details={"job_type": job.job_type.value},
        )
