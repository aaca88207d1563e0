"""What subscriptions bring in a month, as it was at every moment: the source of recurring revenue and of churn."""

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, Numeric, String
from sqlalchemy.orm import Mapped, mapped_column

from core.money import round_money
from models.base import Base, OutlivesTenant
from models.billing import Subscription, SubscriptionStatus
from models.plans import BillingPeriod

_MONTHS_A_YEAR = 12
_PAYING = (SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE)


class RecurringRevenue(OutlivesTenant, Base):
    """What a tenant's subscription brings in a month from `since` on, until a later row says otherwise.

    Rows are only ever added, one with every news of the subscription, under its lock.
    """

    __tablename__ = "recurring_revenue"
    __table_args__ = (Index("ix_recurring_revenue_tenant_id", "tenant_id", "since", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    plan_id: Mapped[UUID] = mapped_column(ForeignKey("plans.id"))
    amount: Mapped[Decimal] = mapped_column(Numeric(14, 2))
    currency: Mapped[str] = mapped_column(String(3))
    since: Mapped[datetime]


def monthly_revenue(subscription: Subscription) -> tuple[Decimal, str]:
    """Return what a subscription brings in a month at the price that was agreed, and in which currency.

    `plan` must be loaded. A year's price counts as twelve equal months. Trials, plans that were given
    away, and what is over bring nothing.
    """
    plan, price, currency = subscription.plan, subscription.price, subscription.currency
    # Without a purchase of ours, only what the system before this one sold at a provider is paid for.
    is_sold = price is not None or subscription.external_subscription_id is not None
    if price is None or currency is None:
        price, currency = plan.price(subscription.billing_period), plan.currency
    if subscription.status not in _PAYING or not is_sold:
        return Decimal(0), currency
    months = 1 if subscription.billing_period is BillingPeriod.MONTHLY else _MONTHS_A_YEAR
    return round_money(price / months, currency), currency
