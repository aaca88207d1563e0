"""What a payment has bought, for its invoice: told by the purchase that the payment belongs to."""

from datetime import datetime

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import joinedload

from models.billing import CheckoutKind, CheckoutSession, Subscription
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
        return Sale(plan=subscription.plan.name, billing_period=subscription.billing_period, period=None)
    if purchase.kind is CheckoutKind.CHANGE:
        return _change(purchase, fact.occurred_at)
    return Sale(plan=purchase.plan.name, billing_period=purchase.billing_period, period=added)


def _change(purchase: CheckoutSession, paid_at: datetime) -> Sale:
    until = None if purchase.restarts else purchase.valid_until
    period = None if until is None or until <= paid_at else (paid_at, until)
    return Sale(plan=purchase.plan.name, billing_period=purchase.billing_period, period=period, is_change=True)


async def _renewal(uow: UnitOfWork, subscription: Subscription, fact: InvoicePaid, period: Period) -> Sale:
    """Return what a provider's bill is for: what is in force, or what was agreed to follow it, by the price."""
    coming, coming_period = subscription.next_plan, subscription.next_billing_period
    if coming is not None and coming_period is not None and fact.amount == subscription.next_price:
        return Sale(plan=coming.name, billing_period=coming_period, period=period)
    is_in_force = subscription.external_subscription_id == fact.subscription_ref
    if is_in_force and fact.billing_reason != "start":
        return Sale(plan=subscription.plan.name, billing_period=subscription.billing_period, period=period)
    purchase = await _purchase(uow, fact.provider, CheckoutSession.subscription_ref == fact.subscription_ref)
    bought = subscription if purchase is None else purchase
    return Sale(plan=bought.plan.name, billing_period=bought.billing_period, period=period)


async def _purchase(uow: UnitOfWork, provider: str, condition: ColumnElement[bool]) -> CheckoutSession | None:
    found: CheckoutSession | None = await uow.session.scalar(
        select(CheckoutSession)
        .options(joinedload(CheckoutSession.plan))
        .where(CheckoutSession.provider == provider, condition)
    )
    return found
