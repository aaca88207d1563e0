"""Whether what a provider holds is what we hold already, so that nothing needs to be done."""

from decimal import Decimal

from sqlalchemy import func, select

from models.billing import CheckoutSession, CheckoutState, PaymentEvent, PaymentEventType, Subscription
from providers.payments import PaymentState, SubscriptionState
from services.unit_of_work import UnitOfWork


async def knows_payment(uow: UnitOfWork, checkout: CheckoutSession, state: PaymentState) -> bool:
    """Tell whether a purchase stands as its provider has it: in its state, and with what has come and gone back."""
    if CheckoutState(state.status.value) is not checkout.state:
        return False
    if checkout.state is not CheckoutState.PAID:
        return state.received <= checkout.received
    # Providers that tell by events alone name no amounts beside what was asked.
    received = checkout.received or checkout.amount
    return state.received <= received and state.refunded <= await _refunded(uow, checkout.provider, state.payment_key)


def knows_subscription(subscription: Subscription, state: SubscriptionState) -> bool:
    """Tell whether a subscription stands as its provider has it."""
    period = (state.period_start, state.period_end)
    held = (subscription.current_period_start, subscription.current_period_end)
    return (
        state.status == subscription.status.value
        and state.cancel_at_period_end == subscription.cancel_at_period_end
        and (None in period or period == held)
    )


async def _refunded(uow: UnitOfWork, provider: str, payment_key: str) -> Decimal:
    paid = select(PaymentEvent.id).where(
        PaymentEvent.provider == provider,
        PaymentEvent.event_type == PaymentEventType.PAYMENT_SUCCESS,
        PaymentEvent.fact_key == payment_key,
    )
    total: Decimal | None = await uow.session.scalar(
        select(func.sum(PaymentEvent.amount)).where(
            PaymentEvent.event_type == PaymentEventType.REFUND,
            PaymentEvent.payment_id.in_(paid.scalar_subquery()),
        )
    )
    return total or Decimal(0)
