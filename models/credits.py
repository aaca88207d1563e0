"""Money that came without buying anything: to be given back or credited by an operator (providers.md 1.2)."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ForeignKey, Index, Numeric, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Identified, TenantOwned, enum_column


class CreditReason(StrEnum):
    """Why the money bought nothing.

    * `overpaid`: more came than was asked.
    * `underpaid`: time ran out before all of it had come.
    * `duplicate`: the purchase had been paid by another payment.
    * `superseded`: the change of plan that it was for was overtaken by another, or by the period's end; or the period
      that it was for was replaced by another purchase, for what was left of it; or it was charged for what was over.
    """

    OVERPAID = "overpaid"
    UNDERPAID = "underpaid"
    DUPLICATE = "duplicate"
    SUPERSEDED = "superseded"


class Credit(Identified, TenantOwned, Base):
    """What we owe a tenant; `occurred_at` is the provider's time of the payment, `settled_at` when it was dealt with.

    At most one for each payment and reason.
    """

    __tablename__ = "credits"
    __table_args__ = (
        UniqueConstraint("provider", "payment_key", "reason"),
        Index("ix_credits_tenant_id", "tenant_id", "occurred_at"),
        Index("ix_credits_open", "occurred_at", postgresql_where=text("settled_at IS NULL")),
    )

    checkout_id: Mapped[UUID] = mapped_column(ForeignKey("checkout_sessions.id", ondelete="CASCADE"), index=True)
    provider: Mapped[str] = mapped_column(String(50))
    payment_key: Mapped[str] = mapped_column(String(255))
    reason: Mapped[CreditReason] = mapped_column(enum_column(CreditReason, name="reason"))
    amount: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    currency: Mapped[str] = mapped_column(String(3))
    occurred_at: Mapped[datetime]
    settled_at: Mapped[datetime | None]
