"""How much a tenant has of what its plan limits, counted from the rows themselves."""

from collections.abc import Mapping
from datetime import date, datetime
from decimal import ROUND_UP, Decimal
from typing import Final
from uuid import UUID

from sqlalchemy import func, or_, select

from models.entitlements import Limit
from models.provisioning import UNFINISHED, JobState, JobType, ProvisioningJob
from models.tenants import Invitation, InvitationState, Membership, Tenant
from models.usage import ApiUsage
from services.unit_of_work import UnitOfWork

_BYTES_A_GB: Final = 10**9
_HUNDREDTH: Final = Decimal("0.01")
# Under this name a job that backs up tells how large the backup is (deploy/recipes).
_SIZE: Final = "backup_bytes"


async def members(uow: UnitOfWork, tenant_id: UUID) -> int:
    """Count who belongs to a tenant."""
    found = await uow.session.scalar(
        select(func.count()).select_from(Membership).where(Membership.tenant_id == tenant_id)
    )
    return found or 0


async def open_invitations(uow: UnitOfWork, tenant_id: UUID, *, but_for: str | None = None) -> int:
    """Count the invitations that can still be accepted, but for those of one address."""
    conditions = [
        Invitation.tenant_id == tenant_id,
        Invitation.state == InvitationState.PENDING,
        Invitation.expires_at > uow.now,
    ]
    if but_for is not None:
        conditions.append(func.lower(Invitation.email) != func.lower(but_for))
    found = await uow.session.scalar(select(func.count()).select_from(Invitation).where(*conditions))
    return found or 0


async def sites(uow: UnitOfWork, tenant_id: UUID) -> int:
    """Count the sites that a tenant has or that are being made: today one at most, at the tenant's own address."""
    made = select(Tenant.id).where(Tenant.id == tenant_id, Tenant.erpnext_site_url.is_not(None))
    in_making = select(ProvisioningJob.id).where(
        ProvisioningJob.tenant_id == tenant_id,
        ProvisioningJob.job_type == JobType.CREATE_SITE,
        ProvisioningJob.state.in_(UNFINISHED),
    )
    return 1 if await uow.session.scalar(select(or_(made.exists(), in_making.exists()))) else 0


async def storage_bytes(uow: UnitOfWork, tenant_id: UUID) -> int:
    """Add up what is kept for a tenant as far as it is known here: the backups of its site."""
    sizes = await uow.session.scalars(
        select(ProvisioningJob.result[_SIZE].astext).where(
            ProvisioningJob.tenant_id == tenant_id,
            ProvisioningJob.job_type == JobType.BACKUP_SITE,
            ProvisioningJob.state == JobState.SUCCEEDED,
            ProvisioningJob.result.has_key(_SIZE),
        )
    )
    # A recipe is somebody else's text, and so is what it tells.
    return sum(int(size) for size in sizes if size.isascii() and size.isdecimal())


async def calls(uow: UnitOfWork, tenant_id: UUID) -> int:
    """Return how many calls a tenant has made this month, as far as the instances have told."""
    found: int | None = await uow.session.scalar(
        select(ApiUsage.calls).where(ApiUsage.tenant_id == tenant_id, ApiUsage.month == month_of(uow.now))
    )
    return found or 0


async def usage(uow: UnitOfWork, tenant_id: UUID) -> Mapping[Limit, int | Decimal]:
    """Return how much a tenant has of everything that is counted here."""
    return {
        Limit.USERS: await members(uow, tenant_id) + await open_invitations(uow, tenant_id),
        Limit.STORAGE_GB: gigabytes(await storage_bytes(uow, tenant_id)),
        Limit.SITES: await sites(uow, tenant_id),
        # The slug; further names of a tenant are not made here.
        Limit.SUBDOMAINS: 1,
        Limit.API_CALLS: await calls(uow, tenant_id),
    }


def month_of(now: datetime) -> date:
    """Return the first day of the month (UTC) in which something is counted."""
    return now.date().replace(day=1)


def gigabytes(size: int) -> Decimal:
    """Return bytes as gigabytes with two decimals, rounded up so that something is never shown as nothing."""
    return (Decimal(size) / _BYTES_A_GB).quantize(_HUNDREDTH, rounding=ROUND_UP)
