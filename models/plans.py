"""What is sold: plans, and the periods they are paid for (contract.md 4.2)."""

from calendar import monthrange
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from sqlalchemy import Numeric, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Identified, JsonObject, Timestamped


class BillingPeriod(StrEnum):
    """How often a plan is paid."""

    MONTHLY = "monthly"
    YEARLY = "yearly"


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
    trial_days: Mapped[int] = mapped_column(default=14)
    is_active: Mapped[bool] = mapped_column(default=True)
    sort_order: Mapped[int] = mapped_column(default=0)

    def price(self, period: BillingPeriod) -> Decimal:
        """Return what one period costs."""
        return self.price_monthly if period is BillingPeriod.MONTHLY else self.price_yearly
