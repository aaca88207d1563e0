"""Subscriptions and purchases without a database."""

from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

from models.billing import (
    BillingPeriod,
    CheckoutSession,
    CheckoutState,
    Plan,
    Subscription,
)

NOW = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)
PLAN_ID = uuid4()
MONTH_END = datetime(2026, 2, 28, 12, 30, tzinfo=UTC)


def plan(**values: object) -> Plan:
    prices = {"price_monthly": Decimal("49.99"), "price_yearly": Decimal("499.99")}
    return Plan(**{"id": uuid4(), "slug": "pro", "name": "Pro", "trial_days": 14, **prices, **values})


def checkout(period: BillingPeriod = BillingPeriod.MONTHLY, **values: object) -> CheckoutSession:
    bought = plan()
    return CheckoutSession(
        **{
            "id": uuid4(),
            "plan": bought,
            "plan_id": bought.id,
            "billing_period": period,
            "provider": "stripe",
            "subscription_ref": "sub_1",
            "state": CheckoutState.PAID,
            **values,
        }
    )


def trial() -> Subscription:
    subscription = Subscription.trial(uuid4(), plan(), now=NOW)
    subscription.id = uuid4()
    return subscription


def active(period: BillingPeriod = BillingPeriod.MONTHLY) -> Subscription:
    subscription = trial()
    subscription.activate(checkout(period), paid_at=NOW, customer_ref="cus_1", now=NOW)
    return subscription
