"""The papers that we issue ourselves, as lists and files, and whom they name (docs/billing.md)."""

from typing import Annotated
from uuid import UUID

from aiohttp import web
from pydantic import AfterValidator, BaseModel, BeforeValidator, EmailStr, Field, StringConstraints

from core.csv import CONTENT_TYPE as CSV
from handlers.audit import Moment
from handlers.downloads import send_file
from handlers.envelope import Envelope, ListEnvelope
from handlers.forms import refuse_controls
from handlers.rest import Access, Call, PageQuery, Router, WireModel
from models.documents import DocumentKind
from services.documents import DetailsInput, DocumentFilter
from services.documents.details import LanguageUnknown
from services.documents.errors import DocumentNotFound
from services.documents.views import BillingDetailsView, DocumentView
from services.identity import RoleRequired, SuperuserRequired
from services.unit_of_work import PlatformScope

router = Router(tag="billing", prefix="/api/v1", counted=False)

_ADDRESS_LINES = 8
_SCOPE = PlatformScope("the platform's people look across tenants")


def _none_if_blank(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _on_one_line(value: str) -> str:
    return " ".join(value.split())


def _fits_an_envelope(value: str) -> str:
    lines = [refuse_controls(_on_one_line(line)) for line in value.splitlines()]
    if len(lines) > _ADDRESS_LINES:
        raise ValueError(f"an address has at most {_ADDRESS_LINES} lines")
    return "\n".join(lines)


_Line = Annotated[str, AfterValidator(_on_one_line), AfterValidator(refuse_controls)]
Name = Annotated[Annotated[_Line, Field(max_length=255)] | None, BeforeValidator(_none_if_blank)]
TaxId = Annotated[Annotated[_Line, Field(max_length=50)] | None, BeforeValidator(_none_if_blank)]
Address = Annotated[
    Annotated[str, Field(max_length=500), AfterValidator(_fits_an_envelope)] | None, BeforeValidator(_none_if_blank)
]
Country = Annotated[
    Annotated[str, StringConstraints(to_upper=True, pattern="^[A-Za-z]{2}$")] | None, BeforeValidator(_none_if_blank)
]
Email = Annotated[Annotated[EmailStr, Field(max_length=255)] | None, BeforeValidator(_none_if_blank)]
Language = Annotated[
    Annotated[str, StringConstraints(to_lower=True, max_length=8)] | None, BeforeValidator(_none_if_blank)
]


class DetailsBody(WireModel):
    """Whom the papers shall name from now on; what is not given is taken from the tenant and its owner."""

    name: Name = None
    address: Address = None
    tax_id: TaxId = None
    country: Country = None
    email: Email = None
    language: Language = None

    def given(self) -> DetailsInput:
        return DetailsInput(
            name=self.name,
            address=self.address,
            tax_id=self.tax_id,
            country=self.country,
            email=self.email,
            locale=self.language,
        )


class DocumentsWanted(BaseModel):
    """Which papers; `until` is exclusive, `number` a whole one."""

    kind: DocumentKind | None = None
    number: Annotated[str | None, Field(max_length=40)] = None
    payment_id: UUID | None = None
    since: Moment | None = None
    until: Moment | None = None

    def wanted(self) -> DocumentFilter:
        return DocumentFilter(
            kind=self.kind,
            number=self.number,
            payment_id=self.payment_id,
            since=self.since,
            until=self.until,
        )


class DocumentsQuery(DocumentsWanted, PageQuery):
    """Which papers, and which page of them."""


class AllDocumentsWanted(DocumentsWanted):
    """The same, of one tenant or of all, those that are gone too."""

    tenant_id: UUID | None = None


class AllDocumentsQuery(AllDocumentsWanted, PageQuery):
    """The same, and which page of them."""


@router.get("/billing/details", answer=Envelope[BillingDetailsView], errors=(RoleRequired,))
async def show_details(call: Call) -> web.Response:
    """Show whom invoices name, where they go and in which language; for owners and admins."""
    async with call.tenant_uow() as uow:
        view = await call.context.services.documents.details(uow, call.actor)
    return call.ok(view)


@router.put("/billing/details", answer=Envelope[BillingDetailsView], errors=(RoleRequired, LanguageUnknown))
async def change_details(call: Call, body: DetailsBody) -> web.Response:
    """Say whom invoices shall name from now on; for owners and admins."""
    async with call.tenant_uow() as uow:
        view = await call.context.services.documents.change_details(uow, call.actor, body.given())
    return call.ok(view)


@router.get("/billing/documents", answer=ListEnvelope[DocumentView], errors=(RoleRequired,))
async def list_documents(call: Call, query: DocumentsQuery) -> web.Response:
    """Show the tenant's invoices and credit notes, newest first; for owners and admins."""
    async with call.tenant_uow() as uow:
        page = await call.context.services.documents.list(uow, call.actor, query.wanted(), query.request())
    return call.page(page)


@router.get("/billing/documents.csv", answer=str, content_type="text/csv", errors=(RoleRequired,))
async def download_documents(call: Call, query: DocumentsWanted) -> web.StreamResponse:
    """Download them as CSV, in the order of their numbers; for owners and admins."""
    pieces = call.context.services.documents.csv(call.actor, query.wanted(), trace=call.trace)
    return await send_file(call, pieces, name="documents.csv", content_type=CSV)


@router.get("/billing/documents/{document_id}", answer=Envelope[DocumentView], errors=(RoleRequired, DocumentNotFound))
async def show_document(call: Call, document_id: UUID) -> web.Response:
    """Show one of them; for owners and admins."""
    async with call.tenant_uow() as uow:
        view = await call.context.services.documents.show(uow, call.actor, document_id=document_id)
    return call.ok(view)


@router.get(
    "/billing/documents/{document_id}/pdf",
    answer=bytes,
    content_type="application/pdf",
    errors=(RoleRequired, DocumentNotFound),
)
async def download_document(call: Call, document_id: UUID) -> web.Response:
    """Download one of them as a PDF file; for owners and admins."""
    async with call.tenant_uow() as uow:
        view = await call.context.services.documents.show(uow, call.actor, document_id=document_id)
    return await pdf_of(call, view)


@router.get("/billing/invoices.csv", answer=str, content_type="text/csv", errors=(RoleRequired,))
async def download_invoices(call: Call) -> web.StreamResponse:
    """Download the tenant's payments, refunds and disputes as CSV, oldest first; for owners and admins."""
    pieces = call.context.services.billing.invoices_csv(call.actor, trace=call.trace)
    return await send_file(call, pieces, name="invoices.csv", content_type=CSV)


@router.get(
    "/super-admin/documents", answer=ListEnvelope[DocumentView], access=Access.USER, errors=(SuperuserRequired,)
)
async def list_all_documents(call: Call, query: AllDocumentsQuery) -> web.Response:
    """Show the papers of every tenant or of one, newest first; for superusers."""
    async with call.uow(_SCOPE) as uow:
        page = await call.context.services.documents.list_all(
            uow, call.actor, query.wanted(), query.request(), tenant_id=query.tenant_id
        )
    return call.page(page)


@router.get(
    "/super-admin/documents.csv",
    answer=str,
    content_type="text/csv",
    access=Access.USER,
    errors=(SuperuserRequired,),
)
async def download_all_documents(call: Call, query: AllDocumentsWanted) -> web.StreamResponse:
    """Download the papers of every tenant or of one as CSV; for superusers."""
    pieces = call.context.services.documents.csv_of_all(
        call.actor, query.wanted(), tenant_id=query.tenant_id, trace=call.trace
    )
    return await send_file(call, pieces, name="documents.csv", content_type=CSV)


async def pdf_of(call: Call, view: DocumentView) -> web.Response:
    """Answer a paper as a file that browsers show."""
    return web.Response(
        body=await call.context.services.documents.pdf(view),
        content_type="application/pdf",
        headers={
            "Content-Disposition": f'inline; filename="{view.number}.pdf"',
            "Cache-Control": "private, no-store",
            "X-Content-Type-Options": "nosniff",
        },
    )
