"""Provisioning jobs over REST (contract.md 5.2)."""

from uuid import UUID

from aiohttp import web

from handlers.envelope import Envelope, ListEnvelope
from handlers.rest import Call, PageQuery, Router, WireModel
from services.entitlements.errors import PlanLimitReached
from services.identity import RoleRequired
from services.permissions import KeyScope
from services.provisioning import JobFilter, JobNotFound, JobNotRetryable, JobTypeUnavailable, TooManyJobs
from services.provisioning.views import JobDetailView, JobStatusName, JobTypeName, JobView

router = Router(tag="provisioning", prefix="/api/v1/provisioning")


class NewJob(WireModel):
    """A job to queue; the type is taken in any case and in snake, camel or kebab form, `*_instance` as `*_site`."""

    job_type: JobTypeName


class JobsQuery(PageQuery):
    """Which jobs to list; `in_progress` is `running`."""

    status: JobStatusName | None = None
    job_type: JobTypeName | None = None

    def filter(self) -> JobFilter:
        return JobFilter(states=self.status.states() if self.status else None, job_type=self.job_type)


@router.post(
    "/jobs",
    answer=Envelope[JobDetailView],
    status=201,
    errors=(JobTypeUnavailable, RoleRequired, TooManyJobs, PlanLimitReached),
    aliases=("/api/v1/provisioning/provision",),
    scope=KeyScope.JOBS_WRITE,
)
async def create_job(call: Call, body: NewJob) -> web.Response:
    """Queue a job for the tenant's site; for owners and admins."""
    async with call.tenant_uow() as uow:
        view = await call.context.services.provisioning.create(uow, call.actor, job_type=body.job_type)
    return call.ok(view, status=201)


@router.get("/jobs", answer=ListEnvelope[JobView], scope=KeyScope.JOBS_READ)
async def list_jobs(call: Call, query: JobsQuery) -> web.Response:
    """List the tenant's jobs, newest first."""
    async with call.tenant_uow() as uow:
        page = await call.context.services.provisioning.list(uow, call.actor, query.request(), only=query.filter())
    return call.page(page)


@router.get("/jobs/{job_id}", answer=Envelope[JobDetailView], errors=(JobNotFound,), scope=KeyScope.JOBS_READ)
async def show_job(call: Call, job_id: UUID) -> web.Response:
    """Show a job with its steps and the end of its log."""
    async with call.tenant_uow() as uow:
        view = await call.context.services.provisioning.show(uow, call.actor, job_id=job_id)
    return call.ok(view)


@router.post(
    "/jobs/{job_id}/retry",
    answer=Envelope[JobDetailView],
    errors=(JobNotFound, JobNotRetryable, RoleRequired, TooManyJobs, PlanLimitReached),
    scope=KeyScope.JOBS_WRITE,
)
async def retry_job(call: Call, job_id: UUID) -> web.Response:
    """Queue a finished job anew; it goes on where it failed. For owners and admins."""
    async with call.tenant_uow() as uow:
        view = await call.context.services.provisioning.retry(uow, call.actor, job_id=job_id)
    return call.ok(view)


@router.post(
    "/jobs/{job_id}/cancel",
    answer=Envelope[JobDetailView],
    errors=(JobNotFound, RoleRequired),
    scope=KeyScope.JOBS_WRITE,
)
async def cancel_job(call: Call, job_id: UUID) -> web.Response:
    """Cancel a job and undo what it has done; a finished job is left as it is. For owners and admins."""
    async with call.tenant_uow() as uow:
        view = await call.context.services.provisioning.cancel(uow, call.actor, job_id=job_id)
    return call.ok(view)
