"""Closing a tenant to sockets and machines for a while: what an operator does about abuse, or a bill not paid."""

from typing import Any
from uuid import UUID

from sqlalchemy import select

from core.errors import NotFound
from models.audit import AuditEntry
from models.tenants import Tenant, TenantStatus
from services.standing import tenant_closed
from services.unit_of_work import UnitOfWork

_SUSPENDED = "tenant.suspended"


class TenantNotFound(NotFound):
    """No tenant has this slug."""

    message = "Tenant not found"


class Suspension:
    """The use cases of the platform's own people; all need a PlatformScope."""

    async def suspend(self, uow: UnitOfWork, *, slug: str, reason: str, actor_id: UUID | None = None) -> bool:
        """Close a tenant: its sockets end and no new ones are let in, nor its API keys; its site and data stay.

        Its people go on at REST, but invite nobody, make no API key and get no way into the site from here.

        `actor_id` is None for the command line. Returns whether that changed anything. Raises TenantNotFound.
        """
        tenant = await self._locked(uow, slug)
        if tenant.status is TenantStatus.SUSPENDED:
            return False
        former, tenant.status, tenant.updated_at = tenant.status, TenantStatus.SUSPENDED, uow.now
        self._audit(uow, _SUSPENDED, tenant, {"reason": reason, "from": former.value}, actor_id)
        uow.record(tenant_closed(tenant.id))
        return True

    async def reinstate(
        self, uow: UnitOfWork, *, slug: str, reason: str | None = None, actor_id: UUID | None = None
    ) -> bool:
        """Open a suspended tenant again; returns whether that changed anything. Raises TenantNotFound."""
        tenant = await self._locked(uow, slug)
        if tenant.status is not TenantStatus.SUSPENDED:
            return False
        tenant.status, tenant.updated_at = await self._status_to_be(uow, tenant), uow.now
        details = {"to": tenant.status.value} if reason is None else {"to": tenant.status.value, "reason": reason}
        self._audit(uow, "tenant.reinstated", tenant, details, actor_id)
        return True

    async def _status_to_be(self, uow: UnitOfWork, tenant: Tenant) -> TenantStatus:
        """Return what a tenant is without its suspension; its site may have been finished meanwhile."""
        if tenant.erpnext_site_url is not None:
            return TenantStatus.ACTIVE
        details = await uow.session.scalar(
            select(AuditEntry.details)
            .where(AuditEntry.tenant_id == tenant.id, AuditEntry.action == _SUSPENDED)
            .order_by(AuditEntry.id.desc())
            .limit(1)
        )
        return TenantStatus(details["from"]) if details else TenantStatus.PENDING

    async def _locked(self, uow: UnitOfWork, slug: str) -> Tenant:
        # Not the stronger lock, which would wait for whoever merely refers to the tenant.
        tenant: Tenant | None = await uow.session.scalar(
            select(Tenant).where(Tenant.slug == slug).with_for_update(key_share=True)
        )
        if tenant is None:
            raise TenantNotFound
        return tenant

    def _audit(
        self, uow: UnitOfWork, action: str, tenant: Tenant, details: dict[str, Any], actor_id: UUID | None
    ) -> None:
        uow.audit(action, actor_id=actor_id, tenant_id=tenant.id, subject=("tenant", tenant.id), details=details)
