"""Entitlements: what a tenant's plan, and the exceptions made for it, let it have (contract.md 4.2).

`desk` is asked by whoever makes something; `usage` counts; `overrides` are the exceptions; `calls` counts calls;
`sweeper` tells tenants of what time has changed; `ancestors` shows all of it in older forms.
"""

from datetime import timedelta
from uuid import UUID

from core.clock import Clock
from realtime.limits import SocketLimits
from services.billing.announcer import Announcer
from services.entitlements.ancestors import AncestorViews
from services.entitlements.calls import CallMeter
from services.entitlements.desk import EntitlementDesk
from services.entitlements.overrides import OverrideInput, Overrides
from services.entitlements.sweeper import Sweeper
from services.entitlements.usage import usage
from services.entitlements.views import OverrideView, TenantEntitlementsView
from services.identity import Principal, require_tenant
from services.unit_of_work import UnitOfWork, UnitOfWorkFactory

__all__ = ["EntitlementDesk", "EntitlementService", "OverrideInput"]


class EntitlementService:
    """All use cases around entitlements.

    Args:
        announcer: tells the tenant's people.
        grace: how long entitlements outlive a subscription; the desk's is the same.
    """

    def __init__(
        self,
        *,
        units: UnitOfWorkFactory,
        desk: EntitlementDesk,
        announcer: Announcer,
        clock: Clock,
        grace: timedelta,
    ) -> None:
        self._desk = desk
        self._sweeper = Sweeper(units, announcer=announcer, grace=grace)
        self.overrides = Overrides(desk=desk, announcer=announcer)
        self.ancestors = AncestorViews(desk)
        self.calls = CallMeter(units, desk, clock=clock)

    async def show(self, uow: UnitOfWork, actor: Principal) -> TenantEntitlementsView:
        """Show the caller's tenant what it may have, how much of it is used, and what was excepted for it."""
        tenant_id = require_tenant(actor)
        subscription, overrides = await self._desk.grounds(uow, tenant_id)
        in_force = sorted((row for row in overrides if row.holds(uow.now)), key=lambda row: row.name)
        return TenantEntitlementsView.shown(
            self._desk.judge(uow, subscription, overrides),
            await usage(uow, tenant_id),
            [OverrideView.of(row) for row in in_force],
        )

    async def socket_limits(self, uow: UnitOfWork, tenant_id: UUID, defaults: SocketLimits) -> SocketLimits:
        """Return what the tenant's sockets may do; see `EntitlementDesk.socket_limits`."""
        return await self._desk.socket_limits(uow, tenant_id, defaults)

    async def sweep(self) -> None:
        """Tell tenants of what has changed by itself. For the scheduler."""
        await self._sweeper.sweep()
