"""Movements of money as CSV, written while they are read, page by page."""

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from sqlalchemy import select, tuple_

from core.csv import BOM, encode_rows
from models.billing import PaymentEvent
from services.billing.views import InvoiceView
from services.documents import DocumentService
from services.identity import Principal, require_permission, require_tenant
from services.permissions import Permission
from services.unit_of_work import RequestTrace, TenantScope, UnitOfWorkFactory

_PAGE = 500
_HEAD = (
    *("created_at", "event_type", "status", "amount", "currency", "provider", "provider_payment_id"),
    *("provider_event_id", "payment_id", "document_number", "invoice_url"),
)


class PaymentExport:
    """Writes what GET /billing/invoices lists, oldest first."""

    def __init__(self, units: UnitOfWorkFactory, documents: DocumentService) -> None:
        self._units = units
        self._documents = documents

    def write(self, actor: Principal, *, trace: RequestTrace) -> AsyncIterator[bytes]:
        """Return a CSV file in pieces; for owners and admins. Raises RoleRequired before anything is returned."""
        tenant_id = require_tenant(actor)
        require_permission(actor.role, Permission.INVOICES_READ)
        return self._pieces(tenant_id, trace)

    async def _pieces(self, tenant_id: UUID, trace: RequestTrace) -> AsyncIterator[bytes]:
        yield BOM.encode() + encode_rows([_HEAD])
        key = (PaymentEvent.created_at, PaymentEvent.id)
        page = (
            select(PaymentEvent)
            .where(PaymentEvent.tenant_id == tenant_id, PaymentEvent.amount != 0)
            .order_by(*key)
            .limit(_PAGE)
        )
        payments: Sequence[PaymentEvent] = ()
        while True:
            last = payments[-1] if payments else None
            after = [] if last is None else [tuple_(*key) > (last.created_at, last.id)]
            async with self._units(TenantScope(tenant_id), trace=trace) as uow:
                payments = (await uow.session.scalars(page.where(*after))).all()
                papers = await self._documents.of_movements(uow, [payment.id for payment in payments])
            if payments:
                yield encode_rows(
                    _row(InvoiceView.of(payment).with_paper(papers.get(payment.id))) for payment in payments
                )
            if len(payments) < _PAGE:
                return


def _row(view: InvoiceView) -> Sequence[object]:
    return (
        *(view.created_at, view.event_type, view.status, view.amount, view.currency, view.provider),
        *(view.provider_payment_id, view.provider_event_id, view.id, view.document_number, view.invoice_url),
    )
