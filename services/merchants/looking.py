"""Looking at invoices without being told: events of a merchant's provider may be lost for good (providers.md 2.5).

A refund of which nobody knows what became of it is asked for once more then: whoever asked for it may have died.
"""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import select, update

from models.inbox import EventSource
from models.merchants import PaymentIntegration
from models.orders import OrderInvoice, OrderRefund, RefundState
from models.payment_progress import CheckoutState
from providers.payments import ProviderRejected, ProviderUnavailable, Reading, facts_of_fetched, settle_payment
from services.billing.changes import audit_reconciled, watching
from services.billing.errors import FactRefused, NotThereYet
from services.billing.inbox import Told
from services.merchants.errors import KeysUnreadable
from services.merchants.inbound import MerchantInbox
from services.merchants.look_times import look_after
from services.merchants.refunds import Refunds
from services.unit_of_work import PlatformScope, TenantScope, UnitOfWork, UnitOfWorkFactory

TASK: Final = "merchants.look"

_MARGIN: Final = timedelta(minutes=30)
_UNPAID: Final = (CheckoutState.PENDING, CheckoutState.APPROVED, CheckoutState.PROCESSING)
_AGAIN: Final = timedelta(minutes=10)
_LIMIT: Final = 200
_SCOPE: Final = PlatformScope("the invoices of every merchant are looked at")


class Looking:
    """Asks merchants' providers how their invoices stand. Doing it twice, or in two processes, changes nothing."""

    def __init__(self, units: UnitOfWorkFactory, *, inbox: MerchantInbox, refunds: Refunds) -> None:
        self._units = units
        self._inbox = inbox
        self._refunds = refunds

    async def sweep(self) -> None:
        """Ring for the invoices that it is time to look at."""
        async with self._units(_SCOPE) as uow:
            due = (
                select(OrderInvoice.id)
                .where(OrderInvoice.look_at <= uow.now)
                .order_by(OrderInvoice.look_at)
                .limit(_LIMIT)
                .with_for_update(skip_locked=True)
            )
            # Moved on at once, so that a queue without workers does not fill with the same rings.
            claimed = await uow.session.scalars(
                update(OrderInvoice)
                .where(OrderInvoice.id.in_(due.scalar_subquery()))
                .values(look_at=uow.now + _AGAIN)
                .returning(OrderInvoice.id)
            )
            for row_id in claimed:
                uow.ring(TASK, row_id)

    async def look(self, invoice_id: UUID) -> None:
        """Ask for one invoice and take in how it stands, and drive its refund on if nobody else does."""
        async with self._units(_SCOPE) as uow:
            invoice = await uow.session.get(OrderInvoice, invoice_id)
            integration = (
                None
                if invoice is None or invoice.integration_id is None
                else await uow.session.get(PaymentIntegration, invoice.integration_id)
            )
        if invoice is None:
            return
        if integration is None or invoice.session_id is None:
            await self._done(invoice)
            return
        try:
            await self._refunds.ask_again(invoice)
            await self._ask(integration, invoice, invoice.session_id)
        except (ProviderUnavailable, ProviderRejected, KeysUnreadable):
            # The merchant's affair, and asked for again in its time.
            pass
        except (FactRefused, NotThereYet):
            # An event of it meets the same, of which people are told.
            pass
        finally:
            # What always fails would otherwise be asked for every few minutes and for ever.
            await self._done(invoice)

    async def _ask(self, integration: PaymentIntegration, invoice: OrderInvoice, session_id: str) -> None:
        provider = self._inbox.opened(integration)
        state = await settle_payment(provider, session_id)
        told = Told(
            tenant_id=integration.tenant_id,
            integration_id=integration.id,
            provider=integration.provider,
            reading=Reading(facts=() if state is None else facts_of_fetched(provider, state), payment=state),
        )
        async with self._units(TenantScope(integration.tenant_id)) as uow:
            with watching(uow) as changes:
                await self._inbox.apply(uow, told)
                await uow.session.flush()
            subject = ("order_invoice", invoice.id)
            audit_reconciled(uow, changes, subject, provider=integration.provider, source=EventSource.POLL)

    async def _done(self, invoice: OrderInvoice) -> None:
        async with self._units(TenantScope(invoice.tenant_id)) as uow:
            row = await uow.session.get(OrderInvoice, invoice.id, with_for_update={"key_share": True})
            if row is not None:
                if not _is_page_open(row, now=uow.now):
                    row.looks += 1
                asked = await _unanswered(uow, row)
                row.look_at = None if row.session_id is None else look_after(row, unanswered=asked, now=uow.now)


async def _unanswered(uow: UnitOfWork, invoice: OrderInvoice) -> OrderRefund | None:
    refund: OrderRefund | None = await uow.session.scalar(
        select(OrderRefund).where(OrderRefund.invoice_id == invoice.id, OrderRefund.state == RefundState.ASKED)
    )
    return refund


def _is_page_open(invoice: OrderInvoice, *, now: datetime) -> bool:
    if invoice.state not in _UNPAID or invoice.expires_at is None:
        return False
    return now < invoice.expires_at + _MARGIN
