"""A change of plan that waits for the end of the paid period."""

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import ForeignKey, Numeric
from sqlalchemy.orm import Mapped, declared_attr, mapped_column, relationship

from models.base import enum_column
from models.plans import BillingPeriod, Plan


class PendingChange:
    """The part of a subscription that holds what it turns into, and when; all empty where nothing is to change."""

    next_plan_id: Mapped[UUID | None] = mapped_column(ForeignKey("plans.id"))
    next_billing_period: Mapped[BillingPeriod | None] = mapped_column(
        enum_column(BillingPeriod, name="next_billing_period")
    )
    next_price: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    next_at: Mapped[datetime | None]

    @declared_attr
    @classmethod
    def next_plan(cls) -> Mapped[Plan | None]:
        """The plan to come."""
        return relationship(lazy="raise", foreign_keys=f"{cls.__name__}.next_plan_id")

    def schedule(self, plan: Plan, period: BillingPeriod, price: Decimal, *, at: datetime) -> None:
        """Let a plan begin at a moment; whatever was to come before is replaced."""
        self.next_plan, self.next_plan_id = plan, plan.id
        self.next_billing_period, self.next_price, self.next_at = period, price, at

    def unschedule(self) -> bool:
        """Let everything stay as it is; returns whether something was to change."""
        had = self.next_plan_id is not None
        self.next_plan = self.next_plan_id = self.next_billing_period = self.next_price = self.next_at = None
        return had
