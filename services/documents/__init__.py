"""The papers that we issue ourselves: invoices and what corrects them, their pages, files and lists (docs/adr/0020)."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from uuid import UUID

from core.pagination import Page, PageRequest
from services.documents.details import DetailsInput, change_details, show_details
from services.documents.export import DocumentExport
from services.documents.issuing import Issuing, Sale
from services.documents.links import DocumentLinks
from services.documents.parties import Issuer
from services.documents.pdf import render_pdf
from services.documents.reading import DocumentFilter, Reading, all_papers, own_papers
from services.documents.sheet import sheet_of
from services.documents.views import BillingDetailsView, DocumentView, PaperRef
from services.identity import Principal, require_tenant
from services.mail import MailService
from services.notifications import NotificationService
from services.unit_of_work import PlatformScope, RequestTrace, TenantScope, UnitOfWork, UnitOfWorkFactory

__all__ = ["DetailsInput", "DocumentFilter", "DocumentLinks", "DocumentService", "Issuer", "Sale"]

_EVERYBODYS = PlatformScope("the platform's people look across tenants")


class DocumentService:
    """All use cases of our papers in one place; each is told in the module that carries it out."""

    def __init__(
        self,
        *,
        units: UnitOfWorkFactory,
        issuer: Issuer,
        links: DocumentLinks,
        mail: MailService,
        notifications: NotificationService,
    ) -> None:
        self._issuing = Issuing(issuer=issuer, links=links, mail=mail, notifications=notifications)
        self._reading = Reading(links)
        self._export = DocumentExport(units, links)

    def settle(self, uow: UnitOfWork, payment_id: UUID, *, sale: Sale | None = None) -> None:
        """Issue what is missing of a payment's papers, when the use case is over; see `Issuing.settle`."""
        self._issuing.settle(uow, payment_id, sale=sale)

    async def list(
        self, uow: UnitOfWork, actor: Principal, wanted: DocumentFilter, page: PageRequest
    ) -> Page[DocumentView]:
        """Show the tenant's papers, newest first; for owners and admins."""
        return await self._reading.list(uow, actor, wanted, page)

    async def list_all(
        self, uow: UnitOfWork, actor: Principal, wanted: DocumentFilter, page: PageRequest, *, tenant_id: UUID | None
    ) -> Page[DocumentView]:
        """Show the papers of every tenant or of one; for superusers. Needs a PlatformScope."""
        return await self._reading.list_all(uow, actor, wanted, page, tenant_id=tenant_id)

    async def show(self, uow: UnitOfWork, actor: Principal, *, document_id: UUID) -> DocumentView:
        """Show one of the tenant's papers; for owners and admins. Raises DocumentNotFound."""
        return await self._reading.show(uow, actor, document_id=document_id)

    async def hosted(self, uow: UnitOfWork, token: str) -> DocumentView:
        """Show the paper that a link leads to; see `Reading.hosted`. Needs a PlatformScope."""
        return await self._reading.hosted(uow, token)

    async def of_movements(self, uow: UnitOfWork, movement_ids: Iterable[UUID]) -> dict[UUID, PaperRef]:
        """Return which paper was issued for each movement of money that has one."""
        return await self._reading.of_movements(uow, movement_ids)

    async def pdf(self, view: DocumentView) -> bytes:
        """Draw a paper that the caller was shown; not to be called inside a unit of work."""
        return await asyncio.to_thread(render_pdf, sheet_of(view))

    def csv(self, actor: Principal, wanted: DocumentFilter, *, trace: RequestTrace) -> AsyncIterator[bytes]:
        """Return the tenant's papers as CSV in pieces; for owners and admins. Opens units of work of its own."""
        conditions = [*own_papers(actor), *wanted.conditions()]
        return self._export.write(TenantScope(require_tenant(actor)), conditions, trace=trace)

    def csv_of_all(
        self, actor: Principal, wanted: DocumentFilter, *, tenant_id: UUID | None, trace: RequestTrace
    ) -> AsyncIterator[bytes]:
        """Return the papers of every tenant or of one as CSV; for superusers. Opens units of work of its own."""
        conditions = [*all_papers(actor, tenant_id), *wanted.conditions()]
        return self._export.write(_EVERYBODYS, conditions, trace=trace)

    async def details(self, uow: UnitOfWork, actor: Principal) -> BillingDetailsView:
        """Show whom the tenant's papers name; for owners and admins."""
        return await show_details(uow, actor)

    async def change_details(self, uow: UnitOfWork, actor: Principal, given: DetailsInput) -> BillingDetailsView:
        """Replace whom the tenant's papers name; see `change_details`."""
        return await change_details(uow, actor, given)
