"""Reports: what the platform earns and what a tenant has spent, from the journal and from what subscriptions bring."""

from datetime import date

from services.identity import Principal, require_permission, require_superuser, require_tenant
from services.permissions import Permission
from services.reports import money
from services.reports.months import Months
from services.reports.recurring import recurring, recurring_by_plan
from services.reports.views import CommissionView, MoneyView, PlanRecurringView, RecurringView, RevenueView
from services.unit_of_work import UnitOfWork

__all__ = ["ReportService"]


class ReportService:
    """The reports; `first` and `last` are the first days of months, None for the twelve months up to now.

    All but `spending` are for superusers, need a PlatformScope and raise SuperuserRequired; all that take months raise
    InvalidInput.
    """

    async def recurring(
        self, uow: UnitOfWork, actor: Principal, *, first: date | None, last: date | None
    ) -> list[RecurringView]:
        """Report monthly recurring revenue and its movements."""
        require_superuser(actor)
        return await recurring(uow, Months.asked(first, last, now=uow.now))

    async def recurring_by_plan(self, uow: UnitOfWork, actor: Principal) -> list[PlanRecurringView]:
        """Report monthly recurring revenue by plan as it is now."""
        require_superuser(actor)
        return await recurring_by_plan(uow)

    async def revenue(
        self, uow: UnitOfWork, actor: Principal, *, first: date | None, last: date | None
    ) -> list[RevenueView]:
        """Report what tenants paid, by provider and plan."""
        require_superuser(actor)
        return await money.revenue(uow, Months.asked(first, last, now=uow.now))

    async def commission(
        self, uow: UnitOfWork, actor: Principal, *, first: date | None, last: date | None
    ) -> list[CommissionView]:
        """Report commission on merchants' orders."""
        require_superuser(actor)
        return await money.commission(uow, Months.asked(first, last, now=uow.now))

    async def spending(
        self, uow: UnitOfWork, actor: Principal, *, first: date | None, last: date | None
    ) -> list[MoneyView]:
        """Report what the caller's tenant paid; for owners and admins."""
        tenant_id = require_tenant(actor)
        require_permission(actor.role, Permission.INVOICES_READ)
        return await money.spending(uow, tenant_id, Months.asked(first, last, now=uow.now))
