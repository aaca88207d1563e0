"""The papers that we issue ourselves: numbered without gaps, never changed, and kept for good (docs/adr/0020).

What a *provider* bills is `models/invoices.py`; what moved is the money book (`models/payments.py`).
"""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    DDL,
    CheckConstraint,
    ForeignKey,
    Index,
    Numeric,
    SmallInteger,
    String,
    Text,
    UniqueConstraint,
    event,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Identified, JsonObject, OutlivesTenant, TenantOwned, enum_column


class DocumentKind(StrEnum):
    """What sort of paper it is: a credit note takes back from an invoice, a cancellation from a credit note."""

    INVOICE = "invoice"
    CREDIT_NOTE = "credit_note"
    CANCELLATION = "cancellation"


class DocumentReason(StrEnum):
    """Which money fact it was issued for."""

    PAYMENT = "payment"
    REFUND = "refund"
    DISPUTE = "dispute"
    DISPUTE_WON = "dispute_won"


class Document(Identified, OutlivesTenant, Base):
    """One paper, as it was issued; amounts of credit notes are below zero.

    `place` counts from 1 within its series and year. `payment_id` and `movement_id` name rows of the money book, which
    the document may outlive: the payment, and the movement that it was issued for. `part` tells papers for one movement
    apart, where a later fact corrects its amount. `issuer` and `buyer` are as they were then (name, address, tax_id,
    country, email); each line has description, quantity, unit_price, tax_rate, net, tax, total (decimals as text) and
    the period that was bought. Prices include the tax: `net` + `tax` = `total`.
    """

    __tablename__ = "documents"
    __table_args__ = (
        UniqueConstraint("series", "year", "place"),
        UniqueConstraint("movement_id", "reason", "part"),
        CheckConstraint("net + tax = total", name="sums"),
        Index("ix_documents_tenant_id", "tenant_id", "issued_at"),
        Index("ix_documents_payment_id", "payment_id"),
        Index("ix_documents_issued_at", "issued_at"),
    )

    kind: Mapped[DocumentKind] = mapped_column(enum_column(DocumentKind, name="kind"))
    reason: Mapped[DocumentReason] = mapped_column(enum_column(DocumentReason, name="reason"))
    number: Mapped[str] = mapped_column(String(40), unique=True)
    series: Mapped[str] = mapped_column(String(20))
    year: Mapped[int] = mapped_column(SmallInteger)
    place: Mapped[int]
    payment_id: Mapped[UUID]
    movement_id: Mapped[UUID]
    part: Mapped[int] = mapped_column(SmallInteger)
    corrects_id: Mapped[UUID | None] = mapped_column(ForeignKey("documents.id", ondelete="RESTRICT"), index=True)
    locale: Mapped[str] = mapped_column(String(8))
    issuer: Mapped[JsonObject]
    buyer: Mapped[JsonObject]
    lines: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    currency: Mapped[str] = mapped_column(String(3))
    tax_rate: Mapped[Decimal] = mapped_column(Numeric(6, 3))
    net: Mapped[Decimal] = mapped_column(Numeric(14, 3))
    tax: Mapped[Decimal] = mapped_column(Numeric(14, 3))
    total: Mapped[Decimal] = mapped_column(Numeric(14, 3))
    # The provider's time of the movement, and ours of the paper.
    moved_at: Mapped[datetime]
    issued_at: Mapped[datetime]


class DocumentSeries(Base):
    """How many papers a series has in a year; whoever numbers one holds the row until the commit."""

    __tablename__ = "document_series"

    series: Mapped[str] = mapped_column(String(20), primary_key=True)
    year: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    last: Mapped[int]


class BillingDetails(Identified, TenantOwned, Base):
    """Whom a tenant's papers name, where they go and in which language; what is empty is taken from the tenant."""

    __tablename__ = "billing_details"
    __table_args__ = (UniqueConstraint("tenant_id"),)

    name: Mapped[str | None] = mapped_column(String(255))
    address: Mapped[str | None] = mapped_column(Text)
    tax_id: Mapped[str | None] = mapped_column(String(50))
    country: Mapped[str | None] = mapped_column(String(2))
    email: Mapped[str | None] = mapped_column(String(255))
    locale: Mapped[str | None] = mapped_column(String(8))
    updated_at: Mapped[datetime]


# The same as in migration 0012; tests/migrations hold them together.
KEEP = """
CREATE FUNCTION document_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'issued documents are never changed' USING ERRCODE = 'insufficient_privilege';
END $$
"""
TRIGGERS = (
    "CREATE TRIGGER keep BEFORE UPDATE OR DELETE ON documents FOR EACH ROW EXECUTE FUNCTION document_keep()",
    "CREATE TRIGGER keep_all BEFORE TRUNCATE ON documents EXECUTE FUNCTION document_keep()",
)
for _statement in (KEEP, *TRIGGERS):
    event.listen(Document.__table__, "after_create", DDL(_statement))  # type: ignore[no-untyped-call]
