"""Taking up a job: exactly one worker gets it, and only when it is its tenant's turn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import select

from models.provisioning import (
    MAX_INTERRUPTIONS,
    UNFINISHED,
    ProvisioningJob,
    ProvisioningStep,
    line_place,
    progress_percent,
)
from providers.provisioning.contract import InvalidTarget, SiteTarget
from services.entitlements.desk import EntitlementDesk
from services.entitlements.errors import PlanLimitReached
from services.provisioning.outcomes import Outcomes, locked_tenant
from services.provisioning.room import require_room_for
from services.provisioning.sites import SiteAddresses, site_target
from services.provisioning.timing import Timing
from services.unit_of_work import PlatformScope, UnitOfWork, UnitOfWorkFactory

_GAVE_UP: Final = f"Gave up: the work was interrupted {MAX_INTERRUPTIONS} times"
_NO_ROOM: Final = "The plan has no room for another one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job that this worker owns for as long as the row's fence is `fence`."""

    job_id: UUID
    tenant_id: UUID
    kind: str
    fence: int
    target: SiteTarget


class Claims:
    """Hands jobs to workers. Race-safe: a tenant's whole line is locked while its turn is decided."""

    def __init__(
        self,
        units: UnitOfWorkFactory,
        outcomes: Outcomes,
        *,
        addresses: SiteAddresses,
        entitlements: EntitlementDesk,
        timing: Timing,
    ) -> None:
        self._units = units
        self._outcomes = outcomes
        self._addresses = addresses
        self._entitlements = entitlements
        self._timing = timing

    async def take(self, job_id: UUID) -> Claim | None:
        """Claim the job for this worker; None when it is finished, not due, not first in line, or another's."""
        async with self._units(PlatformScope("a worker serves every tenant")) as uow:
            line = await _locked_line(uow, job_id)
            job = min(line, key=line_place, default=None)
            if job is None or job.id != job_id or not job.is_due(uow.now):
                return None
            if not job.claim(uow.now, lease=self._timing.lease):
                await self._outcomes.failed(uow, job, _GAVE_UP)
                return None
            return await self._begin(uow, job)

    async def _begin(self, uow: UnitOfWork, job: ProvisioningJob) -> Claim | None:
        tenant = (await uow.session.scalars(locked_tenant(job.tenant_id))).one()
        steps = await steps_of(uow, job.id)
        job.progress, is_begun = progress_percent(steps), any(step.is_begun for step in steps)
        job.message = "Cancelling" if job.cancel_requested_at else "Started"
        await self._outcomes.begun(uow, job, tenant)
        try:
            if job.cancel_requested_at is None and not is_begun:
                await require_room_for(uow, self._entitlements, tenant_id=job.tenant_id, job_type=job.job_type)
            target = await site_target(
                uow, tenant, self._addresses, entitlements=await self._entitlements.of(uow, tenant.id)
            )
        except PlanLimitReached:
            await self._outcomes.failed(uow, job, _NO_ROOM)
            return None
        except InvalidTarget as error:
            await self._outcomes.failed(uow, job, f"The site cannot be worked on: {error}")
            return None
        return Claim(job_id=job.id, tenant_id=job.tenant_id, kind=job.job_type.value, fence=job.fence, target=target)


async def steps_of(uow: UnitOfWork, job_id: UUID) -> Sequence[ProvisioningStep]:
    """Return a job's steps in their order."""
    statement = select(ProvisioningStep).where(ProvisioningStep.job_id == job_id)
    return (await uow.session.scalars(statement.order_by(ProvisioningStep.position))).all()


async def _locked_line(uow: UnitOfWork, job_id: UUID) -> Sequence[ProvisioningJob]:
    """Lock and return the unfinished jobs of the tenant whose job this is."""
    tenant_id = select(ProvisioningJob.tenant_id).where(ProvisioningJob.id == job_id).scalar_subquery()
    statement = (
        select(ProvisioningJob)
        .where(ProvisioningJob.tenant_id == tenant_id, ProvisioningJob.state.in_(UNFINISHED))
        # One order for all workers, so that two of them cannot lock each other out for good.
        .order_by(ProvisioningJob.created_at, ProvisioningJob.id)
        .with_for_update(key_share=True)
    )
    return (await uow.session.scalars(statement)).all()
