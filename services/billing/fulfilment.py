"""Putting in force what has been paid for: a first purchase, a renewal paid ahead, or one that is heard of too late."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import or_, select

from models.billing import CheckoutSession, CheckoutState, Subscription, SubscriptionStatus
from models.checkouts import prepaid_period
from providers.payments import PaymentProvider
from services.billing.instructions import Addressee, Instructions, addressee_of
from services.billing.lookup import period_purchase
from services.billing.sales import Period
from services.billing.trail import audit
from services.closed_tenants import DELETION_REASON, is_ending
from services.unit_of_work import UnitOfWork


class Fulfilment:
    """Gives a tenant what its checkouts have bought; `served_for` is how long an unpaid subscription is served."""

    def __init__(
        self, *, providers: Mapping[str, PaymentProvider], instructions: Instructions, served_for: timedelta
    ) -> None:
        self._providers = providers
        self._instructions = instructions
        self._served_for = served_for

    async def complete(
        self,
        uow: UnitOfWork,
        subscription: Subscription,
        checkout: CheckoutSession,
        *,
        paid_at: datetime,
        customer_ref: str | None,
    ) -> tuple[list[UUID], Period]:
        """Take it that a checkout is paid, and put it in force unless a later purchase already is.

        Returns also the period that it added: from the end of what was paid before, or from its own payment.
        """
        paid_until = subscription.current_period_end
        in_force = await period_purchase(uow, subscription)
        if not checkout.mark_paid(paid_at):
            if in_force is checkout:
                subscription.hear_again(at=paid_at)
                subscription.external_subscription_id = checkout.subscription_ref
                subscription.external_customer_id = customer_ref or subscription.external_customer_id
            return [], None
        if in_force is not None and in_force.place_in_time > checkout.place_in_time:
            if _is_same_offer(in_force, checkout) and not self._charges_by_itself(checkout.provider):
                await self._lengthen(uow, subscription, checkout)
                end = subscription.current_period_end
                return [], (paid_until, end) if end > paid_until else None
            audit(uow, "checkout.superseded", subscription, checkout=str(checkout.id))
            return await self._stop(uow, subscription, checkout.provider, checkout.subscription_ref), None
        orders: list[UUID] = []
        before = (subscription.payment_provider, subscription.external_subscription_id)
        if self._is_prepaid_renewal(subscription, checkout, paid_at):
            subscription.prolong(checkout, paid_at=paid_at, now=uow.now)
            start = paid_until
        else:
            orders = await self._stop(uow, subscription, *before)
            subscription.activate(checkout, paid_at=paid_at, customer_ref=customer_ref, now=uow.now)
            start = paid_at
        orders += await self._keep_ending(uow, subscription)
        audit(uow, "subscription.activated", subscription, plan=subscription.plan.slug)
        return orders, (start, subscription.current_period_end)

    async def _keep_ending(self, uow: UnitOfWork, subscription: Subscription) -> list[UUID]:
        """Let what is paid for a tenant that is to be deleted end with its period: a page could not be closed in time.

        Else a payment would take back the cancellation that the deletion ordered, and a provider would charge again.
        """
        if not await is_ending(uow, subscription.tenant_id):
            return []
        subscription.cancel_later(reason=DELETION_REASON, now=uow.now)
        addressee = addressee_of(subscription)
        if addressee is None:
            return []
        return [await self._instructions.cancel(uow, addressee, at_period_end=True)]

    def _is_prepaid_renewal(self, subscription: Subscription, checkout: CheckoutSession, paid_at: datetime) -> bool:
        """Tell whether a payment continues the period in force, also when it is over but was served until now."""
        in_force = (subscription.payment_provider, subscription.plan_id, subscription.billing_period)
        return (
            not self._charges_by_itself(checkout.provider)
            and subscription.status
            in (SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE, SubscriptionStatus.EXPIRED)
            and subscription.checkout_id is not None
            and subscription.current_period_end + self._served_for > paid_at
            and checkout.renews(in_force, subscription.checkout_id)
        )

    async def _lengthen(self, uow: UnitOfWork, subscription: Subscription, late: CheckoutSession) -> None:
        """Count a payment for the plan in force that happened before the one in force but is heard of after it."""
        rows = await uow.session.scalars(
            select(CheckoutSession).where(
                CheckoutSession.tenant_id == late.tenant_id,
                CheckoutSession.provider == late.provider,
                or_(CheckoutSession.state == CheckoutState.PAID, CheckoutSession.id == late.id),
            )
        )
        period = prepaid_period(rows, served_for=self._served_for)
        if period is not None:
            subscription.prepay(period, now=uow.now)
        audit(uow, "subscription.lengthened", subscription, checkout=str(late.id))

    async def _stop(
        self, uow: UnitOfWork, subscription: Subscription, provider: str | None, ref: str | None
    ) -> list[UUID]:
        """Instruct to end a provider's subscription that another one replaces, lest both be charged."""
        if provider is None or ref is None or not self._charges_by_itself(provider):
            return []
        stopped = Addressee(tenant_id=subscription.tenant_id, provider=provider, subscription_ref=ref)
        return [await self._instructions.cancel(uow, stopped, at_period_end=False)]

    def _charges_by_itself(self, provider: str) -> bool:
        known = self._providers.get(provider)
        return known is not None and known.capabilities.recurring


def _is_same_offer(one: CheckoutSession, other: CheckoutSession) -> bool:
    return one.offer == other.offer or one.base_id == other.id
