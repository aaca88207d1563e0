"""What a renewal was to cost: money that has come is booked as it came, and a difference is for people to look at."""

from collections.abc import Collection
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import select

from models.billing import CheckoutKind, CheckoutSession, CheckoutState, Subscription
from providers.payments import InvoicePaid
from services.billing.lookup import Standing, Target
from services.unit_of_work import UnitOfWork

# A provider counts a period from a moment of its own, which need not be the one from which we have counted.
_SAME_END = timedelta(days=1)


async def agreed_prices(uow: UnitOfWork, target: Target, fact: InvoicePaid) -> Collection[tuple[Decimal, str]]:
    """Return the prices, with their currency, at which a renewal may have been charged; empty where we know none.

    It is one for the period in force and the one that follows it. Of a renewal that is heard of late, any that its
    purchase ever had. `target` is as it is before the renewal is applied.
    """
    subscription, purchase = target.subscription, target.checkout
    since = fact.period_start or fact.occurred_at
    in_force = _price_from(subscription, since)
    if target.standing is Standing.CURRENT and not _is_late(subscription, fact, since):
        return () if in_force is None or subscription.currency is None else {(in_force, subscription.currency)}
    if purchase is None:
        return ()
    changes = await uow.session.scalars(
        select(CheckoutSession).where(
            CheckoutSession.root_id == purchase.id,
            CheckoutSession.kind == CheckoutKind.CHANGE,
            CheckoutSession.state == CheckoutState.PAID,
        )
    )
    prices = {(row.price, row.currency) for row in (purchase, *changes)}
    if target.standing is Standing.CURRENT and subscription.price is not None and subscription.currency is not None:
        # What a change that cost nothing has made of it.
        prices.add((subscription.price, subscription.currency))
    return prices


def differs(fact: InvoicePaid, agreed: Collection[tuple[Decimal, str]]) -> bool:
    """Tell whether a renewal came to something else than was agreed."""
    paid = (fact.amount, fact.currency.upper())
    return bool(agreed) and paid not in {(amount, currency.upper()) for amount, currency in agreed}


def _price_from(subscription: Subscription, since: datetime) -> Decimal | None:
    at = subscription.next_at
    # What was agreed to follow may have begun at the provider before our own clock has turned.
    is_next = at is not None and since > at - _SAME_END
    return subscription.next_price if is_next else subscription.price


def _is_late(subscription: Subscription, fact: InvoicePaid, since: datetime) -> bool:
    in_force = subscription.checkout
    changed_at = None if in_force is None else in_force.completed_at
    is_before = changed_at is not None and fact.occurred_at < changed_at
    return is_before or since < subscription.current_period_start - _SAME_END
