"""Changing the plan: a preview, the change itself, and taking back one that has yet to come (providers.md 1.1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from core.errors import InvalidInput
from models.billing import BillingPeriod, Subscription
from providers.payments import PaymentProvider
from services.billing.announcer import Announcer
from services.billing.checkout import CheckoutOrder, Checkouts
from services.billing.errors import CancellationPending, NothingPending, SubscriptionNotFound
from services.billing.instructions import Instructions, addressee_of
from services.billing.lookup import locked_subscription
from services.billing.quotes import Effect, Offer, Quote, quote
from services.billing.views import ChangeView, QuoteView, SubscriptionView
from services.closed_tenants import require_not_ending
from services.identity import Principal, refuse_impersonator, require_may, require_tenant
from services.permissions import Permission
from services.unit_of_work import RequestTrace, TenantScope, UnitOfWork, UnitOfWorkFactory

_BY_PAYING: Final = (Effect.PAYMENT, Effect.CHECKOUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeOrder:
    """Which plan is wanted; `billing_period` None keeps the present one.

    The return addresses are needed where something is to be paid, and must have passed `check_return_url`.
    """

    plan_id: UUID
    billing_period: BillingPeriod | None
    success_url: str | None
    cancel_url: str | None


class PlanChanges:
    """The use cases of a tenant's owners and admins."""

    def __init__(
        self,
        units: UnitOfWorkFactory,
        *,
        providers: Mapping[str, PaymentProvider],
        checkouts: Checkouts,
        announcer: Announcer,
        instructions: Instructions,
    ) -> None:
        self._units = units
        self._providers = providers
        self._checkouts = checkouts
        self._announcer = announcer
        self._instructions = instructions

    async def preview(self, uow: UnitOfWork, actor: Principal, order: ChangeOrder) -> QuoteView:
        """Tell what a change would cost now and when it would begin; changes nothing.

        Raises what `change` raises before anything is paid.
        """
        require_may(actor, Permission.PLAN_BUY)
        subscription = await self._held(uow, require_tenant(actor))
        _, quoted = await self._quote(uow, subscription, order)
        return QuoteView.of(quoted)

    async def change(self, actor: Principal, order: ChangeOrder, *, trace: RequestTrace) -> ChangeView:
        """Change the plan: at once, by a payment, or when the paid period ends.

        Raises:
            PlanNotFound, PlanNotForSale, CurrencyNotTaken, AlreadySubscribed, PaymentOverdue, CancellationPending: it
                is not possible, or not now.
            SubscriptionNotFound: the tenant never had a subscription.
            TenantDeleted: it is to be deleted.
            Impersonated: somebody acts in the caller's name.
            InvalidInput: something is to be paid and the return addresses are missing.
            ProviderRejected, ProviderUnavailable: the provider did not open a checkout.
        """
        tenant_id = require_tenant(actor)
        require_may(actor, Permission.PLAN_BUY)
        refuse_impersonator(actor)
        instruction_id = None
        async with self._units(TenantScope(tenant_id), trace=trace) as uow:
            subscription = await self._held(uow, tenant_id)
            offer, quoted = await self._quote(uow, subscription, order)
            if quoted.effect not in _BY_PAYING:
                instruction_id = await self._decide(uow, actor, subscription, offer, quoted)
            view = SubscriptionView.of(subscription)
        if instruction_id is not None:
            await self._instructions.carry_out(instruction_id)
        if quoted.effect not in _BY_PAYING:
            return ChangeView.of(quoted, view)
        opened = await self._checkouts.start(actor, _purchase(order, offer), trace=trace)
        return ChangeView.of(quoted, view, checkout=opened)

    async def withdraw(self, actor: Principal, *, trace: RequestTrace) -> SubscriptionView:
        """Take back a change that has yet to come; raises Impersonated, and NothingPending when there is none."""
        tenant_id = require_tenant(actor)
        require_may(actor, Permission.PLAN_BUY)
        refuse_impersonator(actor)
        async with self._units(TenantScope(tenant_id), trace=trace) as uow:
            subscription = await self._held(uow, tenant_id)
            if not subscription.unschedule():
                raise NothingPending
            subscription.updated_at = uow.now
            instruction_id = await self._reprice(uow, subscription)
            self._note(uow, actor, subscription, "subscription.change_withdrawn", plan=subscription.plan.slug)
            self._announcer.subscription_updated(uow, subscription)
            view = SubscriptionView.of(subscription)
        if instruction_id is not None:
            await self._instructions.carry_out(instruction_id)
        return view

    async def _quote(self, uow: UnitOfWork, subscription: Subscription, order: ChangeOrder) -> tuple[Offer, Quote]:
        await require_not_ending(uow, subscription.tenant_id)
        offer = await self._checkouts.offer(
            uow,
            plan_id=order.plan_id,
            period=order.billing_period or subscription.billing_period,
            provider=self._checkouts.provider_of(subscription),
        )
        quoted = await quote(uow, subscription, offer)
        if quoted.effect is Effect.NOW and subscription.cancel_at_period_end:
            # Buying a plan ends a trial's cancellation, another trial does not.
            raise CancellationPending
        return offer, quoted

    async def _decide(
        self, uow: UnitOfWork, actor: Principal, subscription: Subscription, offer: Offer, quoted: Quote
    ) -> UUID | None:
        before = subscription.plan.slug
        instruction_id = None
        if quoted.effect is Effect.NOW:
            subscription.switch_trial(offer.plan, now=uow.now)
            self._note(uow, actor, subscription, "subscription.trial_switched", before=before, plan=offer.plan.slug)
        else:
            subscription.schedule(offer.plan, offer.billing_period, offer.price, at=quoted.effective_at)
            subscription.updated_at = uow.now
            self._note(uow, actor, subscription, "subscription.change_scheduled", before=before, plan=offer.plan.slug)
            instruction_id = await self._reprice(uow, subscription)
        self._announcer.subscription_updated(uow, subscription)
        return instruction_id

    async def _reprice(self, uow: UnitOfWork, subscription: Subscription) -> UUID | None:
        """Instruct a provider that charges by itself what to charge from the next period on."""
        addressee = addressee_of(subscription)
        provider = self._providers.get(subscription.payment_provider or "")
        price = subscription.next_price if subscription.next_price is not None else subscription.price
        currency = subscription.currency
        if addressee is None or provider is None or not provider.capabilities.recurring:
            return None
        if price is None or currency is None:
            return None
        return await self._instructions.reprice(
            uow,
            addressee,
            amount=price,
            currency=currency,
            period=subscription.next_billing_period or subscription.billing_period,
            charge_from=subscription.current_period_end,
        )

    async def _held(self, uow: UnitOfWork, tenant_id: UUID) -> Subscription:
        subscription = await locked_subscription(uow, Subscription.tenant_id == tenant_id)
        if subscription is None:
            raise SubscriptionNotFound
        return subscription

    def _note(self, uow: UnitOfWork, actor: Principal, subscription: Subscription, action: str, **details: str) -> None:
        uow.audit(
            action,
            actor_id=actor.user_id,
            tenant_id=subscription.tenant_id,
            subject=("subscription", subscription.id),
            details=details,
        )


def _purchase(order: ChangeOrder, offer: Offer) -> CheckoutOrder:
    if order.success_url is None or order.cancel_url is None:
        raise InvalidInput(details={"errors": [_missing("success_url"), _missing("cancel_url")]})
    return CheckoutOrder(
        plan_id=offer.plan.id,
        billing_period=offer.billing_period,
        provider=offer.provider,
        success_url=order.success_url,
        cancel_url=order.cancel_url,
    )


def _missing(name: str) -> dict[str, str]:
    return {"field": f"body -> {name}", "message": "is needed, for something is to be paid", "type": "missing"}
