"""Papers as CSV, written while they are read, page by page, so that nothing is held while the reader is slow."""

from collections.abc import AsyncIterator, Sequence

from sqlalchemy import ColumnElement, select, tuple_

from core.csv import BOM, encode_rows
from core.money import round_money
from models.documents import Document
from services.documents.links import DocumentLinks
from services.unit_of_work import RequestTrace, Scope, UnitOfWorkFactory

_PAGE = 500
_HEAD = (
    *("number", "kind", "reason", "issued_at", "moved_at", "buyer_name", "buyer_tax_id", "buyer_country"),
    *("net", "tax_rate", "tax", "total", "currency", "tenant_id", "payment_id", "document_id", "corrects_id", "url"),
)


class DocumentExport:
    """Writes papers in the order in which they were numbered."""

    def __init__(self, units: UnitOfWorkFactory, links: DocumentLinks) -> None:
        self._units = units
        self._links = links

    async def write(
        self, scope: Scope, conditions: Sequence[ColumnElement[bool]], *, trace: RequestTrace
    ) -> AsyncIterator[bytes]:
        """Yield a CSV file in pieces; the caller has checked who asks."""
        yield BOM.encode() + encode_rows([_HEAD])
        key = (Document.year, Document.place, Document.id)
        page = select(Document).where(*conditions).order_by(*key).limit(_PAGE)
        papers: Sequence[Document] = ()
        while True:
            last = papers[-1] if papers else None
            after = [] if last is None else [tuple_(*key) > (last.year, last.place, last.id)]
            async with self._units(scope, trace=trace) as uow:
                papers = (await uow.session.scalars(page.where(*after))).all()
            if papers:
                yield encode_rows([self._row(paper) for paper in papers])
            if len(papers) < _PAGE:
                return

    def _row(self, paper: Document) -> Sequence[object]:
        amounts = [round_money(value, paper.currency) for value in (paper.net, paper.tax, paper.total)]
        return (
            *(paper.number, paper.kind, paper.reason, paper.issued_at, paper.moved_at),
            *(paper.buyer[name] for name in ("name", "tax_id", "country")),
            *(amounts[0], paper.tax_rate.normalize(), amounts[1], amounts[2], paper.currency),
            *(paper.tenant_id, paper.payment_id, paper.id, paper.corrects_id, self._links.url(paper.id)),
        )
