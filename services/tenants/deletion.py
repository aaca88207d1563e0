"""The end of a tenant: asked for by its owner, restorable for a while, then carried out for good.

From the moment it is asked for the tenant is closed to sockets and API keys, nothing is begun for it
(services/closed_tenants.py), and nobody will be charged for another period. When the time is over, a sweep ends the
subscription, has the site taken away, waits until the payment providers know, and only then deletes every row but those
of the books (docs/adr/0022).
"""

from datetime import timedelta
from uuid import UUID

import structlog
from sqlalchemy import delete, select
from sqlalchemy.orm import joinedload

from models.events import EventStream, LoggedEvent
from models.tenants import Membership, Role, Tenant
from services.billing import BillingService
from services.closed_tenants import TenantDeleted
from services.identity import Principal, require_oneself
from services.mail import MailService
from services.permissions import Permission
from services.provisioning import JobTypeUnavailable, ProvisioningService
from services.standing import tenant_closed
from services.step_up import require_recent_authentication
from services.tenants.errors import DeletionNotRequested, DeletionUnderWay
from services.tenants.last_owner import hold_places
from services.tenants.members import membership_of
from services.tenants.views import DeletionView, TenantDetailView
from services.unit_of_work import PlatformScope, UnitOfWork, UnitOfWorkFactory
from services.verification import Verification

_LIMIT = 500
_SCOPE = PlatformScope("tenants whose time is over are taken away")

logger = structlog.get_logger(__name__)


class Deletion:
    """The use cases of a tenant's end; `grace` is how long it can be restored."""

    def __init__(
        self,
        *,
        units: UnitOfWorkFactory,
        billing: BillingService,
        provisioning: ProvisioningService,
        mail: MailService,
        public_url: str,
        grace: timedelta,
        verification: Verification,
    ) -> None:
        self._units = units
        self._billing = billing
        self._provisioning = provisioning
        self._mail = mail
        self._public_url = public_url
        self._grace = grace
        self._verification = verification

    async def request(self, uow: UnitOfWork, actor: Principal, *, tenant_id: UUID) -> DeletionView:
        """Ask for a tenant's end; for owners who have just proved who they are. Asking again changes nothing.

        Its sockets end, its jobs are cancelled, its subscription ends with the paid period, its payment pages are
        closed. Raises StepUpRequired and EmailUnverified.
        """
        membership = await membership_of(uow, actor, tenant_id, Permission.TENANT_DELETE)
        await require_recent_authentication(uow, actor)
        await self._verification.require(uow, actor)
        # Jobs before the tenant, as the workers lock them.
        await self._provisioning.removal.cancel_jobs(uow, tenant_id, actor_id=actor.user_id)
        tenant = await _locked(uow, membership.tenant)
        if tenant.deletion_due_at is not None:
            return DeletionView(tenant_id=tenant_id, due_at=tenant.deletion_due_at)
        due_at = tenant.deletion_due_at = uow.now + self._grace
        await self._billing.winding_up.let_end(uow, tenant_id, actor_id=actor.user_id)
        await self._tell_owners(uow, tenant)
        uow.record(tenant_closed(tenant_id, code=TenantDeleted.code))
        uow.audit(
            "tenant.deletion_requested",
            actor_id=actor.user_id,
            tenant_id=tenant_id,
            subject=("tenant", tenant_id),
            details={"due_at": due_at.isoformat()},
        )
        return DeletionView(tenant_id=tenant_id, due_at=due_at)

    async def show(self, uow: UnitOfWork, actor: Principal, *, tenant_id: UUID) -> DeletionView:
        """Show until when a tenant can be restored; for owners. Raises DeletionNotRequested."""
        tenant = (await membership_of(uow, actor, tenant_id, Permission.TENANT_DELETE)).tenant
        if tenant.deletion_due_at is None:
            raise DeletionNotRequested
        return DeletionView(tenant_id=tenant_id, due_at=tenant.deletion_due_at)

    async def restore(self, uow: UnitOfWork, actor: Principal, *, tenant_id: UUID) -> TenantDetailView:
        """Take the request back; for owners.

        What was cancelled stays cancelled, the subscription's end included, and a page that was closed stays closed:
        whoever asks to pay is given a new one. Raises DeletionNotRequested, DeletionUnderWay and Impersonated.
        """
        membership = await membership_of(uow, actor, tenant_id, Permission.TENANT_DELETE)
        require_oneself(actor)
        tenant = await _locked(uow, membership.tenant)
        if tenant.deletion_due_at is None:
            raise DeletionNotRequested
        if not tenant.is_restorable(uow.now):
            raise DeletionUnderWay
        tenant.deletion_due_at = None
        uow.audit("tenant.restored", actor_id=actor.user_id, tenant_id=tenant_id, subject=("tenant", tenant_id))
        return TenantDetailView.seen_by(membership)

    async def sweep(self) -> int:
        """Carry out what is due, each tenant by itself; returns how many are gone. For the scheduler."""
        async with self._units(_SCOPE) as uow:
            due = await uow.session.scalars(
                select(Tenant.id)
                .where(Tenant.deletion_due_at <= uow.now)
                .order_by(Tenant.deletion_due_at)
                .limit(_LIMIT)
            )
            tenant_ids = list(due)
        return sum([await self._carry_out(tenant_id) for tenant_id in tenant_ids])

    async def _carry_out(self, tenant_id: UUID) -> bool:
        try:
            async with self._units(_SCOPE) as uow:
                return await self._close(uow, tenant_id)
        except JobTypeUnavailable:
            logger.exception("site not removed: the recipe cannot delete sites", tenant=str(tenant_id))
            return False

    async def _close(self, uow: UnitOfWork, tenant_id: UUID) -> bool:
        await self._provisioning.removal.cancel_jobs(uow, tenant_id, actor_id=None)
        tenant = await uow.session.scalar(
            select(Tenant)
            .where(Tenant.id == tenant_id, Tenant.deletion_due_at <= uow.now)
            .with_for_update(key_share=True, skip_locked=True)
        )
        if tenant is None or tenant.deletion_due_at is None:
            return False
        await self._billing.winding_up.end(uow, tenant_id, due_at=tenant.deletion_due_at)
        removed = await self._provisioning.removal.is_removed(uow, tenant)
        settled = await self._billing.winding_up.is_settled(uow, tenant_id)
        # What this unit has to tell in the tenant's stream comes first; the next sweep takes the stream away.
        if not removed or not settled or uow.pending_events:
            return False
        await self._erase(uow, tenant)
        return True

    async def _erase(self, uow: UnitOfWork, tenant: Tenant) -> None:
        await self._billing.winding_up.close_books(uow, tenant.id)
        # No foreign key ties these two; every other row of the tenant goes with its own, but for the books.
        await uow.session.execute(delete(LoggedEvent).where(LoggedEvent.tenant_id == tenant.id))
        await uow.session.execute(delete(EventStream).where(EventStream.tenant_id == tenant.id))
        await uow.session.execute(delete(Tenant).where(Tenant.id == tenant.id))
        uow.record(tenant_closed(tenant.id, code=TenantDeleted.code))
        # Written without the tenant, so that the platform's people find it among their own.
        uow.audit(
            "tenant.deleted",
            actor_id=None,
            tenant_id=None,
            subject=("tenant", tenant.id),
            details={"slug": tenant.slug},
        )

    async def _tell_owners(self, uow: UnitOfWork, tenant: Tenant) -> None:
        owners = await uow.session.scalars(
            select(Membership)
            .options(joinedload(Membership.user))
            .where(Membership.tenant_id == tenant.id, Membership.role == Role.OWNER)
        )
        for owner in owners:
            if owner.user.email is None:
                continue
            self._mail.enqueue_letter(
                uow,
                "tenant_deletion",
                recipient=owner.user.email,
                locale=owner.user.locale,
                full_name=owner.user.full_name,
                tenant=tenant.name,
                days=self._grace.days,
                link=self._public_url,
            )


async def _locked(uow: UnitOfWork, tenant: Tenant) -> Tenant:
    await hold_places(uow, tenant.id)
    # Read anew, for somebody may have been faster while the lock was waited for.
    await uow.session.refresh(tenant)
    return tenant
