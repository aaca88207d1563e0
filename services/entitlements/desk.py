"""What a tenant may have, asked for by whoever makes the thing.

Whoever asks whether there is room for one more holds the tenant's row (`hold_tenant`) until the thing is made, so that
of two who ask at once the second finds what the first has made.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

from sqlalchemy import select

from models.billing import Subscription
from models.entitlements import UNLIMITED, Entitlements, Flag, Limit, entitlements_of, is_limit
from models.overrides import EntitlementOverride
from models.tenants import Tenant
from realtime.limits import SocketLimits
from services.billing.lookup import subscriptions_with_plan
from services.entitlements.errors import FeatureNotInPlan, PlanLimitReached
from services.unit_of_work import UnitOfWork


class EntitlementDesk:
    """Looks entitlements up; `grace` is how long they outlive a subscription."""

    def __init__(self, *, grace: timedelta) -> None:
        self._grace = grace

    async def of(self, uow: UnitOfWork, tenant_id: UUID) -> Entitlements:
        """Return what a tenant may have now."""
        subscription, overrides = await self.grounds(uow, tenant_id)
        return self.judge(uow, subscription, overrides)

    async def grounds(
        self, uow: UnitOfWork, tenant_id: UUID
    ) -> tuple[Subscription | None, Sequence[EntitlementOverride]]:
        """Return what a tenant's entitlements follow from, as it is in the database."""
        subscription = await uow.session.scalar(subscriptions_with_plan(Subscription.tenant_id == tenant_id))
        if subscription is not None:
            return subscription, subscription.overrides
        overrides = await uow.session.scalars(
            select(EntitlementOverride).where(EntitlementOverride.tenant_id == tenant_id)
        )
        return None, overrides.all()

    def judge(
        self, uow: UnitOfWork, subscription: Subscription | None, overrides: Sequence[EntitlementOverride]
    ) -> Entitlements:
        """Compute what follows from these grounds now."""
        return entitlements_of(subscription, overrides, grace=self._grace, now=uow.now)

    async def require_room(
        self, uow: UnitOfWork, tenant_id: UUID, limit: Limit, *, used: int | Decimal, adding: int | Decimal = 1
    ) -> None:
        """Raise PlanLimitReached when a tenant that has `used` of something may not have `adding` more.

        The caller has held the tenant before it counted.
        """
        allowed = (await self.of(uow, tenant_id)).allowed(limit)
        if allowed != UNLIMITED and used + adding > allowed:
            raise PlanLimitReached(limit, used=used, allowed=allowed)

    async def require_feature(self, uow: UnitOfWork, tenant_id: UUID, flag: Flag) -> None:
        """Raise FeatureNotInPlan when the tenant does not have a feature."""
        if not (await self.of(uow, tenant_id)).has(flag):
            raise FeatureNotInPlan(flag)

    async def socket_limits(self, uow: UnitOfWork, tenant_id: UUID, defaults: SocketLimits) -> SocketLimits:
        """Return what the tenant's sockets may do, and `defaults` for what neither plan nor exceptions name."""
        given = (await self.of(uow, tenant_id)).sockets
        known = {field.name for field in fields(SocketLimits)}
        # What an operator wrote into a plan by mistake must not keep the tenant's people out.
        return replace(defaults, **{name: value for name, value in given.items() if name in known and is_limit(value)})


async def hold_tenant(uow: UnitOfWork, tenant_id: UUID) -> None:
    """Make whoever else would add to the tenant wait until this unit of work is over.

    It is the lock that guards the tenant's owners and its jobs too; taken before those of invitations and users.
    """
    await uow.session.execute(select(Tenant.id).where(Tenant.id == tenant_id).with_for_update(key_share=True))
