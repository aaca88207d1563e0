"""Every tenant on the platform: found, closed to its people and opened again."""

from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, or_, select

from core.pagination import Page, PageRequest
from models.tenants import Membership, Tenant, TenantStatus
from services.identity import Principal, require_superuser
from services.platform.views import ListedTenantView
from services.step_up import require_recent_authentication
from services.tenants.suspension import Suspension, TenantNotFound
from services.unit_of_work import UnitOfWork


class PlatformTenants:
    """The use cases of superusers about tenants; all need a PlatformScope and raise SuperuserRequired."""

    def __init__(self, suspension: Suspension) -> None:
        self._suspension = suspension

    async def list(
        self, uow: UnitOfWork, actor: Principal, page: PageRequest, *, sought: str | None, status: TenantStatus | None
    ) -> Page[ListedTenantView]:
        """Show every tenant, newest first; `sought` is a part of a name or a slug."""
        require_superuser(actor)
        conditions = _conditions(sought, status)
        total = await uow.session.scalar(select(func.count()).select_from(Tenant).where(*conditions))
        members = select(func.count()).where(Membership.tenant_id == Tenant.id).scalar_subquery()
        rows = await uow.session.execute(
            select(Tenant, members)
            .where(*conditions)
            .order_by(Tenant.created_at.desc(), Tenant.id)
            .offset(page.offset)
            .limit(page.size)
        )
        return Page([ListedTenantView.seen(row[0], members=row[1]) for row in rows], total or 0, page)

    async def suspend(self, uow: UnitOfWork, actor: Principal, *, tenant_id: UUID, reason: str) -> bool:
        """Close a tenant to its people; returns whether that changed anything.

        Raises TenantNotFound and StepUpRequired.
        """
        slug = await self._slug(uow, actor, tenant_id)
        await require_recent_authentication(uow, actor)
        return await self._suspension.suspend(uow, slug=slug, reason=reason, actor_id=actor.user_id)

    async def reinstate(self, uow: UnitOfWork, actor: Principal, *, tenant_id: UUID, reason: str) -> bool:
        """Open a suspended tenant again; returns whether that changed anything. Raises TenantNotFound."""
        slug = await self._slug(uow, actor, tenant_id)
        return await self._suspension.reinstate(uow, slug=slug, reason=reason, actor_id=actor.user_id)

    async def _slug(self, uow: UnitOfWork, actor: Principal, tenant_id: UUID) -> str:
        require_superuser(actor)
        slug: str | None = await uow.session.scalar(select(Tenant.slug).where(Tenant.id == tenant_id))
        if slug is None:
            raise TenantNotFound
        return slug


def _conditions(sought: str | None, status: TenantStatus | None) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if sought:
        found.append(or_(*(column.icontains(sought, autoescape=True) for column in (Tenant.name, Tenant.slug))))
    # What is to be deleted is shown as cancelled, whatever it was before.
    if status is TenantStatus.CANCELLED:
        found.append(or_(Tenant.status == status, Tenant.deletion_due_at.is_not(None)))
    elif status is not None:
        found.append(and_(Tenant.status == status, Tenant.deletion_due_at.is_(None)))
    return found
