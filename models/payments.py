"""The money book: every movement of money for a subscription, as clients are shown it (contract.md 4.1)."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ForeignKey, Index, Numeric, String, Text, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Identified, JsonObject, TenantOwned, enum_column


class PaymentEventType(StrEnum):
    """What happened to money (contract.md 4.1)."""

    PAYMENT_SUCCESS = "payment_success"
    PAYMENT_FAILED = "payment_failed"
    REFUND = "refund"
    CHARGEBACK = "chargeback"


class PaymentEvent(Identified, TenantOwned, Base):
    """A money fact, booked once per `fact_key`; `created_at` is when it happened by the provider's clock.

    `provider_payment_id` is what refunds and disputes name, `payment_id` the payment that they concern, `checkout_id`
    the purchase that a payment made (a renewal makes none), `plan_id` what was paid for, and `invoice_url` where the
    payer can see the bill.
    """

    __tablename__ = "payment_events"
    __table_args__ = (
        UniqueConstraint("provider", "event_type", "fact_key", name="uq_payment_events_fact"),
        # Not unique: one event may tell of a payment and of its refund.
        Index("ix_payment_events_provider_event_id", "provider", "provider_event_id"),
        Index("ix_payment_events_subscription_id", "subscription_id"),
        Index("ix_payment_events_tenant_id", "tenant_id", "created_at"),
        Index("ix_payment_events_provider_payment_id", "provider", "provider_payment_id"),
        Index("ix_payment_events_payment_id", "payment_id"),
        Index("ix_payment_events_checkout_id", "checkout_id"),
    )

    subscription_id: Mapped[UUID] = mapped_column(ForeignKey("subscriptions.id", ondelete="CASCADE"))
    event_type: Mapped[PaymentEventType] = mapped_column(enum_column(PaymentEventType, name="event_type"))
    amount: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    currency: Mapped[str] = mapped_column(String(3))
    provider: Mapped[str] = mapped_column(String(50))
    provider_event_id: Mapped[str] = mapped_column(String(255))
    fact_key: Mapped[str] = mapped_column(String(300))
    payment_id: Mapped[UUID | None] = mapped_column(ForeignKey("payment_events.id", ondelete="CASCADE"))
    checkout_id: Mapped[UUID | None] = mapped_column(ForeignKey("checkout_sessions.id", ondelete="CASCADE"))
    plan_id: Mapped[UUID | None] = mapped_column(ForeignKey("plans.id"))
    provider_payment_id: Mapped[str | None] = mapped_column(String(255))
    invoice_url: Mapped[str | None] = mapped_column(Text)
    event_metadata: Mapped[JsonObject] = mapped_column(default=dict)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
