"""Entitlements over a billing that has a clock and a database of its own."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from models.billing import Plan
from models.entitlements import Entitlements
from models.users import User
from services.entitlements import EntitlementDesk, EntitlementService, OverrideInput
from services.entitlements.calls import CallMeter
from services.entitlements.views import NotedEntitlementsView, TenantEntitlementsView
from services.identity import Principal
from services.unit_of_work import TenantScope
from tests.services.billing.conftest import books, shop, till
from tests.support.billing import PLATFORM, Shop, Till

__all__ = ["books", "shop", "till"]

GRACE = timedelta(days=3)


@dataclass(slots=True)
class Office:
    """Where it is asked what tenants may have."""

    till: Till
    desk: EntitlementDesk
    service: EntitlementService
    operator: Principal

    async def of(self, shop: Shop) -> Entitlements:
        async with self.till.units(TenantScope(shop.tenant_id)) as uow:
            return await self.desk.of(uow, shop.tenant_id)

    async def show(self, shop: Shop) -> TenantEntitlementsView:
        async with self.till.units(TenantScope(shop.tenant_id)) as uow:
            return await self.service.show(uow, shop.member)

    async def put(
        self, shop: Shop, name: str, value: int | bool, *, until: datetime | None = None, by: Principal | None = None
    ) -> NotedEntitlementsView:
        """Make an exception for a tenant."""
        wanted = OverrideInput(name=name, value=value, until=until, reason="a test")
        async with self.till.units(PLATFORM) as uow:
            return await self.service.overrides.put(uow, by or self.operator, tenant_id=shop.tenant_id, wanted=wanted)

    async def remove(self, shop: Shop, name: str) -> NotedEntitlementsView:
        async with self.till.units(PLATFORM) as uow:
            return await self.service.overrides.remove(uow, self.operator, tenant_id=shop.tenant_id, name=name)

    async def plan_with(self, shop: Shop, **values: Any) -> UUID:
        """Put a tenant on a plan of its own; returns the plan's id."""
        plan = Plan(
            id=uuid4(), slug=f"own-{uuid4().hex[:8]}", name="Own", price_monthly=1, price_yearly=10, trial_days=14,
            **{"limits": {}, "feature_flags": {}, **values},
        )  # fmt: skip
        async with self.till.units(PLATFORM) as uow:
            uow.session.add(plan)
        subscription = await self.till.subscription(shop)
        await self.till.change(type(subscription), subscription.id, plan_id=plan.id)
        return plan.id

    def meter(self) -> CallMeter:
        """Return the meter of one more instance."""
        return CallMeter(self.till.units, self.desk, clock=self.till.clock)

    def told(self, shop: Shop) -> list[dict[str, Any]]:
        """Return what the tenant's people have heard of their entitlements, oldest first."""
        return [event.payload["entitlements"] for event in self.till.heard(shop, "subscription:updated")]


@pytest.fixture
async def office(till: Till) -> Office:
    desk = EntitlementDesk(grace=GRACE)
    service = EntitlementService(
        units=till.units, desk=desk, announcer=till.billing.announcer, clock=till.clock, grace=GRACE
    )
    async with till.units(PLATFORM) as uow:
        user = (await uow.session.scalars(select(User).where(User.email == "operator@example.org"))).one_or_none()
        if user is None:
            user = User(
                id=uuid4(), email="operator@example.org", hashed_password="-", full_name="Operator",
                is_active=True, is_superuser=True,
            )  # fmt: skip
            uow.session.add(user)
    operator = Principal(user_id=user.id, session_id=uuid4(), tenant_id=None, role=None, is_superuser=True)
    return Office(till=till, desk=desk, service=service, operator=operator)
