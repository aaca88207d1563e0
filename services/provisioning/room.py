"""Whether a tenant's plan has room for what a job would make."""

from uuid import UUID

from models.entitlements import Limit
from models.provisioning import JobType
from services.entitlements.desk import EntitlementDesk
from services.entitlements.usage import gigabytes, sites, storage_bytes
from services.unit_of_work import UnitOfWork


async def require_room_for(uow: UnitOfWork, desk: EntitlementDesk, *, tenant_id: UUID, job_type: JobType) -> None:
    """Raise PlanLimitReached when the job would make what the plan has no room for; the tenant is locked.

    Asked when the job is asked for, and again when its turn comes: those before it may have taken the room.
    """
    if job_type is JobType.CREATE_SITE and (used := await sites(uow, tenant_id)) == 0:
        # Making a site that is there, or being made, already mends it and adds none.
        await desk.require_room(uow, tenant_id, Limit.SITES, used=used)
    elif job_type is JobType.BACKUP_SITE:
        # How large it will be nobody knows; whoever has no room left makes no other.
        used_gb = gigabytes(await storage_bytes(uow, tenant_id))
        await desk.require_room(uow, tenant_id, Limit.STORAGE_GB, used=used_gb, adding=gigabytes(1))
