"""Subscriptions and plans as two ancestors showed them: views over what a tenant may have (contract.md 4.5, 9.2)."""

from uuid import UUID

from sqlalchemy import select

from core.errors import PermissionDenied
from models.entitlements import SOCKETS, with_twins
from models.plans import Plan
from models.tenants import Membership
from services.billing.errors import SubscriptionNotFound
from services.entitlements.desk import EntitlementDesk
from services.entitlements.errors import TariffNotFound
from services.entitlements.views import ModuleSubscriptionView, SoldTariffView, TariffSubscriptionView, is_served
from services.identity import Principal, require_tenant
from services.unit_of_work import UnitOfWork


class AncestorViews:
    """The use cases of clients that were written for other servers."""

    def __init__(self, desk: EntitlementDesk) -> None:
        self._desk = desk

    async def module_subscription(self, uow: UnitOfWork, actor: Principal) -> ModuleSubscriptionView:
        """Show modules what the caller's tenant has subscribed to; a trial and days of grace are served too."""
        subscription, overrides = await self._desk.grounds(uow, require_tenant(actor))
        granted = self._desk.judge(uow, subscription, overrides)
        if subscription is None or not is_served(granted.grant):
            return ModuleSubscriptionView(active=False)
        sockets = {SOCKETS: dict(granted.sockets)} if granted.sockets else {}
        return ModuleSubscriptionView(
            active=True,
            plan=subscription.plan.slug,
            limits={**with_twins(granted.limits), **sockets},
            features=dict(granted.flags),
            expires=granted.changes_at if subscription.is_over else subscription.ends_at,
        )

    async def tariffs(self, uow: UnitOfWork) -> list[SoldTariffView]:
        """Show the plans that are sold, in their order."""
        plans = await uow.session.scalars(select(Plan).where(Plan.is_active).order_by(Plan.sort_order, Plan.slug))
        return [SoldTariffView.of(plan) for plan in plans]

    async def tariff(self, uow: UnitOfWork, *, tariff_id: UUID) -> SoldTariffView:
        """Show one plan, also one that is not sold any more and that somebody still has. Raises TariffNotFound."""
        plan = await uow.session.get(Plan, tariff_id)
        if plan is None:
            raise TariffNotFound
        return SoldTariffView.of(plan)

    async def tariff_subscription(
        self, uow: UnitOfWork, actor: Principal, *, tenant_id: UUID
    ) -> TariffSubscriptionView:
        """Show a tenant's subscription to its people, and to superusers. Needs a PlatformScope.

        Raises PermissionDenied and SubscriptionNotFound.
        """
        belongs = await uow.session.scalar(
            select(Membership.id).where(Membership.user_id == actor.user_id, Membership.tenant_id == tenant_id)
        )
        if belongs is None and not actor.is_superuser:
            raise PermissionDenied("You don't have access to this tenant")
        subscription, overrides = await self._desk.grounds(uow, tenant_id)
        if subscription is None:
            raise SubscriptionNotFound
        granted = self._desk.judge(uow, subscription, overrides)
        return TariffSubscriptionView(
            id=subscription.id,
            tenant_id=subscription.tenant_id,
            tariff_id=subscription.plan_id,
            start_date=subscription.current_period_start,
            end_date=subscription.ends_at,
            is_active=is_served(granted.grant),
        )
