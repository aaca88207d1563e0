"""Billing as clients see it: supersets that every released client can read (contract.md 1.7, 4.2, 4.3)."""

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from core.money import Money
from models.billing import (
    BillingPeriod,
    PastDuePolicy,
    PaymentEvent,
    PaymentEventType,
    Plan,
    PlanPrice,
    Subscription,
    SubscriptionStatus,
)
from models.entitlements import SOCKETS, Entitlements, Grant, with_twins
from services.billing.actions import Action, actions_of_subscription
from services.billing.quotes import Effect, Quote
from services.documents.views import PaperRef

"""An amount in the currency's major unit: a Decimal here, a number with two decimals on the wire."""

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
    trial_days: int
    past_due_policy: PastDuePolicy
    commission_percent: Money | None
    is_active: bool
    sort_order: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, plan: Plan) -> Self:
        limits = with_twins(plan.limits)
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
            trial_days=plan.trial_days,
            past_due_policy=plan.past_due_policy,
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


class PendingChangeView(View):
    """What the subscription turns into, at which price for a period, and when."""

    plan_id: UUID
    plan: str
    plan_name: str
    billing_period: BillingPeriod
    amount: Money
    effective_at: datetime


class QuoteView(View):
    """What a change of plan comes to; `effect` is `now`, `checkout`, `payment` or `period_end` (quotes.py)."""

    effect: Effect
    amount: Money
    currency: str
    effective_at: datetime

    @classmethod
    def of(cls, quote: Quote) -> Self:
        return cls(effect=quote.effect, amount=quote.amount, currency=quote.currency, effective_at=quote.effective_at)


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
    pending_change: PendingChangeView | None
    overdue_since: datetime | None
    available_actions: list[Action]
    created_at: datetime
    updated_at: datetime
    plan: PlanView

    @classmethod
    def of(cls, subscription: Subscription) -> Self:
        """Show a subscription whose `plan` and `next_plan` are loaded."""
        plan = subscription.plan
        return cls(
            id=subscription.id,
            tenant_id=subscription.tenant_id,
            plan_id=subscription.plan_id,
            plan_name=plan.name,
            status=subscription.status,
            billing_period=subscription.billing_period,
            amount=plan.price(subscription.billing_period) if subscription.price is None else subscription.price,
            currency=subscription.currency or plan.currency,
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
            pending_change=_pending(subscription),
            overdue_since=subscription.overdue_since,
            available_actions=actions_of_subscription(subscription),
            created_at=subscription.created_at,
            updated_at=subscription.updated_at,
            plan=PlanView.of(plan),
        )


class EntitlementsView(View):
    """What a tenant may have; limits of -1, and those that are not named, mean unlimited.

    `plan` is the plan's slug. `state` tells whether its entitlements are in force, left for some days after its end
    (`grace`), or not there (`none`). `changes_at` is when they will change by time alone.
    """

    plan: str | None
    state: Grant
    limits: dict[str, Any]
    feature_flags: dict[str, Any]
    changes_at: datetime | None

    @classmethod
    def of(cls, entitlements: Entitlements) -> Self:
        sockets = {SOCKETS: dict(entitlements.sockets)} if entitlements.sockets else {}
        return cls(
            plan=entitlements.plan.slug if entitlements.plan is not None else None,
            state=entitlements.grant,
            limits={**with_twins(entitlements.limits), **sockets},
            feature_flags=dict(entitlements.flags),
            changes_at=entitlements.changes_at,
        )


class InvoiceView(View):
    """One movement of money; `amount` is never negative, `status` and `event_type` tell its direction.

    `event_metadata` holds a few words of ours, never the provider's event. `paid_at` is set for payments alone.
    `document_id` and `document_number` name our own paper of it; `invoice_url` is the provider's bill, else that paper.
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
    document_id: UUID | None = None
    document_number: str | None = None
    created_at: datetime
    paid_at: datetime | None

    def with_paper(self, paper: PaperRef | None) -> Self:
        """Show where our own paper of it is; the provider's bill stays where it is, if it has one."""
        if paper is None:
            return self
        told = {"document_id": paper.id, "document_number": paper.number}
        return self.model_copy(update={**told, "invoice_url": self.invoice_url or paper.url})

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


class ChangeView(View):
    """How a change of plan came out: what was quoted, where to pay if something is to be paid, and what is in force."""

    effect: Effect
    amount: Money
    currency: str
    effective_at: datetime
    checkout_url: str | None
    session_id: str | None
    subscription: SubscriptionView

    @classmethod
    def of(cls, quote: Quote, subscription: SubscriptionView, checkout: CheckoutView | None = None) -> Self:
        return cls(
            effect=quote.effect,
            amount=quote.amount,
            currency=quote.currency,
            effective_at=quote.effective_at,
            checkout_url=None if checkout is None else checkout.checkout_url,
            session_id=None if checkout is None else checkout.session_id,
            subscription=subscription,
        )


def _pending(subscription: Subscription) -> PendingChangeView | None:
    plan, period, at = subscription.next_plan, subscription.next_billing_period, subscription.next_at
    if plan is None or period is None or at is None:
        return None
    return PendingChangeView(
        plan_id=plan.id,
        plan=plan.slug,
        plan_name=plan.name,
        billing_period=period,
        amount=plan.price(period) if subscription.next_price is None else subscription.next_price,
        effective_at=at,
    )
