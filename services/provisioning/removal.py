"""The site of a tenant that is deleted: its jobs are ended, and what they have made is taken away."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import select

from models.provisioning import UNFINISHED, JobState, JobType, ProvisioningJob
from models.tenants import Tenant
from services.provisioning.requests import JobRequests
from services.unit_of_work import UnitOfWork

# How long a removal that failed is left alone before it is tried anew.
_RETRY_AFTER: Final = timedelta(hours=1)


class SiteRemoval:
    """Takes a tenant's site away, step by step; each call does what can be done now."""

    def __init__(self, requests: JobRequests) -> None:
        self._requests = requests

    async def cancel_jobs(self, uow: UnitOfWork, tenant_id: UUID, *, actor_id: UUID | None) -> None:
        """Cancel every unfinished job of a tenant but the removal of its site; the caller has checked who asks."""
        for job in await self._jobs(uow, tenant_id, for_change=True):
            if job.state in UNFINISHED and job.job_type is not JobType.DELETE_SITE and not job.cancel_requested_at:
                await self._requests.cancel_job(uow, job, actor_id=actor_id)

    async def is_removed(self, uow: UnitOfWork, tenant: Tenant) -> bool:
        """Tell whether nothing of the tenant's site is left, and do what brings that about; needs a PlatformScope."""
        await self.cancel_jobs(uow, tenant.id, actor_id=None)
        jobs = await self._jobs(uow, tenant.id)
        if any(job.state in UNFINISHED for job in jobs):
            return False
        if tenant.erpnext_site_url is None and not _left_something(jobs):
            return True
        removals = [job for job in jobs if job.job_type is JobType.DELETE_SITE]
        if not any(_is_recent(job, uow) for job in removals):
            await self._requests.enqueue(uow, tenant, JobType.DELETE_SITE, requested_by=None)
        return False

    async def _jobs(self, uow: UnitOfWork, tenant_id: UUID, *, for_change: bool = False) -> Sequence[ProvisioningJob]:
        statement = select(ProvisioningJob).where(ProvisioningJob.tenant_id == tenant_id)
        if for_change:
            # In the order in which workers lock a tenant's line.
            statement = statement.where(ProvisioningJob.state.in_(UNFINISHED)).with_for_update(key_share=True)
        ordered = statement.order_by(ProvisioningJob.created_at, ProvisioningJob.id)
        return (await uow.session.scalars(ordered)).all()


def _left_something(jobs: Sequence[ProvisioningJob]) -> bool:
    """Tell whether a job was begun after which the site was not taken away; what was cancelled has undone itself."""
    for job in reversed(jobs):
        if job.job_type is JobType.DELETE_SITE and job.state is JobState.SUCCEEDED:
            return False
        if job.attempt > 0 and job.state is not JobState.CANCELLED:
            return True
    return False


def _is_recent(job: ProvisioningJob, uow: UnitOfWork) -> bool:
    return job.completed_at is not None and job.completed_at + _RETRY_AFTER > uow.now
