"""Our papers as clients see them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from core.money import Money, round_money
from models.documents import BillingDetails, Document, DocumentKind, DocumentReason


class DocumentStatus(StrEnum):
    """Where a paper stands; it follows from the papers that correct it.

    An invoice is issued when its money has arrived, so it is `paid` at once, and later `partly_credited` or `credited`.
    A credit note is `issued` until it is `cancelled`; a cancellation stays `issued`.
    """

    PAID = "paid"
    PARTLY_CREDITED = "partly_credited"
    CREDITED = "credited"
    ISSUED = "issued"
    CANCELLED = "cancelled"


class DocumentPartyView(BaseModel):
    """The issuer or the buyer, as it was when the paper was issued; `country` is ISO 3166-1 alpha-2."""

    model_config = ConfigDict(frozen=True)

    name: str
    address: str | None
    tax_id: str | None
    country: str | None
    email: str | None


class DocumentLineView(BaseModel):
    """One line; prices include the tax, `tax_rate` is in percent."""

    model_config = ConfigDict(frozen=True)

    description: str
    quantity: Money
    unit_price: Money
    tax_rate: Money
    net: Money
    tax: Money
    total: Money
    period_start: datetime | None
    period_end: datetime | None


class DocumentView(BaseModel):
    """A paper of ours. `url` is its page, which needs no sign-in; amounts of credit notes are below zero.

    `payment_id` and `movement_id` are ids of GET /billing/invoices; `corrects_id` is the paper that this one corrects.
    """

    model_config = ConfigDict(frozen=True)

    id: UUID
    tenant_id: UUID
    number: str
    kind: DocumentKind
    reason: DocumentReason
    status: DocumentStatus
    payment_id: UUID
    movement_id: UUID
    corrects_id: UUID | None
    corrects_number: str | None
    currency: str
    tax_rate: Money
    net: Money
    tax: Money
    total: Money
    lines: list[DocumentLineView]
    issuer: DocumentPartyView
    buyer: DocumentPartyView
    locale: str
    moved_at: datetime
    issued_at: datetime
    url: str
    pdf_url: str

    @classmethod
    def of(cls, paper: Document, family: "Family", *, url: str) -> Self:
        """Show a paper; `family` holds the papers of the same payment."""
        corrects = None if paper.corrects_id is None else family.by_id[paper.corrects_id]
        return cls(
            id=paper.id,
            tenant_id=paper.tenant_id,
            number=paper.number,
            kind=paper.kind,
            reason=paper.reason,
            status=family.status_of(paper),
            payment_id=paper.payment_id,
            movement_id=paper.movement_id,
            corrects_id=paper.corrects_id,
            corrects_number=None if corrects is None else corrects.number,
            currency=paper.currency,
            tax_rate=paper.tax_rate.normalize(),
            net=round_money(paper.net, paper.currency),
            tax=round_money(paper.tax, paper.currency),
            total=round_money(paper.total, paper.currency),
            lines=[DocumentLineView.model_validate(line) for line in paper.lines],
            issuer=DocumentPartyView.model_validate(paper.issuer),
            buyer=DocumentPartyView.model_validate(paper.buyer),
            locale=paper.locale,
            moved_at=paper.moved_at,
            issued_at=paper.issued_at,
            url=url,
            pdf_url=f"{url}/pdf",
        )


@dataclass(frozen=True, slots=True)
class Family:
    """The papers of some payments, by their ids."""

    by_id: Mapping[UUID, Document]

    def status_of(self, paper: Document) -> DocumentStatus:
        """Tell where a paper stands by those that correct it, and those that correct these."""
        left = paper.total + self._corrections(paper.id)
        if paper.kind is DocumentKind.INVOICE:
            if left == paper.total:
                return DocumentStatus.PAID
            return DocumentStatus.PARTLY_CREDITED if left > 0 else DocumentStatus.CREDITED
        is_cancelled = paper.kind is DocumentKind.CREDIT_NOTE and left >= 0
        return DocumentStatus.CANCELLED if is_cancelled else DocumentStatus.ISSUED

    def _corrections(self, paper_id: UUID) -> Decimal:
        own = [paper for paper in self.by_id.values() if paper.corrects_id == paper_id]
        return sum((paper.total + self._corrections(paper.id) for paper in own), Decimal(0))


class PaperRef(BaseModel):
    """Which paper was issued for a movement of money, and where it can be seen."""

    model_config = ConfigDict(frozen=True)

    id: UUID
    number: str
    url: str


class BillingDetailsView(BaseModel):
    """Whom the tenant's papers name, where they go and in which language; null is taken from the tenant's people."""

    model_config = ConfigDict(frozen=True)

    name: str | None
    address: str | None
    tax_id: str | None
    country: str | None
    email: str | None
    language: str | None
    updated_at: datetime | None

    @classmethod
    def of(cls, details: BillingDetails | None) -> Self:
        given = details or BillingDetails()
        return cls(
            name=given.name,
            address=given.address,
            tax_id=given.tax_id,
            country=given.country,
            email=given.email,
            language=given.locale,
            updated_at=given.updated_at,
        )
