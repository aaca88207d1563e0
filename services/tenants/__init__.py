"""Tenants: the companies that are billed, provisioned and watched."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import joinedload

from core.pagination import Page, PageRequest
from models.provisioning import JobType
from models.tenants import Membership, Role, Tenant, TenantStatus
from models.users import User
from services.billing import BillingService
from services.billing.views import EntitlementsView
from services.entitlements import EntitlementDesk
from services.identity import Principal, require_oneself, require_permission, require_tenant
from services.mail import MailService
from services.permissions import Permission
from services.provisioning import ProvisioningService
from services.sso import OWN_TEMPLATE
from services.tenants.deletion import Deletion
from services.tenants.errors import TooManyTenants
from services.tenants.export import Export
from services.tenants.invitations import Invitations
from services.tenants.members import Members, attach, lock_user, membership_of, place_of
from services.tenants.ownership import Ownership
from services.tenants.slugs import free_slug
from services.tenants.suspension import Suspension
from services.tenants.views import CurrentTenantView, TenantDetailView, TenantStatusView
from services.unit_of_work import UnitOfWork, UnitOfWorkFactory
from services.verification import NOT_REQUIRED, Verification

__all__ = ["TenantChanges", "TenantService"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantChanges:
    """What to change of a tenant; None leaves a field as it is. `settings` replaces all settings."""

    name: str | None = None
    settings: dict[str, Any] | None = None


class TenantService:
    """Founding, showing and changing tenants; `members` and `invitations` hold the use cases about people.

    `ownership` holds those about owners, `deletion` and `export` those about a tenant's end, and `suspension` those of
    the platform's operators.

    Args:
        max_owned: how many tenants one person may own by founding them.
        deletion_grace: how long a tenant that is to be deleted can be restored.
        verification: whether founding, inviting, handing on and deleting ask for a confirmed address.
        disclosed: whether hosts are told which addresses they invite have an account (docs/adr/0024).
    """

    def __init__(
        self,
        *,
        units: UnitOfWorkFactory,
        billing: BillingService,
        provisioning: ProvisioningService,
        entitlements: EntitlementDesk,
        mail: MailService,
        public_url: str,
        max_owned: int,
        deletion_grace: timedelta,
        verification: Verification = NOT_REQUIRED,
        disclosed: bool = True,
    ) -> None:
        self._billing = billing
        self._entitlements = entitlements
        self._provisioning = provisioning
        self.members = Members()
        self._verification = verification
        self.invitations = Invitations(
            mail=mail,
            entitlements=entitlements,
            public_url=public_url,
            verification=verification,
            disclosed=disclosed,
        )
        self.suspension = Suspension()
        self.ownership = Ownership(verification)
        self.export = Export(units)
        self.deletion = Deletion(
            units=units,
            billing=billing,
            provisioning=provisioning,
            mail=mail,
            public_url=public_url,
            grace=deletion_grace,
            verification=verification,
        )
        self._max_owned = max_owned

    async def create(self, uow: UnitOfWork, *, name: str, owner: User, slug_from: str | None = None) -> Tenant:
        """Found a tenant: its owner's place, its trial and the job that makes its site, all in this transaction.

        Needs a PlatformScope; `owner` must be in the database already. The slug is made of `slug_from`, else of the
        name.
        """
        tenant = await _found(uow, name=name, slug_from=slug_from or name)
        await attach(uow, tenant_id=tenant.id, user_id=owner.id, role=Role.OWNER)
        uow.audit(
            "tenant.created",
            actor_id=owner.id,
            tenant_id=tenant.id,
            subject=("tenant", tenant.id),
            details={"slug": tenant.slug},
        )
        await self._billing.start_trial(uow, tenant)
        await self._provisioning.enqueue(uow, tenant, JobType.CREATE_SITE, requested_by=owner.id)
        return tenant

    async def create_further(self, uow: UnitOfWork, actor: Principal, *, name: str) -> TenantDetailView:
        """Found one more tenant for somebody who has signed up; it is not their default. Needs a PlatformScope.

        Raises TooManyTenants, EmailUnverified and Impersonated.
        """
        require_oneself(actor)
        await self._verification.require(uow, actor)
        # Held, so that two requests at once cannot both be the last that is allowed.
        await lock_user(uow, actor.user_id)
        owned = await uow.session.scalar(
            select(func.count())
            .select_from(Membership)
            .where(Membership.user_id == actor.user_id, Membership.role == Role.OWNER)
        )
        if (owned or 0) >= self._max_owned:
            raise TooManyTenants
        owner = (await uow.session.scalars(select(User).where(User.id == actor.user_id))).one()
        tenant = await self.create(uow, name=name, owner=owner)
        return TenantDetailView.seen_by(await membership_of(uow, actor, tenant.id))

    async def ensure_tenant(self, uow: UnitOfWork, *, name: str, slug: str, owner: User) -> Tenant:
        """Return the tenant of this slug, founded as `active` with a trial when there is none (demo accounts).

        Needs a PlatformScope. `owner` gets a place in it in any case; no site is made.
        """
        tenant = await _insert_tenant(uow, name=name, slug=slug, status=TenantStatus.ACTIVE)
        if tenant is not None:
            uow.audit("tenant.seeded", actor_id=None, tenant_id=tenant.id, subject=("tenant", tenant.id))
            await self._billing.start_trial(uow, tenant)
        else:
            tenant = (await uow.session.scalars(select(Tenant).where(Tenant.slug == slug))).one()
        await attach(uow, tenant_id=tenant.id, user_id=owner.id, role=Role.OWNER)
        return tenant

    async def list(self, uow: UnitOfWork, actor: Principal, page: PageRequest) -> Page[TenantDetailView]:
        """Show the caller's tenants, newest first; needs a PlatformScope."""
        mine = Membership.user_id == actor.user_id
        total = await uow.session.scalar(select(func.count()).select_from(Membership).where(mine))
        rows = await uow.session.scalars(
            select(Membership)
            .join(Membership.tenant)
            .options(joinedload(Membership.tenant))
            .where(mine)
            .order_by(Tenant.created_at.desc(), Tenant.id)
            .offset(page.offset)
            .limit(page.size)
        )
        return Page(items=[TenantDetailView.seen_by(row) for row in rows], total=total or 0, request=page)

    async def current(self, uow: UnitOfWork, actor: Principal) -> CurrentTenantView:
        """Show the tenant of the caller's token with its subscription and what it is limited to."""
        tenant_id = require_tenant(actor)
        place = await place_of(uow, actor, tenant_id)
        subscription = await self._billing.subscription_view(uow, tenant_id)
        return CurrentTenantView(
            **TenantDetailView.seen_by(place).model_dump(),
            subscription=subscription,
            limits=EntitlementsView.of(await self._entitlements.of(uow, tenant_id)).limits,
        )

    async def show(self, uow: UnitOfWork, actor: Principal, *, tenant_id: UUID) -> TenantDetailView:
        """Show one of the caller's tenants."""
        return TenantDetailView.seen_by(await place_of(uow, actor, tenant_id))

    async def status(self, uow: UnitOfWork, actor: Principal, *, tenant_id: UUID) -> TenantStatusView:
        """Show where one of the caller's tenants stands."""
        tenant = (await place_of(uow, actor, tenant_id)).tenant
        return TenantStatusView(
            tenant_id=tenant.id,
            status=tenant.shown_status,
            erpnext_site_url=tenant.erpnext_site_url,
            updated_at=tenant.updated_at,
        )

    async def update(
        self, uow: UnitOfWork, actor: Principal, *, tenant_id: UUID, changes: TenantChanges
    ) -> TenantDetailView:
        """Change the name or replace the settings; for owners and admins.

        Settings need the caller in person, and where everybody enters the site is for owners. Raises Impersonated,
        NoTenantAccess and RoleRequired.
        """
        membership = await membership_of(uow, actor, tenant_id, Permission.TENANT_CHANGE)
        tenant = membership.tenant
        if changes.settings is not None:
            require_oneself(actor)
            if changes.settings.get(OWN_TEMPLATE) != tenant.settings.get(OWN_TEMPLATE):
                require_permission(membership.role, Permission.SITE_CONFIGURE)
        given = {"name": changes.name, "settings": changes.settings}
        after = {field: value for field, value in given.items() if value is not None}
        before = {field: getattr(tenant, field) for field in after}
        for field, value in after.items():
            setattr(tenant, field, value)
        if after:
            tenant.updated_at = uow.now
            uow.audit(
                "tenant.updated",
                actor_id=actor.user_id,
                tenant_id=tenant_id,
                subject=("tenant", tenant_id),
                details={"before": before, "after": after},
            )
        return TenantDetailView.seen_by(membership)

    async def sweep(self) -> None:
        """Delete the tenants whose time of grace is over, and whatever of them is still in the way."""
        await self.deletion.sweep()


async def _found(uow: UnitOfWork, *, name: str, slug_from: str) -> Tenant:
    while True:
        slug = await free_slug(uow, slug_from)
        tenant = await _insert_tenant(uow, name=name, slug=slug, status=TenantStatus.PROVISIONING)
        # Somebody else may have taken the slug between looking and writing; their row is then seen by the next look.
        if tenant is not None:
            return tenant


async def _insert_tenant(uow: UnitOfWork, *, name: str, slug: str, status: TenantStatus) -> Tenant | None:
    statement = (
        insert(Tenant)
        .values(id=uuid4(), name=name, slug=slug, status=status, settings={}, created_at=uow.now, updated_at=uow.now)
        .on_conflict_do_nothing(index_elements=[Tenant.slug])
        .returning(Tenant)
    )
    return (await uow.session.scalars(statement)).one_or_none()
