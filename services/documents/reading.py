"""Reading papers: a tenant's own by its owner and admins, all by the platform's people, one by whoever has its link."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, func, select

from core.pagination import Page, PageRequest
from models.documents import Document, DocumentKind
from services.documents.errors import DocumentNotFound
from services.documents.links import DocumentLinks
from services.documents.views import DocumentView, Family, PaperRef
from services.identity import Principal, require_permission, require_superuser, require_tenant
from services.permissions import Permission
from services.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentFilter:
    """Which papers are wanted; `until` is exclusive, `number` a whole one."""

    kind: DocumentKind | None = None
    number: str | None = None
    payment_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return what the rows must meet."""
        found: list[ColumnElement[bool]] = []
        if self.kind is not None:
            found.append(Document.kind == self.kind)
        if self.number is not None:
            found.append(Document.number == self.number)
        if self.payment_id is not None:
            found.append(Document.payment_id == self.payment_id)
        if self.since is not None:
            found.append(Document.issued_at >= self.since)
        if self.until is not None:
            found.append(Document.issued_at < self.until)
        return found


class Reading:
    """The use cases of those who look; `links` makes the addresses of the pages."""

    def __init__(self, links: DocumentLinks) -> None:
        self._links = links

    async def list(
        self, uow: UnitOfWork, actor: Principal, wanted: DocumentFilter, page: PageRequest
    ) -> Page[DocumentView]:
        """Show the tenant's papers, newest first; for owners and admins."""
        return await self._page(uow, [*own_papers(actor), *wanted.conditions()], page)

    async def list_all(
        self,
        uow: UnitOfWork,
        actor: Principal,
        wanted: DocumentFilter,
        page: PageRequest,
        *,
        tenant_id: UUID | None,
    ) -> Page[DocumentView]:
        """Show the papers of every tenant or of one, also of those that are gone; for superusers."""
        return await self._page(uow, [*all_papers(actor, tenant_id), *wanted.conditions()], page)

    async def show(self, uow: UnitOfWork, actor: Principal, *, document_id: UUID) -> DocumentView:
        """Show one of the tenant's papers; for owners and admins. Raises DocumentNotFound."""
        return await self._one(uow, [*own_papers(actor), Document.id == document_id])

    async def hosted(self, uow: UnitOfWork, token: str) -> DocumentView:
        """Show the paper that a link leads to, to whoever has the link. Needs a PlatformScope.

        Raises DocumentNotFound.
        """
        return await self._one(uow, [Document.id == self._links.read(token)])

    async def of_movements(self, uow: UnitOfWork, movement_ids: Iterable[UUID]) -> dict[UUID, PaperRef]:
        """Return which paper was issued for each movement of money that has one; of several the first."""
        rows = await uow.session.execute(
            select(Document.movement_id, Document.id, Document.number)
            .where(Document.movement_id.in_(list(movement_ids)))
            .order_by(Document.issued_at.desc(), Document.year.desc(), Document.place.desc())
        )
        return {row.movement_id: PaperRef(id=row.id, number=row.number, url=self._links.url(row.id)) for row in rows}

    async def views(self, uow: UnitOfWork, papers: Sequence[Document]) -> Sequence[DocumentView]:
        """Show papers with what became of them."""
        relatives = await uow.session.scalars(
            select(Document).where(Document.payment_id.in_({paper.payment_id for paper in papers}))
        )
        family = Family({paper.id: paper for paper in relatives})
        return [DocumentView.of(paper, family, url=self._links.url(paper.id)) for paper in papers]

    async def _one(self, uow: UnitOfWork, conditions: Sequence[ColumnElement[bool]]) -> DocumentView:
        paper = await uow.session.scalar(select(Document).where(*conditions))
        if paper is None:
            raise DocumentNotFound
        return (await self.views(uow, [paper]))[0]

    async def _page(
        self, uow: UnitOfWork, conditions: Sequence[ColumnElement[bool]], page: PageRequest
    ) -> Page[DocumentView]:
        total = await uow.session.scalar(select(func.count()).select_from(Document).where(*conditions))
        papers = await uow.session.scalars(
            select(Document)
            .where(*conditions)
            .order_by(Document.issued_at.desc(), Document.year.desc(), Document.place.desc(), Document.id)
            .offset(page.offset)
            .limit(page.size)
        )
        return Page(items=await self.views(uow, papers.all()), total=total or 0, request=page)


def own_papers(actor: Principal) -> list[ColumnElement[bool]]:
    """Return what limits papers to those of the actor's tenant; raises RoleRequired unless they may be read."""
    tenant_id = require_tenant(actor)
    require_permission(actor.role, Permission.INVOICES_READ)
    return [Document.tenant_id == tenant_id]


def all_papers(actor: Principal, tenant_id: UUID | None) -> list[ColumnElement[bool]]:
    """Return what limits papers to those of one tenant, or of none; raises SuperuserRequired."""
    require_superuser(actor)
    return [] if tenant_id is None else [Document.tenant_id == tenant_id]
