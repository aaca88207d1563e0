"""Tenants that are closed, and what is refused for them: those to be deleted, and those that are suspended.

Both are closed to sockets and API keys. At REST their people go on, to look, to pay what is owed and to restore; what
is refused there asks here.
"""

from typing import Final
from uuid import UUID

from sqlalchemy import select

from core.errors import PermissionDenied
from models.tenants import Tenant, TenantStatus
from services.unit_of_work import UnitOfWork

# Why the subscription of a tenant that is to be deleted was cancelled.
DELETION_REASON: Final = "the tenant is deleted"


class TenantSuspended(PermissionDenied):
    """The tenant is closed for now: to sockets, to API keys, and to whatever lets further people or machines in."""

    code = "TENANT_SUSPENDED"
    message = "This tenant is suspended"


class TenantDeleted(PermissionDenied):
    """The tenant is to be deleted and nothing is begun for it any more; an owner may still restore it."""

    code = "TENANT_DELETED"
    message = "This tenant is to be deleted"


async def is_ending(uow: UnitOfWork, tenant_id: UUID) -> bool:
    """Tell whether a tenant is to be deleted.

    Whoever asks holds the tenant or its subscription, which asking for its deletion locks too, or has nothing to lose.
    """
    # The column and not the row, which may have been read before the lock.
    return await uow.session.scalar(select(Tenant.deletion_due_at).where(Tenant.id == tenant_id)) is not None


async def require_not_ending(uow: UnitOfWork, tenant_id: UUID) -> None:
    """Raise TenantDeleted for a tenant that is to be deleted; asked as `is_ending` is."""
    if await is_ending(uow, tenant_id):
        raise TenantDeleted


async def require_not_suspended(uow: UnitOfWork, tenant_id: UUID) -> None:
    """Raise TenantSuspended for a tenant that the platform has suspended."""
    if await uow.session.scalar(select(Tenant.status).where(Tenant.id == tenant_id)) is TenantStatus.SUSPENDED:
        raise TenantSuspended


async def require_open(uow: UnitOfWork, tenant_id: UUID) -> None:
    """Raise TenantDeleted or TenantSuspended for a closed tenant."""
    await require_not_ending(uow, tenant_id)
    await require_not_suspended(uow, tenant_id)
