"""What a payment has bought, for its invoice: told by the purchase that the payment belongs to."""

from datetime import datetime

from sqlalchemy import select

from models.billing import CheckoutSession, Plan, Subscription
from providers.payments import CheckoutPaid, InvoicePaid
from services.documents import Sale
from services.unit_of_work import UnitOfWork


async def sale_of(uow: UnitOfWork, subscription: Subscription, fact: CheckoutPaid | InvoicePaid) -> Sale:
    """Return what a fact's money has bought; `subscription` is as the fact has left it, with its plan."""
    start: datetime | None
    end: datetime | None
    if isinstance(fact, CheckoutPaid):
        purchase = CheckoutSession.session_id == fact.session_id
        start, end = subscription.current_period_start, subscription.current_period_end
        # A period that was only added to tells nothing of what this payment has added.
        period = (start, end) if start == fact.occurred_at else None
    else:
        purchase = CheckoutSession.subscription_ref == fact.subscription_ref
        start, end = fact.period_start, fact.period_end
        period = None if start is None or end is None else (start, end)
    bought = (
        await uow.session.execute(
            select(Plan.name, CheckoutSession.billing_period)
            .join(Plan, Plan.id == CheckoutSession.plan_id)
            .where(purchase, CheckoutSession.provider == fact.provider)
        )
    ).first()
    if bought is None:
        return Sale(plan=subscription.plan.name, billing_period=subscription.billing_period, period=period)
    return Sale(plan=bought.name, billing_period=bought.billing_period, period=period)
