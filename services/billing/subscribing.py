"""Buying a plan by its name, as clients of the crypto billing do (contract.md 4.6); otherwise a checkout like any."""

from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from sqlalchemy import select

from models.billing import BillingPeriod, Plan
from models.tenants import Role, Tenant
from services.billing.checkout import CheckoutOrder, Checkouts
from services.billing.errors import PlanNotFound, TenantUnknown
from services.billing.views import CheckoutView
from services.identity import Principal, require_permission, require_superuser, require_tenant
from services.permissions import Permission
from services.unit_of_work import PlatformScope, RequestTrace, UnitOfWork, UnitOfWorkFactory

_PERIODS: Final = {"-monthly": BillingPeriod.MONTHLY, "-yearly": BillingPeriod.YEARLY}
_SCOPE: Final = PlatformScope("plans belong to nobody, and a superuser names the tenant")


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscribeInput:
    """Which plan to buy: by its id, its slug, or its slug and period such as `pro-monthly`; upper-case currency.

    `tenant_id` is for superusers alone, who may buy for any tenant.
    """

    plan: str
    currency: str
    tenant_id: UUID | None


def require_subscriber(actor: Principal, tenant_id: UUID | None) -> tuple[Principal, UUID]:
    """Return the caller as whoever buys, and for which tenant: the caller's own, or the one that a superuser names.

    Raises SuperuserRequired, NoTenantInToken and RoleRequired.
    """
    if tenant_id is not None and tenant_id != actor.tenant_id:
        require_superuser(actor)
        actor = replace(actor, tenant_id=tenant_id, role=Role.OWNER)
    own_id = require_tenant(actor)
    require_permission(actor.role, Permission.PLAN_BUY)
    return actor, own_id


class Subscribing:
    """Begins purchases at the configured provider."""

    def __init__(self, units: UnitOfWorkFactory, *, checkouts: Checkouts, return_url: str) -> None:
        self._units = units
        self._checkouts = checkouts
        self._return_url = return_url

    async def start(self, actor: Principal, wanted: SubscribeInput, *, trace: RequestTrace) -> CheckoutView:
        """Send the payer to the provider; for owners and admins, and for superusers in any tenant's stead.

        Raises what `Checkouts.start` does, SuperuserRequired for another tenant than one's own, and TenantUnknown.
        """
        actor, _ = require_subscriber(actor, wanted.tenant_id)
        async with self._units(_SCOPE, trace=trace) as uow:
            plan_id, period = await _found(uow, wanted.plan)
            if wanted.tenant_id is not None and await uow.session.get(Tenant, wanted.tenant_id) is None:
                raise TenantUnknown
        order = CheckoutOrder(
            plan_id=plan_id,
            billing_period=period,
            provider=None,
            success_url=self._return_url,
            cancel_url=self._return_url,
            currency=wanted.currency,
        )
        return await self._checkouts.start(actor, order, trace=trace)


async def _found(uow: UnitOfWork, name: str) -> tuple[UUID, BillingPeriod]:
    """Return a plan's id and the period that its name tells, a month when it tells none; raises PlanNotFound."""
    try:
        return UUID(name), BillingPeriod.MONTHLY
    except ValueError:
        pass
    slug = name.strip().lower()
    # The whole name first: nothing keeps a slug from ending like a period.
    readings = [(slug, BillingPeriod.MONTHLY)]
    readings += [(slug.removesuffix(end), period) for end, period in _PERIODS.items() if slug.endswith(end)]
    for reading, period in readings:
        plan_id: UUID | None = await uow.session.scalar(select(Plan.id).where(Plan.slug == reading))
        if plan_id is not None:
            return plan_id, period
    raise PlanNotFound
