"""Merchants: tenants whose customers pay orders at the merchant's own provider, and our commission on these."""

from decimal import Decimal
from uuid import UUID

from sqlalchemy import select

from core.pagination import PageRequest
from core.sealing import KeyRing
from models.orders import OrderStatus
from models.tenants import Tenant
from providers.payments.accounts import Accounts
from services.identity import Principal, require_tenant
from services.merchants.announcer import MerchantAnnouncer
from services.merchants.inbound import MerchantInbox
from services.merchants.integrations import AccountInput, Integrations
from services.merchants.looking import Looking
from services.merchants.orders import OrderInput, create_order, list_commissions, list_orders, show_order
from services.merchants.paying import Paying, PayInput
from services.merchants.refunds import RefundInput, Refunds
from services.merchants.settlement import Settlement
from services.merchants.vault import Rotation, Vault
from services.merchants.views import CommissionListView, OrderListView, OrderView
from services.notifications import NotificationService
from services.tenants.errors import NoTenantAccess
from services.unit_of_work import TenantScope, UnitOfWork, UnitOfWorkFactory

__all__ = ["AccountInput", "MerchantService", "OrderInput", "PayInput", "RefundInput"]


class MerchantService:
    """All use cases of merchants; each is told in the module that carries it out.

    Args:
        accounts: opens merchants' accounts at providers.
        ring: the keys that merchants' own keys are sealed with.
        commission_percent: our share of an order, where the merchant's plan names none.
        public_url: under which providers reach our webhooks.
    """

    def __init__(
        self,
        *,
        units: UnitOfWorkFactory,
        accounts: Accounts,
        ring: KeyRing,
        notifications: NotificationService,
        commission_percent: Decimal,
        public_url: str,
    ) -> None:
        self._units = units
        vault, announcer = Vault(ring), MerchantAnnouncer(notifications)
        settlement = Settlement(announcer)
        self.integrations = Integrations(
            units, accounts=accounts, vault=vault, announcer=announcer, public_url=public_url
        )
        self.inbox = MerchantInbox(units, accounts=accounts, vault=vault, settlement=settlement, announcer=announcer)
        self.paying = Paying(
            units,
            accounts=accounts,
            vault=vault,
            default_percent=commission_percent,
            return_url=f"{public_url}/dashboard",
        )
        self.refunds = Refunds(units, accounts=accounts, vault=vault, settlement=settlement)
        self.rotation = Rotation(units, vault)
        self._looking = Looking(units, inbox=self.inbox, refunds=self.refunds)

    async def refuse_other_tenant(self, actor: Principal, named: str) -> None:
        """Raise NoTenantAccess unless a name, an id or a slug, is that of the tenant of the caller's token."""
        tenant_id = require_tenant(actor)
        async with self._units(TenantScope(tenant_id)) as uow:
            known = await uow.session.scalar(select(Tenant.slug).where(Tenant.id == tenant_id))
        if named.lower() not in (str(tenant_id), known):
            raise NoTenantAccess

    async def create_order(self, uow: UnitOfWork, actor: Principal, wanted: OrderInput) -> OrderView:
        """Make an order; see `create_order`."""
        return await create_order(uow, actor, wanted)

    async def order(self, uow: UnitOfWork, actor: Principal, *, order_id: UUID) -> OrderView:
        """Show an order; see `show_order`."""
        return await show_order(uow, actor, order_id=order_id)

    async def orders(
        self, uow: UnitOfWork, actor: Principal, page: PageRequest, *, status: OrderStatus | None, reference: str | None
    ) -> OrderListView:
        """Show the tenant's orders; see `list_orders`."""
        return await list_orders(uow, actor, page, status=status, reference=reference)

    async def commissions(self, uow: UnitOfWork, actor: Principal, page: PageRequest) -> CommissionListView:
        """Show what the platform takes of the tenant's orders; see `list_commissions`."""
        return await list_commissions(uow, actor, page)

    async def look(self, invoice_id: UUID) -> None:
        """Ask a merchant's provider how an invoice stands; for the worker."""
        await self._looking.look(invoice_id)

    async def sweep(self) -> None:
        """Look at invoices whose time has come; for the scheduler."""
        await self._looking.sweep()
