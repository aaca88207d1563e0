"""Billing as clients see it: supersets that every released client can read (contract.md 1.7, 4.2, 4.3)."""

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from core.money import Money
from models.billing import (
    BillingPeriod,
    PaymentEvent,
    PaymentEventType,
    Plan,
    PlanPrice,
    Subscription,
    SubscriptionStatus,
)
from services.billing.actions import Action, actions_of_subscription

"""An amount in the currency's major unit: a Decimal here, a number with two decimals on the wire."""

# The same limit under the names that different clients look for (contract.md 4.2).
_TWINS = (("users", "max_users"), ("storage_gb", "max_storage_gb"))

_INVOICE_STATUSES = {
    PaymentEventType.PAYMENT_SUCCESS: "paid",
    PaymentEventType.PAYMENT_FAILED: "failed",
    PaymentEventType.REFUND: "refunded",
    PaymentEventType.CHARGEBACK: "disputed",
}


class View(BaseModel):
    """A shape of the wire; it never changes after it was made."""

    model_config = ConfigDict(frozen=True)


class PlanView(View):
    """A plan; limits of -1 mean unlimited. `monthly_price`, `max_users` and `max_storage` (GB) are for one client.

    `commission_percent` is the platform's share of what the tenant's customers pay, None for the usual one.
    """

    id: UUID
    name: str
    slug: str
    description: str
    price_monthly: Money
    price_yearly: Money
    monthly_price: Money
    yearly_price: Money
    currency: str
    limits: dict[str, Any]
    max_users: int
    max_storage: int
    features: list[str]
    feature_flags: dict[str, Any]
    commission_percent: Money | None
    is_active: bool
    sort_order: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, plan: Plan) -> Self:
        limits = _with_twins(plan.limits)
        return cls(
            id=plan.id,
            name=plan.name,
            slug=plan.slug,
            description=plan.description or "",
            price_monthly=plan.price_monthly,
            price_yearly=plan.price_yearly,
            monthly_price=plan.price_monthly,
            yearly_price=plan.price_yearly,
            currency=plan.currency,
            limits=limits,
            max_users=limits.get("max_users", 0),
            max_storage=limits.get("max_storage_gb", 0),
            features=plan.features,
            feature_flags=plan.feature_flags,
            commission_percent=plan.commission_percent,
            is_active=plan.is_active,
            sort_order=plan.sort_order,
            created_at=plan.created_at,
            updated_at=plan.updated_at,
        )


class PlanPriceView(View):
    """What one period of a plan costs at one provider."""

    provider: str
    billing_period: BillingPeriod
    amount: Money
    currency: str

    @classmethod
    def of(cls, price: PlanPrice) -> Self:
        return cls(
            provider=price.provider,
            billing_period=price.billing_period,
            amount=price.amount,
            currency=price.currency,
        )


class PricedPlanView(PlanView):
    """A plan in the price list; `offers` are its prices at those providers where it has others than its own."""

    offers: list[PlanPriceView]


class SubscriptionView(View):
    """The tenant's subscription with its plan; `amount` is what one period costs by the purchase in force."""

    id: UUID
    tenant_id: UUID
    plan_id: UUID
    plan_name: str
    status: SubscriptionStatus
    billing_period: BillingPeriod
    amount: Money
    currency: str
    trial_ends_at: datetime | None
    trial_end: datetime | None
    current_period_start: datetime
    current_period_end: datetime
    cancel_at_period_end: bool
    cancelled_at: datetime | None
    canceled_at: datetime | None
    cancel_reason: str | None
    payment_provider: str | None
    provider: str | None
    available_actions: list[Action]
    created_at: datetime
    updated_at: datetime
    plan: PlanView

    @classmethod
    def of(cls, subscription: Subscription) -> Self:
        """Show a subscription whose `plan` and `checkout` are loaded."""
        plan, checkout = subscription.plan, subscription.checkout
        return cls(
            id=subscription.id,
            tenant_id=subscription.tenant_id,
            plan_id=subscription.plan_id,
            plan_name=plan.name,
            status=subscription.status,
            billing_period=subscription.billing_period,
            amount=checkout.amount if checkout else plan.price(subscription.billing_period),
            currency=checkout.currency if checkout else plan.currency,
            trial_ends_at=subscription.trial_ends_at,
            trial_end=subscription.trial_ends_at,
            current_period_start=subscription.current_period_start,
            current_period_end=subscription.current_period_end,
            cancel_at_period_end=subscription.cancel_at_period_end,
            cancelled_at=subscription.cancelled_at,
            canceled_at=subscription.cancelled_at,
            cancel_reason=subscription.cancel_reason,
            payment_provider=subscription.payment_provider,
            provider=subscription.payment_provider,
            available_actions=actions_of_subscription(subscription),
            created_at=subscription.created_at,
            updated_at=subscription.updated_at,
            plan=PlanView.of(plan),
        )


class InvoiceView(View):
    """One movement of money; `amount` is never negative, `status` and `event_type` tell its direction.

    `event_metadata` holds a few words of ours, never the provider's event. `paid_at` is set for payments alone.
    """

    id: UUID
    subscription_id: UUID
    event_type: PaymentEventType
    status: str
    amount: Money
    currency: str
    provider: str
    provider_event_id: str
    provider_payment_id: str | None
    event_metadata: dict[str, Any]
    invoice_url: str | None
    created_at: datetime
    paid_at: datetime | None

    @classmethod
    def of(cls, event: PaymentEvent) -> Self:
        return cls(
            id=event.id,
            subscription_id=event.subscription_id,
            event_type=event.event_type,
            status=_INVOICE_STATUSES[event.event_type],
            amount=event.amount,
            currency=event.currency,
            provider=event.provider,
            provider_event_id=event.provider_event_id,
            provider_payment_id=event.provider_payment_id,
            event_metadata=event.event_metadata,
            invoice_url=event.invoice_url,
            created_at=event.created_at,
            paid_at=event.created_at if event.event_type is PaymentEventType.PAYMENT_SUCCESS else None,
        )


class CheckoutView(View):
    """Where to send the payer."""

    checkout_url: str
    session_id: str


def _with_twins(limits: dict[str, Any]) -> dict[str, Any]:
    both = dict(limits)
    for name, twin in _TWINS:
        if name in limits or twin in limits:
            both[name] = both[twin] = limits.get(name, limits.get(twin))
    return both
