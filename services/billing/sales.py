"""What a payment has bought, for its invoice and the reports: told by the purchase that the payment belongs to."""

from dataclasses import replace
from datetime import datetime

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import joinedload

from models.billing import BillingPeriod, CheckoutKind, CheckoutSession, Plan, Subscription
from providers.payments import CheckoutPaid, InvoicePaid
from services.documents import Sale
from services.unit_of_work import UnitOfWork

Period = tuple[datetime, datetime] | None


async def sale_of(
    uow: UnitOfWork, subscription: Subscription, fact: CheckoutPaid | InvoicePaid, *, added: Period = None
) -> Sale:
    """Return what a fact's money has bought; `subscription` is as the fact has left it, with its plans.

    `added` is what a period's purchase has put behind what was paid before, None where it has put nothing there.
    """
    if isinstance(fact, InvoicePaid):
        start, end = fact.period_start, fact.period_end
        period: Period = None if start is None or end is None else (start, end)
        return await _renewal(uow, subscription, fact, period)
    purchase = await _purchase(uow, fact.provider, CheckoutSession.session_id == fact.session_id)
    if purchase is None:
        return _sale(subscription.plan, subscription.billing_period, None)
    if purchase.kind is CheckoutKind.CHANGE:
        return _change(purchase, fact.occurred_at)
    return _sale(purchase.plan, purchase.billing_period, added)


def _change(purchase: CheckoutSession, paid_at: datetime) -> Sale:
    until = None if purchase.restarts else purchase.valid_until
    period = None if until is None or until <= paid_at else (paid_at, until)
    return replace(_sale(purchase.plan, purchase.billing_period, period), is_change=True)


async def _renewal(uow: UnitOfWork, subscription: Subscription, fact: InvoicePaid, period: Period) -> Sale:
    """Return what a provider's bill is for: what is in force, or what was agreed to follow it, by the price."""
    coming, coming_period = subscription.next_plan, subscription.next_billing_period
    if coming is not None and coming_period is not None and fact.amount == subscription.next_price:
        return _sale(coming, coming_period, period)
    is_in_force = subscription.external_subscription_id == fact.subscription_ref
    if is_in_force and fact.billing_reason != "start":
        return _sale(subscription.plan, subscription.billing_period, period)
    purchase = await _purchase(uow, fact.provider, CheckoutSession.subscription_ref == fact.subscription_ref)
    bought = subscription if purchase is None else purchase
    return _sale(bought.plan, bought.billing_period, period)


def _sale(plan: Plan, billing_period: BillingPeriod, period: Period) -> Sale:
    return Sale(plan_id=plan.id, plan=plan.name, billing_period=billing_period, period=period)


async def _purchase(uow: UnitOfWork, provider: str, condition: ColumnElement[bool]) -> CheckoutSession | None:
    found: CheckoutSession | None = await uow.session.scalar(
        select(CheckoutSession)
        .options(joinedload(CheckoutSession.plan))
        .where(CheckoutSession.provider == provider, condition)
    )
    return found
