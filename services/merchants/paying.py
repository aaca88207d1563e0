"""Sending a customer to pay: an order has one open invoice at the merchant's provider, however often it is asked for.

Not every provider has idempotency keys, so whoever asks for an invoice says so in its row first and has a minute.
Everybody else waits for the answer; after the minute the next one asks with the same id, and the adapter finds what the
first one may have made.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import select

from models.billing import Plan, Subscription
from models.merchants import PaymentIntegration
from models.orders import Order, OrderInvoice
from models.payment_progress import CheckoutState
from providers.payments import CheckoutCreated, InvoiceRequest, PaymentProvider, ProviderRejected, ProviderUnavailable
from providers.payments.accounts import Accounts
from services.closed_tenants import require_not_ending
from services.identity import Principal, require_permission, require_tenant
from services.merchants.errors import InvoiceBeingOpened, NoAccount, OrderAmountDiffers, OrderPaidAlready
from services.merchants.look_times import look_after
from services.merchants.lookup import current_integration, held_book
from services.merchants.reckoning import Book
from services.merchants.settlement import add_twin
from services.merchants.vault import Vault
from services.merchants.views import UrlView
from services.permissions import Permission
from services.unit_of_work import RequestTrace, TenantScope, UnitOfWork, UnitOfWorkFactory

# Longer than a provider is given to answer.
_LEASE: Final = timedelta(seconds=60)
_TURNS: Final = 40
_TURN_S: Final = 0.25
_UNDER_WAY: Final = (CheckoutState.PENDING, CheckoutState.APPROVED, CheckoutState.PROCESSING)


@dataclass(frozen=True, slots=True, kw_only=True)
class PayInput:
    """What is to be paid, which must be what the order costs, and where the customer returns to (None: the usual)."""

    amount: Decimal
    currency: str
    success_url: str | None
    cancel_url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """What is to be done next: send the customer to `url`, ask the provider, or, with neither, wait."""

    url: str | None = None
    provider: PaymentProvider | None = None
    request: InvoiceRequest | None = None


class Paying:
    """Opens invoices at merchants' own providers.

    Args:
        default_percent: our commission, where the merchant's plan names none.
        return_url: where customers return to when neither the payment nor the account names a place.
    """

    def __init__(
        self,
        units: UnitOfWorkFactory,
        *,
        accounts: Accounts,
        vault: Vault,
        default_percent: Decimal,
        return_url: str,
    ) -> None:
        self._units = units
        self._accounts = accounts
        self._vault = vault
        self._default_percent = default_percent
        self._return_url = return_url

    def require_allowed(self, actor: Principal) -> UUID:
        """Return the tenant whose orders the caller may have paid; raises RoleRequired."""
        tenant_id = require_tenant(actor)
        require_permission(actor.role, Permission.ORDERS_MANAGE)
        return tenant_id

    async def pay(self, actor: Principal, order_id: UUID, wanted: PayInput, *, trace: RequestTrace) -> UrlView:
        """Return where an order is paid; for owners and admins.

        Raises:
            OrderNotFound, OrderPaidAlready, OrderAmountDiffers: the order is not to be paid, or not this amount.
            TenantDeleted: the merchant's tenant is to be deleted.
            NoAccount, KeysUnreadable: there is no provider to pay it at, or its keys cannot be read now.
            InvoiceBeingOpened: somebody else has been asking for it for too long.
            ProviderRejected, ProviderUnavailable: the provider did not open an invoice.
        """
        tenant_id = self.require_allowed(actor)
        for _ in range(_TURNS):
            async with self._units(TenantScope(tenant_id), trace=trace) as uow:
                step = await self._next(uow, actor, order_id, wanted)
            if step.url is not None:
                return UrlView(url=step.url)
            if step.provider is not None and step.request is not None:
                return await self._open(tenant_id, order_id, step.provider, step.request)
            await asyncio.sleep(_TURN_S)
        raise InvoiceBeingOpened(retry_after_s=10)

    async def _next(self, uow: UnitOfWork, actor: Principal, order_id: UUID, wanted: PayInput) -> _Step:
        book = await held_book(uow, order_id)
        order = book.order
        if order.paid:
            raise OrderPaidAlready
        if (wanted.amount, wanted.currency) != (order.amount, order.currency):
            raise OrderAmountDiffers
        await require_not_ending(uow, order.tenant_id)
        integration = await current_integration(uow)
        if integration is None:
            raise NoAccount
        invoice = _open_invoice(book, integration, uow)
        if invoice is not None and invoice.url is not None:
            return _Step(url=invoice.url)
        if invoice is not None and invoice.opening_until is not None and invoice.opening_until > uow.now:
            return _Step()
        if invoice is None:
            invoice = await self._begin(uow, actor, order, integration)
        invoice.opening_until = uow.now + _LEASE
        provider = self._accounts.open(integration.provider, self._vault.open(integration))
        return _Step(provider=provider, request=self._request(order, invoice, integration, wanted))

    async def _begin(
        self, uow: UnitOfWork, actor: Principal, order: Order, integration: PaymentIntegration
    ) -> OrderInvoice:
        invoice = OrderInvoice(
            id=uuid4(),
            tenant_id=order.tenant_id,
            order_id=order.id,
            integration_id=integration.id,
            provider=integration.provider,
            amount=order.amount,
            currency=order.currency,
            commission_percent=await self._percent(uow, order.tenant_id),
            state=CheckoutState.PENDING,
            created_at=uow.now,
        )
        uow.session.add(invoice)
        uow.audit(
            "order.payment_begun",
            actor_id=actor.user_id,
            tenant_id=order.tenant_id,
            subject=("order", order.id),
            details={"invoice": str(invoice.id), "provider": integration.provider},
        )
        return invoice

    async def _percent(self, uow: UnitOfWork, tenant_id: UUID) -> Decimal:
        own: Decimal | None = await uow.session.scalar(
            select(Plan.commission_percent)
            .join(Subscription, Subscription.plan_id == Plan.id)
            .where(Subscription.tenant_id == tenant_id)
        )
        return self._default_percent if own is None else own

    def _request(
        self, order: Order, invoice: OrderInvoice, integration: PaymentIntegration, wanted: PayInput
    ) -> InvoiceRequest:
        back = integration.return_url or self._return_url
        return InvoiceRequest(
            invoice_id=invoice.id,
            begun_at=invoice.created_at,
            tenant_id=order.tenant_id,
            description=f"Order {order.external_reference or order.id}",
            amount=invoice.amount,
            currency=invoice.currency,
            customer_email=None,
            success_url=wanted.success_url or back,
            cancel_url=wanted.cancel_url or wanted.success_url or back,
        )

    async def _open(
        self, tenant_id: UUID, order_id: UUID, provider: PaymentProvider, request: InvoiceRequest
    ) -> UrlView:
        try:
            created = await provider.create_invoice(request)
        except (ProviderRejected, ProviderUnavailable) as refusal:
            async with self._units(TenantScope(tenant_id)) as uow:
                invoice = _begun(await held_book(uow, order_id), request.invoice_id)
                invoice.opening_until = None
                if isinstance(refusal, ProviderRejected):
                    invoice.tell(CheckoutState.CANCELLED, at=None)
            raise
        async with self._units(TenantScope(tenant_id)) as uow:
            await _record(uow, await held_book(uow, order_id), request.invoice_id, created)
        return UrlView(url=created.url)


async def _record(uow: UnitOfWork, book: Book, invoice_id: UUID, created: CheckoutCreated) -> None:
    invoice = _begun(book, invoice_id)
    invoice.opening_until = None
    if invoice.session_id not in (None, created.session_id):
        # An event of another invoice that the provider has made for the same request was faster.
        known = next((row for row in book.invoices if row.session_id == created.session_id), None)
        invoice = known or add_twin(
            uow, book, invoice, session_id=created.session_id, integration_id=invoice.integration_id
        )
    invoice.session_id, invoice.url, invoice.expires_at = created.session_id, created.url, created.expires_at
    invoice.look_at = look_after(invoice, now=uow.now)


def _begun(book: Book, invoice_id: UUID) -> OrderInvoice:
    return next(row for row in book.invoices if row.id == invoice_id)


def _open_invoice(book: Book, integration: PaymentIntegration, uow: UnitOfWork) -> OrderInvoice | None:
    """Return the invoice at which the order can be paid, or is being paid."""
    for row in reversed(book.invoices):
        if row.integration_id != integration.id or row.created_at < integration.account_since:
            continue
        if row.twin_of is not None and row.url is None:
            # The provider knows it by no id of ours, so asking for it would make another one.
            continue
        is_over = row.expires_at is not None and row.expires_at <= uow.now
        if row.state is CheckoutState.PROCESSING or (row.state in _UNDER_WAY and not is_over):
            return row
    return None
