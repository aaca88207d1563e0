"""Giving a customer's money back at the merchant's own provider, by which our commission on it goes back too."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID, uuid4

from core.errors import InvalidInput
from core.money import is_payable
from models.merchants import PaymentIntegration
from models.orders import OrderInvoice, OrderRefund, RefundState
from providers.payments import (
    PaymentProvider,
    ProviderRejected,
    ProviderUnavailable,
    RefundCreated,
    RefundRequest,
    RefundStatus,
)
from providers.payments.accounts import Accounts
from services.identity import Principal, require_oneself, require_permission, require_tenant
from services.merchants.errors import IntegrationNotFound, NothingToRefund, OrderNotFound, RefundUnderWay
from services.merchants.look_times import look_after
from services.merchants.lookup import held_book
from services.merchants.reckoning import Book
from services.merchants.settlement import Settlement
from services.merchants.vault import Vault
from services.merchants.views import OrderView
from services.permissions import Permission
from services.unit_of_work import RequestTrace, TenantScope, UnitOfWork, UnitOfWorkFactory

# Longer than a provider is given to answer.
_LEASE: Final = timedelta(seconds=60)
_STATES: Final = {
    RefundStatus.PENDING: RefundState.PENDING,
    RefundStatus.SUCCEEDED: RefundState.MADE,
    RefundStatus.FAILED: RefundState.FAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundInput:
    """How much to give back (None: all that is left) and of which invoice (None: the one that has paid the order)."""

    amount: Decimal | None
    invoice_id: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    tenant_id: UUID
    order_id: UUID
    provider: PaymentProvider
    request: RefundRequest


class Refunds:
    """Refunds of orders. The intent is recorded, the provider is asked, its answer is recorded.

    A refund whose outcome is unknown, because the provider did not answer or the process that asked has died, is asked
    for once more with the same id, by the next attempt or by the sweep, before any other can be made.
    """

    def __init__(self, units: UnitOfWorkFactory, *, accounts: Accounts, vault: Vault, settlement: Settlement) -> None:
        self._units = units
        self._accounts = accounts
        self._vault = vault
        self._settlement = settlement

    def require_allowed(self, actor: Principal) -> UUID:
        """Return the tenant whose money the caller may give back; raises RoleRequired and Impersonated."""
        tenant_id = require_tenant(actor)
        require_permission(actor.role, Permission.ORDERS_REFUND)
        require_oneself(actor)
        return tenant_id

    async def refund(self, actor: Principal, order_id: UUID, wanted: RefundInput, *, trace: RequestTrace) -> OrderView:
        """Give money back; for owners. Returns the order as it stands then.

        Raises:
            OrderNotFound, IntegrationNotFound: there is no such order, or the account that took the money is gone.
            NothingToRefund, InvalidInput: the amount cannot be given back.
            RefundUnderWay: somebody is asking for one, or what became of one of another amount is not known.
            ProviderRejected, ProviderUnavailable: the provider did not give it back, or cannot (Coinbase Commerce).
        """
        tenant_id = self.require_allowed(actor)
        async with self._units(TenantScope(tenant_id), trace=trace) as uow:
            asked = await self._ask(uow, actor, order_id, wanted)
        return await self._carry_out(asked)

    async def ask_again(self, invoice: OrderInvoice) -> None:
        """Ask once more for a refund of an invoice of which nobody knows what became of it, unless somebody is asking.

        What the provider refuses has failed. A refund whose account is gone waits until the account is back.

        Raises:
            ProviderUnavailable, KeysUnreadable: the provider does not answer, or cannot be asked, now.
        """
        with suppress(ProviderRejected, IntegrationNotFound, OrderNotFound):
            async with self._units(TenantScope(invoice.tenant_id)) as uow:
                book = await held_book(uow, invoice.order_id)
                refund = _asked_of(book, invoice.id)
                if refund is None or _is_being_asked(refund, now=uow.now):
                    return
                asked = await self._take_on(uow, book, _of_invoice(book, invoice.id), refund)
            await self._carry_out(asked)

    async def _carry_out(self, asked: _Asked) -> OrderView:
        tenant_id, order_id, refund_id = asked.tenant_id, asked.order_id, asked.request.refund_id
        try:
            made = await asked.provider.refund(asked.request)
        except ProviderRejected:
            await self._record(tenant_id, order_id, refund_id, None)
            raise
        except ProviderUnavailable:
            async with self._units(TenantScope(tenant_id)) as uow:
                _refund_of(await held_book(uow, order_id), refund_id).asking_until = None
            raise
        return await self._record(tenant_id, order_id, refund_id, made)

    async def _ask(self, uow: UnitOfWork, actor: Principal, order_id: UUID, wanted: RefundInput) -> _Asked:
        book = await held_book(uow, order_id)
        invoice = _of_invoice(book, wanted.invoice_id)
        refund = _unanswered(uow, book, invoice, wanted) or _begin(uow, actor, book, invoice, wanted)
        return await self._take_on(uow, book, invoice, refund)

    async def _take_on(self, uow: UnitOfWork, book: Book, invoice: OrderInvoice, refund: OrderRefund) -> _Asked:
        """Take the lease of a refund, after which the sweep asks for it, and return what to ask of whom."""
        integration = await uow.session.get(PaymentIntegration, invoice.integration_id or UUID(int=0))
        if integration is None:
            raise IntegrationNotFound
        refund.asking_until = invoice.look_at = uow.now + _LEASE
        provider = self._accounts.open(integration.provider, self._vault.open(integration))
        request = RefundRequest(
            refund_id=refund.id,
            session_id=invoice.session_id or "",
            payment_ref=invoice.session_id,
            amount=refund.amount,
            currency=refund.currency,
            refunded_before=book.given_back(invoice),
        )
        return _Asked(tenant_id=invoice.tenant_id, order_id=invoice.order_id, provider=provider, request=request)

    async def _record(self, tenant_id: UUID, order_id: UUID, refund_id: UUID, made: RefundCreated | None) -> OrderView:
        async with self._units(TenantScope(tenant_id)) as uow:
            book = await held_book(uow, order_id)
            before = OrderView.of(book)
            refund = _refund_of(book, refund_id)
            refund.asking_until = None
            if made is None:
                refund.state = RefundState.FAILED
            else:
                refund.state = _STATES[made.status]
                refund.refund_ref, refund.claim_url = made.refund_ref, made.claim_url
                # How it ends may be told before this, or never.
                _look_anew(book, refund, uow.now)
            await self._settlement.settle(uow, book, before=before, at=uow.now)
            return OrderView.of(book)


def _of_invoice(book: Book, invoice_id: UUID | None) -> OrderInvoice:
    chosen = book.paying if invoice_id is None else next((row for row in book.invoices if row.id == invoice_id), None)
    if chosen is None or chosen.session_id is None:
        raise NothingToRefund
    return chosen


def _look_anew(book: Book, refund: OrderRefund, now: datetime) -> None:
    invoice = next(row for row in book.invoices if row.id == refund.invoice_id)
    if refund.state is RefundState.PENDING:
        invoice.looks = 0
        invoice.look_at = look_after(invoice, now=now)


def _refund_of(book: Book, refund_id: UUID) -> OrderRefund:
    return next(row for row in book.refunds if row.id == refund_id)


def _unanswered(uow: UnitOfWork, book: Book, invoice: OrderInvoice, wanted: RefundInput) -> OrderRefund | None:
    asked = _asked_of(book, invoice.id)
    if asked is None:
        return None
    if _is_being_asked(asked, now=uow.now) or wanted.amount not in (None, asked.amount):
        raise RefundUnderWay
    return asked


def _asked_of(book: Book, invoice_id: UUID) -> OrderRefund | None:
    asked = (row for row in book.refunds if row.invoice_id == invoice_id and row.state is RefundState.ASKED)
    return next(asked, None)


def _is_being_asked(refund: OrderRefund, *, now: datetime) -> bool:
    return refund.asking_until is not None and refund.asking_until > now


def _begin(uow: UnitOfWork, actor: Principal, book: Book, invoice: OrderInvoice, wanted: RefundInput) -> OrderRefund:
    left = book.refundable(invoice)
    amount = left if wanted.amount is None else wanted.amount
    if left <= 0 or amount > left:
        raise NothingToRefund
    if not is_payable(amount, invoice.currency):
        problem = {"field": "body -> amount", "message": f"is no amount of {invoice.currency}", "type": "value_error"}
        raise InvalidInput(details={"errors": [problem]})
    refund = OrderRefund(
        id=uuid4(),
        tenant_id=invoice.tenant_id,
        order_id=invoice.order_id,
        invoice_id=invoice.id,
        amount=amount,
        currency=invoice.currency,
        state=RefundState.ASKED,
        created_by=actor.user_id,
        created_at=uow.now,
    )
    uow.session.add(refund)
    uow.audit(
        "order.refund_asked",
        actor_id=actor.user_id,
        tenant_id=invoice.tenant_id,
        subject=("order", invoice.order_id),
        details={"amount": str(amount), "currency": invoice.currency},
    )
    return refund
