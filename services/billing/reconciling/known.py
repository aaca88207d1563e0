"""Whether what a provider holds is what we hold already, so that nothing needs to be done."""

from core.money import round_money
from models.billing import CheckoutSession, CheckoutState, Subscription, SubscriptionStatus
from models.journal import EntryKind
from providers.payments import PaymentProvider, PaymentState, SubscriptionState
from services.billing.journal import posted
from services.billing.refund_totals import refunded_of
from services.unit_of_work import UnitOfWork


async def knows_payment(
    uow: UnitOfWork, provider: PaymentProvider, checkout: CheckoutSession, state: PaymentState
) -> bool:
    """Tell whether a purchase stands as its provider has it: in its state, with what has come and gone back of it.

    What the provider keeps is a part of that, which it may tell later than that it was paid.
    """
    if CheckoutState(state.status.value) is not checkout.state:
        return False
    if checkout.state is not CheckoutState.PAID:
        return state.received <= checkout.received
    # Providers that tell by events alone name no amounts beside what was asked.
    received = checkout.received or checkout.amount
    if state.received > received:
        return False
    if provider.capabilities.tells_refunds:
        refunded = await refunded_of(uow, checkout.provider, state.payment_key)
        if min(state.refunded, state.received) != refunded:
            return False
    return await _knows_fee(uow, checkout.provider, state)


def knows_subscription(subscription: Subscription, state: SubscriptionState) -> bool:
    """Tell whether a subscription stands as its provider has it, or nothing more will be charged for it."""
    if subscription.status is SubscriptionStatus.CANCELLED:
        return state.status == SubscriptionStatus.CANCELLED.value or state.cancel_at_period_end
    is_waiting = subscription.waits_for_charge(SubscriptionStatus(state.status))
    told = SubscriptionStatus.ACTIVE.value if is_waiting else state.status
    started = subscription.current_period_start if is_waiting else state.period_start
    period = (started, state.period_end)
    held = (subscription.current_period_start, subscription.current_period_end)
    return (
        _is_same_status(subscription.status, told)
        and state.cancel_at_period_end == subscription.cancel_at_period_end
        and (None in period or period == held)
    )


def _is_same_status(held: SubscriptionStatus, told: str) -> bool:
    # A provider goes on collecting after we have given up; that it has collected is told as `active`.
    return told == held.value or (held is SubscriptionStatus.EXPIRED and told == SubscriptionStatus.PAST_DUE.value)


async def _knows_fee(uow: UnitOfWork, provider: str, state: PaymentState) -> bool:
    if state.fee is None:
        return True
    known = await posted(uow, provider=provider, kind=EntryKind.FEE, key=state.payment_key)
    return known >= round_money(state.fee.amount, state.fee.currency)
