"""Finding subscriptions: for showing, for changing under a lock, and by what a provider calls them."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.orm import joinedload, selectinload

from models.billing import CheckoutKind, CheckoutSession, CheckoutState, Subscription, SubscriptionStatus
from providers.payments import Purchase
from services.billing.errors import FactRefused, NotThereYet
from services.unit_of_work import UnitOfWork


def subscriptions_with_plan(*conditions: ColumnElement[bool]) -> Select[Subscription]:
    """Select subscriptions with what a view of them needs."""
    return (
        select(Subscription)
        .options(
            joinedload(Subscription.plan),
            joinedload(Subscription.checkout),
            joinedload(Subscription.next_plan),
            selectinload(Subscription.overrides),
        )
        .where(*conditions)
    )


async def locked_subscription(
    uow: UnitOfWork, *conditions: ColumnElement[bool], skip_locked: bool = False
) -> Subscription | None:
    """Return the one subscription that meets `conditions`, held until the unit of work ends.

    Whatever changes a tenant's billing takes this lock first, so that all of it happens one after the other. With
    `skip_locked` a subscription that somebody else is changing counts as absent.
    """
    # Two statements: one that waits for the lock sees the newest subscription, but joined to what was there before
    # it waited, so the plan and the checkout in force are read by the second.
    locked = await uow.session.scalar(
        select(Subscription.id).where(*conditions).with_for_update(key_share=True, skip_locked=skip_locked)
    )
    if locked is None:
        return None
    found: Subscription | None = await uow.session.scalar(
        subscriptions_with_plan(Subscription.id == locked).execution_options(populate_existing=True)
    )
    return found


class Standing(StrEnum):
    """What a provider's subscription is to the tenant's own."""

    CURRENT = "current"
    UNPAID = "unpaid"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A purchase and the tenant's own subscription, both under lock."""

    subscription: Subscription
    checkout: CheckoutSession
    standing: Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whom a fact about a provider's subscription concerns: the tenant's own one, under lock.

    `checkout` is the period's purchase that began the provider's one, None only for those that the system before this
    one began; `standing` is then CURRENT.
    """

    subscription: Subscription
    checkout: CheckoutSession | None
    standing: Standing


async def by_purchase(uow: UnitOfWork, *, provider: str, session_id: str, purchase: Purchase) -> Begun:
    """Find the purchase that a fact or a payment names.

    Raises:
        NotThereYet: we have no such checkout.
        FactRefused: what is told contradicts the checkout.
    """
    if purchase.checkout_id is not None:
        condition = CheckoutSession.id == purchase.checkout_id
    else:
        condition = CheckoutSession.session_id == session_id
    begun = await _by_checkout(uow, condition, provider=provider, purchase=purchase)
    if begun is None:
        raise NotThereYet("checkout")
    return begun


async def by_session(uow: UnitOfWork, *, provider: str, session_id: str, purchase: Purchase) -> Begun:
    """Find whose checkout a fact speaks of; raises what `by_purchase` does, also for another session than its own."""
    begun = await by_purchase(uow, provider=provider, session_id=session_id, purchase=purchase)
    if begun.checkout.session_id not in (None, session_id):
        raise FactRefused("another session than the checkout's", tenant_id=begun.checkout.tenant_id)
    return begun


async def by_subscription(
    uow: UnitOfWork, *, provider: str, subscription_ref: str, customer_ref: str | None, purchase: Purchase | None
) -> Target:
    """Find whose subscription a fact speaks of: by its reference, by the purchase it names, or by its customer.

    Raises:
        NotThereYet: we know none of them (yet).
        FactRefused: the fact contradicts the checkout.
    """
    same_provider = Subscription.payment_provider == provider
    current = await locked_subscription(uow, same_provider, Subscription.external_subscription_id == subscription_ref)
    if current is not None:
        return Target(subscription=current, checkout=await period_purchase(uow, current), standing=Standing.CURRENT)
    begun = await _by_checkout(
        uow, CheckoutSession.subscription_ref == subscription_ref, provider=provider, purchase=purchase
    )
    if begun is None and purchase is not None and purchase.checkout_id is not None:
        begun = await _by_checkout(
            uow, CheckoutSession.id == purchase.checkout_id, provider=provider, purchase=purchase
        )
    if begun is not None:
        _adopt(begun, subscription_ref)
        return Target(subscription=begun.subscription, checkout=begun.checkout, standing=begun.standing)
    # The system before this one sometimes kept the customer alone. A trial has bought nothing yet, so a fact about
    # its customer waits for the checkout that brings it.
    by_customer = await locked_subscription(
        uow,
        same_provider,
        Subscription.external_customer_id == customer_ref,
        Subscription.external_subscription_id.is_(None),
        Subscription.checkout_id.is_(None),
        Subscription.status != SubscriptionStatus.TRIAL,
    )
    if customer_ref is None or by_customer is None:
        raise NotThereYet("subscription")
    by_customer.external_subscription_id = subscription_ref
    return Target(subscription=by_customer, checkout=None, standing=Standing.CURRENT)


async def period_purchase(uow: UnitOfWork, subscription: Subscription) -> CheckoutSession | None:
    """Return the purchase of the period in force, whatever has changed in it since."""
    in_force = subscription.checkout
    if in_force is None or in_force.kind is CheckoutKind.PERIOD:
        return in_force
    return await uow.session.get(
        CheckoutSession, in_force.period_purchase_id, options=(joinedload(CheckoutSession.plan),)
    )


async def _by_checkout(
    uow: UnitOfWork, condition: ColumnElement[bool], *, provider: str, purchase: Purchase | None
) -> Begun | None:
    tenant_id: UUID | None = await uow.session.scalar(
        select(CheckoutSession.tenant_id).where(condition, CheckoutSession.provider == provider)
    )
    if tenant_id is None:
        return None
    subscription = await locked_subscription(uow, Subscription.tenant_id == tenant_id)
    if subscription is None:
        raise NotThereYet("subscription")
    # Read again under the subscription's lock, for another fact may just have changed it.
    checkout = (
        await uow.session.scalars(
            select(CheckoutSession)
            .options(joinedload(CheckoutSession.plan))
            .where(condition, CheckoutSession.provider == provider)
            .with_for_update(of=CheckoutSession)
            .execution_options(populate_existing=True)
        )
    ).one()
    if purchase is not None:
        _refuse_other_purchase(checkout, purchase)
    return Begun(subscription=subscription, checkout=checkout, standing=_standing(subscription, checkout))


def _standing(subscription: Subscription, checkout: CheckoutSession) -> Standing:
    if checkout.state is not CheckoutState.PAID:
        return Standing.UNPAID
    in_force = subscription.checkout
    is_current = in_force is not None and checkout.id in (in_force.id, in_force.period_purchase_id)
    return Standing.CURRENT if is_current else Standing.REPLACED


def _adopt(begun: Begun, subscription_ref: str) -> None:
    """Note which of the provider's subscriptions the purchase began, where only this fact tells."""
    checkout = begun.checkout
    if checkout.subscription_ref not in (None, subscription_ref):
        raise FactRefused("another subscription than the checkout's", tenant_id=checkout.tenant_id)
    checkout.subscription_ref = subscription_ref
    if begun.standing is Standing.CURRENT:
        begun.subscription.external_subscription_id = subscription_ref


def _refuse_other_purchase(checkout: CheckoutSession, purchase: Purchase) -> None:
    # The metadata is signed, but whoever can write to the provider's account can write it.
    told = (purchase.tenant_id, purchase.plan_id, purchase.billing_period)
    if told != (checkout.tenant_id, checkout.plan_id, checkout.billing_period.value):
        raise FactRefused("another purchase than the checkout's", tenant_id=checkout.tenant_id)
