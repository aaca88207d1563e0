"""The bills that providers issue, and what becomes of them (providers.md 1.2)."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ForeignKey, Index, Numeric, String, Text, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Identified, TenantOwned, enum_column


class InvoiceStatus(StrEnum):
    """A provider's invoice as we know it; `paid` and `void` are final (providers.md 1.2)."""

    OPEN = "open"
    PAID = "paid"
    FAILED = "failed"
    VOID = "void"


class Invoice(Identified, TenantOwned, Base):
    """A bill the provider issued for one period."""

    __tablename__ = "invoices"
    __table_args__ = (
        UniqueConstraint("provider", "provider_invoice_id"),
        Index("ix_invoices_tenant_id", "tenant_id", "created_at"),
    )

    subscription_id: Mapped[UUID] = mapped_column(ForeignKey("subscriptions.id", ondelete="CASCADE"), index=True)
    provider: Mapped[str] = mapped_column(String(50))
    provider_invoice_id: Mapped[str] = mapped_column(String(255))
    status: Mapped[InvoiceStatus] = mapped_column(enum_column(InvoiceStatus, name="status"))
    amount: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    currency: Mapped[str] = mapped_column(String(3))
    hosted_url: Mapped[str | None] = mapped_column(Text)
    period_start: Mapped[datetime | None]
    period_end: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    paid_at: Mapped[datetime | None]
    # The provider's time of the newest failure, and when it was withdrawn.
    failed_until: Mapped[datetime | None]
    voided_at: Mapped[datetime | None]

    def tell_paid(self, *, at: datetime, amount: Decimal, currency: str) -> None:
        """Take in that it was paid, by the provider's clock at the latest at `at`. Nothing undoes that."""
        self.status, self.amount, self.currency = InvoiceStatus.PAID, amount, currency
        self.paid_at = at if self.paid_at is None else min(self.paid_at, at)
        self.created_at = min(self.created_at, at)

    def tell_bought(self, period: tuple[datetime | None, datetime | None], *, hosted_url: str | None) -> None:
        """Take in what only the bill itself tells of a payment."""
        self.period_start, self.period_end = period
        self.hosted_url = hosted_url or self.hosted_url

    def tell_failed(self, *, at: datetime, amount: Decimal, currency: str, hosted_url: str | None) -> None:
        """Take in that an attempt to collect it failed; of several the newest counts."""
        self.created_at = min(self.created_at, at)
        self.hosted_url = self.hosted_url or hosted_url
        if self.failed_until is not None and at < self.failed_until:
            return
        self.failed_until = at
        if self.status in (InvoiceStatus.OPEN, InvoiceStatus.FAILED):
            self.status, self.amount, self.currency = InvoiceStatus.FAILED, amount, currency

    def tell_void(self, *, at: datetime, amount: Decimal, currency: str) -> None:
        """Take in that it was withdrawn; what was paid all the same stays paid."""
        self.created_at = min(self.created_at, at)
        self.voided_at = at if self.voided_at is None else min(self.voided_at, at)
        if self.status is not InvoiceStatus.PAID:
            self.status, self.amount, self.currency = InvoiceStatus.VOID, amount, currency
