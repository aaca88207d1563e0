"""Looking at invoices without being told: events of a merchant's provider may be lost for good (providers.md 2.5)."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import select, update

from models.inbox import EventSource
from models.merchants import PaymentIntegration
from models.orders import OrderInvoice
from models.payment_progress import CheckoutState
from providers.payments import ProviderRejected, ProviderUnavailable, Reading, facts_of_fetched, settle_payment
from services.billing.changes import audit_reconciled, watching
from services.billing.errors import FactRefused, NotThereYet
from services.billing.inbox import Told
from services.merchants.errors import KeysUnreadable
from services.merchants.inbound import MerchantInbox
from services.unit_of_work import PlatformScope, TenantScope, UnitOfWorkFactory

TASK: Final = "merchants.look"

# How long after the one before each look comes: soon while the customer may be paying, which takes a while to be
# confirmed, then in an hour, then daily for a month.
_SOON: Final = timedelta(minutes=5)
_MARGIN: Final = timedelta(minutes=30)
_UNPAID: Final = (CheckoutState.PENDING, CheckoutState.APPROVED, CheckoutState.PROCESSING)
_HOURLY: Final = timedelta(hours=1)
_DAILY: Final = timedelta(days=1)
_LOOKS: Final = 32
_AGAIN: Final = timedelta(minutes=10)
_LIMIT: Final = 200
_SCOPE: Final = PlatformScope("the invoices of every merchant are looked at")


class Looking:
    """Asks merchants' providers how their invoices stand. Doing it twice, or in two processes, changes nothing."""

    def __init__(self, units: UnitOfWorkFactory, inbox: MerchantInbox) -> None:
        self._units = units
        self._inbox = inbox

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
        """Ask for one invoice and take in how it stands."""
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
                row.look_at = None if row.session_id is None else look_after(row, now=uow.now)


def look_after(invoice: OrderInvoice, *, now: datetime) -> datetime | None:
    """Tell when an invoice is to be looked at next; None when it has been looked at often enough."""
    looks = invoice.looks or 0
    if looks >= _LOOKS:
        return None
    if looks == 0:
        return now + _SOON
    return now + (_HOURLY if looks == 1 else _DAILY)


def _is_page_open(invoice: OrderInvoice, *, now: datetime) -> bool:
    if invoice.state not in _UNPAID or invoice.expires_at is None:
        return False
    return now < invoice.expires_at + _MARGIN
