"""What is sold: plans, and the periods they are paid for (contract.md 4.2)."""

from calendar import monthrange
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ForeignKey, Numeric, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Identified, JsonObject, Timestamped, enum_column


class BillingPeriod(StrEnum):
    """How often a plan is paid."""

    MONTHLY = "monthly"
    YEARLY = "yearly"


class PastDuePolicy(StrEnum):
    """What becomes of a subscription that stays unpaid: it can be paid late, or it is cancelled for good."""

    EXPIRE = "expire"
    CANCEL = "cancel"


def period_after(start: datetime, period: BillingPeriod, *, anchor_day: int) -> datetime:
    """Return when the period that begins at `start` ends.

    `anchor_day` is the day of the month of the first payment: a shorter month ends on its last day, and the next
    longer one returns to the anchor, so that 31 January is followed by 28 February and 31 March.
    """
    months = start.month if period is BillingPeriod.MONTHLY else start.month + 11
    year, month = start.year + months // 12, months % 12 + 1
    return start.replace(year=year, month=month, day=min(anchor_day, monthrange(year, month)[1]))


class Plan(Identified, Timestamped, Base):
    """Something a tenant can subscribe to; prices are in `currency`, limits of -1 mean unlimited."""

    __tablename__ = "plans"

    slug: Mapped[str] = mapped_column(String(50), unique=True)
    name: Mapped[str] = mapped_column(String(100))
    description: Mapped[str] = mapped_column(Text, default="")
    price_monthly: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    price_yearly: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    currency: Mapped[str] = mapped_column(String(3), default="USD")
    limits: Mapped[JsonObject] = mapped_column(default=dict)
    features: Mapped[list[str]] = mapped_column(default=list)
    feature_flags: Mapped[JsonObject] = mapped_column(default=dict)
    # Of the orders that a tenant's customers pay, in percent; None for the platform's own (PLATFORM_COMMISSION).
    commission_percent: Mapped[Decimal | None] = mapped_column(Numeric(7, 4))
    trial_days: Mapped[int] = mapped_column(default=14)
    past_due_policy: Mapped[PastDuePolicy] = mapped_column(
        enum_column(PastDuePolicy, name="past_due_policy"), default=PastDuePolicy.EXPIRE, server_default="expire"
    )
    is_active: Mapped[bool] = mapped_column(default=True)
    sort_order: Mapped[int] = mapped_column(default=0)
    # When its limits or flags were last changed, of which its tenants are to be told.
    entitlements_changed_at: Mapped[datetime | None]

    def price(self, period: BillingPeriod) -> Decimal:
        """Return what one period costs."""
        return self.price_monthly if period is BillingPeriod.MONTHLY else self.price_yearly


class PlanPrice(Identified, Base):
    """What a plan costs at one provider, where that is not the plan's own price: another currency, another amount.

    Prices of before stay with the purchases that were begun at them (`CheckoutSession.amount`).
    """

    __tablename__ = "plan_prices"
    __table_args__ = (UniqueConstraint("plan_id", "provider", "billing_period"),)

    plan_id: Mapped[UUID] = mapped_column(ForeignKey("plans.id", ondelete="CASCADE"))
    provider: Mapped[str] = mapped_column(String(50))
    billing_period: Mapped[BillingPeriod] = mapped_column(enum_column(BillingPeriod, name="billing_period"))
    amount: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    currency: Mapped[str] = mapped_column(String(3))
