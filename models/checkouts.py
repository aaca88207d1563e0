"""Purchases that were begun at a provider, and how they came out (contract.md 4.4)."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ForeignKey, Index, Numeric, String, Text, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column, relationship

from models.base import Base, Identified, TenantOwned, enum_column
from models.plans import BillingPeriod, Plan


class CheckoutState(StrEnum):
    """Where a checkout stands; `paid` is final, and money that comes late still makes it paid."""

    PENDING = "pending"
    PAID = "paid"
    EXPIRED = "expired"
    FAILED = "failed"


class CheckoutSession(Identified, TenantOwned, Base):
    """A purchase that was begun: what was asked, at what price, and where the payer was sent."""

    __tablename__ = "checkout_sessions"
    __table_args__ = (
        UniqueConstraint("provider", "session_id"),
        Index("ix_checkout_sessions_tenant_id", "tenant_id", "created_at"),
        Index("ix_checkout_sessions_subscription_ref", "provider", "subscription_ref"),
    )

    plan_id: Mapped[UUID] = mapped_column(ForeignKey("plans.id"))
    billing_period: Mapped[BillingPeriod] = mapped_column(enum_column(BillingPeriod, name="billing_period"))
    provider: Mapped[str] = mapped_column(String(50))
    session_id: Mapped[str | None] = mapped_column(String(255))
    url: Mapped[str | None] = mapped_column(Text)
    amount: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    currency: Mapped[str] = mapped_column(String(3))
    state: Mapped[CheckoutState] = mapped_column(
        enum_column(CheckoutState, name="state"), default=CheckoutState.PENDING
    )
    # The provider's subscription that this purchase began, known at the latest when it is paid.
    subscription_ref: Mapped[str | None] = mapped_column(String(255))
    success_url: Mapped[str] = mapped_column(Text)
    cancel_url: Mapped[str] = mapped_column(Text)
    created_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]

    plan: Mapped[Plan] = relationship(lazy="raise")

    def mark_paid(self, at: datetime) -> bool:
        """Note that the money is there since `at` (the provider's clock); returns False when it was known."""
        # A payment is told by the checkout and by its invoice, in any order; the earlier moment is kept.
        self.completed_at = at if self.completed_at is None else min(at, self.completed_at)
        if self.state is CheckoutState.PAID:
            return False
        self.state = CheckoutState.PAID
        return True

    def give_up(self, state: CheckoutState) -> bool:
        """Note that the checkout expired or failed; returns False when it had already come to an end."""
        if self.state is not CheckoutState.PENDING:
            return False
        self.state = state
        return True
