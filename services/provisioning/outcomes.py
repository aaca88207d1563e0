"""What follows for everybody else when a job moves: the tenant, the dashboards, its people, the next in line."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import Select, select

from models.notifications import NotificationType
from models.provisioning import (
    UNFINISHED,
    JobType,
    ProvisioningJob,
    ProvisioningStep,
    line_place,
    merged_outputs,
)
from models.tenants import Role, Tenant, TenantStatus
from services.events import StatusCompleted, StatusFailed, StatusUpdate
from services.notifications import NotificationService
from services.provisioning.safe_text import safe_text
from services.provisioning.views import wire_status
from services.unit_of_work import UnitOfWork

RUN_TASK: Final = "provisioning.run"

# What a job is called in a sentence to its tenant's people.
_DEEDS: Final = {
    JobType.CREATE_SITE: ("Site created", "Creating the site"),
    JobType.UPDATE_SITE: ("Site updated", "Updating the site"),
    JobType.DELETE_SITE: ("Site deleted", "Deleting the site"),
    JobType.BACKUP_SITE: ("Site backed up", "Backing up the site"),
    JobType.RESTORE_SITE: ("Site restored", "Restoring the site"),
}


def announce(uow: UnitOfWork, job: ProvisioningJob) -> None:
    """Tell the dashboards where an unfinished job stands."""
    uow.record(
        StatusUpdate(
            tenant_id=job.tenant_id,
            job_id=job.id,
            job_type=job.job_type.value,
            status=wire_status(job.state),
            state=job.state.value,
            progress=job.progress,
            message=job.message,
        )
    )


def locked_tenant(tenant_id: UUID) -> Select[Tenant]:
    """Select a tenant for changing it."""
    # Not the stronger lock: it would wait for, and could deadlock with, whoever merely refers to the tenant.
    return select(Tenant).where(Tenant.id == tenant_id).with_for_update(key_share=True)


class Outcomes:
    """Writes the consequences of a job's start and end beside the job itself, in the caller's unit of work."""

    def __init__(self, notifications: NotificationService) -> None:
        self._notifications = notifications

    async def begun(self, uow: UnitOfWork, job: ProvisioningJob, tenant: Tenant) -> None:
        """A worker has taken the job up; a tenant that has no site is being provisioned from now on."""
        siteless = tenant.erpnext_site_url is None and tenant.status is not TenantStatus.SUSPENDED
        if job.job_type is JobType.CREATE_SITE and siteless:
            self._change_status(uow, tenant, TenantStatus.PROVISIONING)
        announce(uow, job)

    async def succeeded(
        self, uow: UnitOfWork, job: ProvisioningJob, steps: Sequence[ProvisioningStep], *, site_name: str, url: str
    ) -> None:
        """End the job well; `url` is the site's address, which the tenant gets, keeps or loses."""
        tenant = (await uow.session.scalars(locked_tenant(job.tenant_id))).one()
        result = {name: safe_text(text, site_name=site_name) for name, text in merged_outputs(steps).items()}
        job.succeed(result, now=uow.now)
        self._settle_site(uow, job, tenant, url)
        self._audit(uow, job, "succeeded")
        uow.record(
            StatusCompleted(
                tenant_id=job.tenant_id,
                job_id=job.id,
                job_type=job.job_type.value,
                erpnext_url=tenant.erpnext_site_url,
                result=job.result,
            )
        )
        title = _DEEDS[job.job_type][0]
        where = f" {tenant.erpnext_site_url}" if job.job_type is JobType.CREATE_SITE else ""
        await self._notify(
            uow,
            job,
            NotificationType.SUCCESS,
            title,
            f"{title} for {tenant.name}.{where}",
            link=tenant.erpnext_site_url,
        )
        await self._ring_next(uow, job)

    async def failed(self, uow: UnitOfWork, job: ProvisioningJob, error: str) -> None:
        """End the job for good; `error` must be safe to show. What it has done stays for a retry to go on from."""
        job.fail(error, now=uow.now)
        self._audit(uow, job, "failed")
        self._record_failure(uow, job, error)
        await self._notify(uow, job, NotificationType.ERROR, f"{_DEEDS[job.job_type][1]} failed", error)
        await self._ring_next(uow, job)

    async def cancelled(self, uow: UnitOfWork, job: ProvisioningJob) -> None:
        """End the job as its user wished."""
        job.cancelled()
        self._audit(uow, job, "cancelled")
        self._record_failure(uow, job, job.error or "")
        await self._ring_next(uow, job)

    def _record_failure(self, uow: UnitOfWork, job: ProvisioningJob, error: str) -> None:
        uow.record(
            StatusFailed(
                tenant_id=job.tenant_id,
                job_id=job.id,
                job_type=job.job_type.value,
                state=job.state.value,
                error=error,
            )
        )

    def _settle_site(self, uow: UnitOfWork, job: ProvisioningJob, tenant: Tenant, url: str) -> None:
        if job.job_type in (JobType.CREATE_SITE, JobType.RESTORE_SITE):
            tenant.erpnext_site_url = url
            if tenant.status is not TenantStatus.SUSPENDED:
                # A tenant that was suspended meanwhile has its site now but may not use it yet.
                self._change_status(uow, tenant, TenantStatus.ACTIVE)
        elif job.job_type is JobType.DELETE_SITE:
            tenant.erpnext_site_url = None
            self._change_status(uow, tenant, TenantStatus.CANCELLED)

    def _change_status(self, uow: UnitOfWork, tenant: Tenant, status: TenantStatus) -> None:
        if tenant.status is status:
            return
        details = {"from": tenant.status.value, "to": status.value}
        tenant.status = status
        uow.audit(
            "tenant.status_changed", actor_id=None, tenant_id=tenant.id, subject=("tenant", tenant.id), details=details
        )

    def _audit(self, uow: UnitOfWork, job: ProvisioningJob, verb: str) -> None:
        uow.audit(
            f"provisioning_job.{verb}",
            actor_id=None,
            tenant_id=job.tenant_id,
            subject=("provisioning_job", job.id),
            details={"job_type": job.job_type.value, "attempt": job.attempt},
        )

    async def _notify(
        self,
        uow: UnitOfWork,
        job: ProvisioningJob,
        kind: NotificationType,
        title: str,
        message: str,
        *,
        link: str | None = None,
    ) -> None:
        await self._notifications.notify(
            uow,
            tenant_id=job.tenant_id,
            user_ids=await self._notifications.members(uow, job.tenant_id, Role.OWNER, Role.ADMIN),
            type=kind,
            title=title,
            message=message,
            data={"job_id": str(job.id), "job_type": job.job_type.value},
            link=link,
        )

    async def _ring_next(self, uow: UnitOfWork, ended: ProvisioningJob) -> None:
        # Flushed so that this row is locked before the line is read: a worker that tries for a job behind this one
        # either waits for our commit, or has put its job in the line early enough for us to see it.
        await uow.session.flush()
        line = await uow.session.scalars(
            select(ProvisioningJob).where(
                ProvisioningJob.tenant_id == ended.tenant_id, ProvisioningJob.state.in_(UNFINISHED)
            )
        )
        first = min(line, key=line_place, default=None)
        if first is not None and first.is_due(uow.now):
            uow.ring(RUN_TASK, first.id)
