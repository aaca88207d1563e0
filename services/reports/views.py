"""Reports as they are shown: a line for each month and currency, amounts in the currency's major unit."""

from datetime import date
from decimal import Decimal

from core.money import Money
from services.billing.views import View


class RecurringView(View):
    """What subscriptions brought in a month, by each customer's sum at the month's beginning and at its end.

    `mrr_start` + `new` + `reactivation` + `expansion` - `contraction` - `churn` is `mrr_end`, to the cent. A customer
    who goes over to another currency leaves the one and comes to the other. The rates are fractions of what there was
    at the beginning, None where there was nothing. Of the month that is not over the end is now.
    """

    month: date
    currency: str
    mrr_start: Money
    new: Money
    reactivation: Money
    expansion: Money
    contraction: Money
    churn: Money
    mrr_end: Money
    customers_start: int
    customers_new: int
    customers_reactivated: int
    customers_churned: int
    customers_end: int
    customer_churn_rate: Decimal | None
    revenue_churn_rate: Decimal | None


class PlanRecurringView(View):
    """What the subscriptions to one plan bring in a month now, and how many they are."""

    plan: str
    currency: str
    customers: int
    mrr: Money


class MoneyView(View):
    """What was paid in a month and what of it went back; `net` is what was earned of it.

    That is `charged` - `refunded` - `disputed`, less what was charged for changes that came to nothing. Disputes that
    were won do not count. `credits` is what came without buying anything, such changes included, less what was given
    back of it: owed to tenants, and no revenue.
    """

    month: date
    currency: str
    charged: Money
    refunded: Money
    disputed: Money
    credits: Money
    net: Money


class RevenueView(MoneyView):
    """The same by provider and plan; no plan for money that no purchase of ours explains."""

    provider: str
    plan: str | None


class CommissionView(View):
    """What was earned on merchants' orders in a month and what of it went back with their refunds."""

    month: date
    provider: str
    currency: str
    earned: Money
    reversed: Money
    net: Money
