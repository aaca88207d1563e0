"""Orders of a merchant's customers, the invoices that they are paid by, and what goes back (contract.md 4.6)."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, Numeric, String, Text, UniqueConstraint, false, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Identified, TenantOwned, Timestamped, enum_column
from models.payment_progress import CheckoutState, PaymentProgress

_ZERO = text("0")


class OrderStatus(StrEnum):
    """Where an order stands; it follows from its invoices, refunds and disputes (services/merchants/reckoning.py).

    `underpaid` waits for the merchant, who gives back what came or asks for the rest. What is `expired`, `failed` or
    `underpaid` can still be paid, late or by a new invoice.
    """

    PENDING = "pending"
    PROCESSING = "processing"
    PAID = "paid"
    UNDERPAID = "underpaid"
    EXPIRED = "expired"
    FAILED = "failed"
    DISPUTED = "disputed"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"


class Order(Identified, TenantOwned, Timestamped, Base):
    """What a customer owes a merchant.

    `paid` stays once it is so, whatever goes back later; `paid_at` is the provider's time.
    """

    __tablename__ = "orders"
    __table_args__ = (
        Index("ix_orders_tenant_id", "tenant_id", "created_at"),
        Index(
            "uq_orders_external_reference",
            "tenant_id",
            "external_reference",
            unique=True,
            postgresql_where=text("external_reference IS NOT NULL"),
        ),
    )

    amount: Mapped[Decimal] = mapped_column(Numeric())
    currency: Mapped[str] = mapped_column(String(10))
    status: Mapped[OrderStatus] = mapped_column(enum_column(OrderStatus, name="status"), default=OrderStatus.PENDING)
    items: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, default=list)
    note: Mapped[str | None] = mapped_column(Text)
    external_reference: Mapped[str | None] = mapped_column(String(255))
    paid: Mapped[bool] = mapped_column(default=False, server_default=false())
    paid_at: Mapped[datetime | None]
    created_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))


class OrderInvoice(PaymentProgress, Identified, TenantOwned, Base):
    """One invoice at the merchant's provider. An order may have several: tried again, or opened twice by an accident.

    Until `opening_until` somebody is asking the provider for it. `commission_percent` is what was agreed when it was
    opened. `refunded` is the running total that the provider told at `refunds_until`. `look_at` is when the provider is
    asked for it without an event, and `looks` how often that was done since nobody can pay it any more. `twin_of` is
    set where the provider has made two invoices for one request, and names the row of the request.
    """

    __tablename__ = "order_invoices"
    __table_args__ = (
        UniqueConstraint("tenant_id", "provider", "session_id"),
        Index(None, "order_id"),
        Index(None, "integration_id"),
        Index(None, "tenant_id"),
        Index("ix_order_invoices_look_at", "look_at", postgresql_where=text("look_at IS NOT NULL")),
    )

    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id", ondelete="CASCADE"))
    integration_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("tenants_payment_integrations.id", ondelete="SET NULL")
    )
    twin_of: Mapped[UUID | None] = mapped_column(ForeignKey("order_invoices.id", ondelete="CASCADE"))
    provider: Mapped[str] = mapped_column(String(50))
    session_id: Mapped[str | None] = mapped_column(String(255))
    url: Mapped[str | None] = mapped_column(Text)
    amount: Mapped[Decimal] = mapped_column(Numeric())
    currency: Mapped[str] = mapped_column(String(10))
    commission_percent: Mapped[Decimal] = mapped_column(Numeric(7, 4))
    state: Mapped[CheckoutState] = mapped_column(
        enum_column(CheckoutState, name="state"), default=CheckoutState.PENDING
    )
    opening_until: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    received: Mapped[Decimal] = mapped_column(Numeric(), default=Decimal(0), server_default=_ZERO)
    overpaid: Mapped[Decimal] = mapped_column(Numeric(), default=Decimal(0), server_default=_ZERO)
    refunded: Mapped[Decimal] = mapped_column(Numeric(), default=Decimal(0), server_default=_ZERO)
    is_late: Mapped[bool] = mapped_column(default=False, server_default=false())
    facts_until: Mapped[datetime | None]
    refunds_until: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    look_at: Mapped[datetime | None]
    looks: Mapped[int] = mapped_column(default=0, server_default=_ZERO)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    def tell_refunded(self, total: Decimal, *, at: datetime, is_news: bool = False) -> None:
        """Take in how much went back by the provider's word of `at`; of two words of one moment the larger counts.

        Refunds under way count too and may fail, so a newer total may be smaller. `is_news` tells that this word is the
        first of a refund that failed, and so the newer one of two of one moment.
        """
        if self.refunds_until is None or (at, is_news, total) > (self.refunds_until, False, self.refunded):
            self.refunded, self.refunds_until = total, at


class OrderDispute(Identified, TenantOwned, Base):
    """A customer's bank has asked for its money back; `outcome` is None while that is undecided."""

    __tablename__ = "order_disputes"
    __table_args__ = (UniqueConstraint("invoice_id", "dispute_ref"), Index(None, "order_id"), Index(None, "tenant_id"))

    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id", ondelete="CASCADE"))
    invoice_id: Mapped[UUID] = mapped_column(ForeignKey("order_invoices.id", ondelete="CASCADE"))
    dispute_ref: Mapped[str] = mapped_column(String(255))
    amount: Mapped[Decimal] = mapped_column(Numeric())
    outcome: Mapped[str | None] = mapped_column(String(10))
    told_at: Mapped[datetime]

    def tell(self, *, amount: Decimal, outcome: str | None, at: datetime) -> None:
        """Take in a word of `at`: a decision is final, the amount is that of the earliest word."""
        self.outcome = self.outcome or outcome
        if at < self.told_at:
            self.amount, self.told_at = amount, at


class RefundState(StrEnum):
    """What became of a refund: `asked` until the provider has answered, `failed` when it gave nothing back.

    What is `asked` is asked again until it is answered (services/merchants/looking.py), and never given back twice.
    `pending` was taken on by the provider and counts as given back, unless the provider tells later that it failed.
    """

    ASKED = "asked"
    PENDING = "pending"
    MADE = "made"
    FAILED = "failed"


class OrderRefund(Identified, TenantOwned, Base):
    """Money that the merchant gives back through us; at `claim_url` the customer says where to send it.

    Until `asking_until` somebody is asking the provider for it.
    """

    __tablename__ = "order_refunds"
    __table_args__ = (Index(None, "order_id"), Index(None, "invoice_id"), Index(None, "tenant_id"))

    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id", ondelete="CASCADE"))
    invoice_id: Mapped[UUID] = mapped_column(ForeignKey("order_invoices.id", ondelete="CASCADE"))
    amount: Mapped[Decimal] = mapped_column(Numeric())
    currency: Mapped[str] = mapped_column(String(10))
    state: Mapped[RefundState] = mapped_column(enum_column(RefundState, name="state"), default=RefundState.ASKED)
    asking_until: Mapped[datetime | None]
    refund_ref: Mapped[str | None] = mapped_column(String(255))
    claim_url: Mapped[str | None] = mapped_column(Text)
    created_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
