"""What a change of plan would cost now, and when it would begin: the one decision behind previews and purchases."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from sqlalchemy import select

from models.billing import (
    BillingPeriod,
    CheckoutKind,
    CheckoutSession,
    CheckoutState,
    Plan,
    Subscription,
    SubscriptionStatus,
)
from models.proration import PaidPeriod, Step
from services.billing.errors import AlreadySubscribed, CancellationPending, CurrencyNotTaken, PaymentOverdue
from services.unit_of_work import UnitOfWork

_NOTHING = Decimal(0)


class Effect(StrEnum):
    """How a change comes about.

    * `now`: at once and for nothing, within a trial.
    * `checkout`: by buying the plan's period, because nothing that is paid is in force, or to continue it.
    * `payment`: at once, when the difference has been paid.
    * `period_end`: when the paid period ends.
    """

    NOW = "now"
    CHECKOUT = "checkout"
    PAYMENT = "payment"
    PERIOD_END = "period_end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What is wanted: a plan for a period, at the price of the provider that is to be paid."""

    plan: Plan
    billing_period: BillingPeriod
    price: Decimal
    currency: str
    provider: str
    renews_by_itself: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What an offer comes to: `amount` is to be paid now, `restarts` tells that a new period begins with it."""

    effect: Effect
    amount: Decimal
    currency: str
    effective_at: datetime
    restarts: bool = False
    continues: bool = False


async def quote(uow: UnitOfWork, subscription: Subscription, offer: Offer) -> Quote:
    """Decide how the tenant comes by an offer; `plan` and `checkout` of the subscription are loaded.

    A dearer plan of the same period, and a year instead of a month, begin at once for the difference in time's worth.
    Whatever would leave us owing money waits for the period's end, so that no change back and forth makes a credit.

    Raises:
        AlreadySubscribed: it is in force and renews by itself.
        PaymentOverdue: the renewal that failed must be paid first.
        CancellationPending: what is in force ends with its period.
        CurrencyNotTaken: what is in force was paid in another currency.
    """
    purchase = Quote(
        effect=Effect.CHECKOUT, amount=offer.price, currency=offer.currency, effective_at=uow.now, restarts=True
    )
    if subscription.status is SubscriptionStatus.TRIAL:
        ends_at = subscription.current_period_start + timedelta(days=offer.plan.trial_days)
        if offer.plan.trial_days > 0 and ends_at > uow.now:
            return Quote(effect=Effect.NOW, amount=_NOTHING, currency=offer.currency, effective_at=uow.now)
        return purchase
    in_force, before = subscription.checkout, subscription.price
    if subscription.is_over or in_force is None or before is None or offer.provider != subscription.payment_provider:
        return purchase
    is_same = (offer.plan.id, offer.billing_period) == (subscription.plan_id, subscription.billing_period)
    if is_same and offer.renews_by_itself and subscription.status is SubscriptionStatus.ACTIVE:
        if subscription.cancel_at_period_end:
            return purchase
        raise AlreadySubscribed
    if subscription.status is SubscriptionStatus.PAST_DUE:
        if offer.renews_by_itself:
            raise PaymentOverdue
        return _continuing(purchase) if is_same else purchase
    if is_same:
        return _continuing(purchase)
    _require_changeable(subscription, offer)
    return _prorated(offer, subscription, await _paid_period(uow, subscription, in_force), before=before, now=uow.now)


def _require_changeable(subscription: Subscription, offer: Offer) -> None:
    if subscription.cancel_at_period_end:
        raise CancellationPending
    if offer.currency != subscription.currency:
        raise CurrencyNotTaken


def _prorated(offer: Offer, subscription: Subscription, period: PaidPeriod, *, before: Decimal, now: datetime) -> Quote:
    restarts = offer.billing_period is not subscription.billing_period
    due = _NOTHING
    if not restarts and offer.price > before:
        due = period.due_for_remainder(before=before, after=offer.price, at=now)
    elif restarts and offer.billing_period is BillingPeriod.YEARLY:
        due = period.due_for_new_period(before=before, after=offer.price, at=now)
    if due > 0:
        return Quote(effect=Effect.PAYMENT, amount=due, currency=offer.currency, effective_at=now, restarts=restarts)
    return Quote(
        effect=Effect.PERIOD_END,
        amount=_NOTHING,
        currency=offer.currency,
        effective_at=subscription.current_period_end,
        restarts=restarts,
    )


async def _paid_period(uow: UnitOfWork, subscription: Subscription, in_force: CheckoutSession) -> PaidPeriod:
    """Return the period in force with the changes that have been paid within it."""
    rows = await uow.session.scalars(
        select(CheckoutSession)
        .where(
            CheckoutSession.tenant_id == subscription.tenant_id,
            CheckoutSession.root_id == in_force.period_purchase_id,
            CheckoutSession.kind == CheckoutKind.CHANGE,
            CheckoutSession.state == CheckoutState.PAID,
            CheckoutSession.valid_until == subscription.current_period_end,
            CheckoutSession.restarts.is_(False),
        )
        .order_by(CheckoutSession.created_at)
    )
    steps = [
        Step(at=row.created_at, before=row.price_before, after=row.price, paid=row.amount)
        for row in rows
        if row.price_before is not None and row.is_in_time
    ]
    return PaidPeriod(
        start=subscription.current_period_start,
        end=subscription.current_period_end,
        currency=in_force.currency,
        steps=steps,
    )


def _continuing(purchase: Quote) -> Quote:
    return Quote(
        effect=purchase.effect,
        amount=purchase.amount,
        currency=purchase.currency,
        effective_at=purchase.effective_at,
        continues=True,
    )
