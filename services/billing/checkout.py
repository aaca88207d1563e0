"""Selling a plan: the intent is recorded, the provider is asked, its answer is recorded (contract.md 4.3, 4.4).

Not every provider has idempotency keys, so whoever asks for a page says so in the purchase first and has a minute. Who
wants the same meanwhile waits for the answer; after the minute the next one asks with the same id.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import and_, or_, select

from models.billing import (
    BillingPeriod,
    CheckoutKind,
    CheckoutSession,
    CheckoutState,
    Subscription,
)
from models.checkouts import poll_after
from models.users import User
from providers.payments import (
    CheckoutCreated,
    CheckoutRequest,
    PaymentProvider,
    ProviderRejected,
    ProviderUnavailable,
)
from services.billing.errors import (
    ChangeAtPeriodEnd,
    CurrencyNotTaken,
    PageBeingOpened,
    PlanNotForSale,
    PlanNotFound,
    PriceInOtherCurrency,
    ProviderNotSupported,
    StripeNotConfigured,
    SubscriptionNotFound,
)
from services.billing.instructions import Instructions, is_withdrawn
from services.billing.lookup import locked_subscription
from services.billing.plans import plan_for_sale, price_at
from services.billing.quotes import Effect, Offer, Quote, quote
from services.billing.views import CheckoutView
from services.closed_tenants import TenantDeleted, is_ending, require_not_ending
from services.identity import Principal, require_may, require_tenant
from services.permissions import Permission
from services.unit_of_work import RequestTrace, TenantScope, UnitOfWork, UnitOfWorkFactory
from services.verification import Verification

_STRIPE = "stripe"
# Who comes back to a page that is open must have this long to pay; a page that was never opened may still be.
_TIME_TO_PAY = timedelta(minutes=5)
_TIME_TO_OPEN = timedelta(minutes=2)
# What a change costs shrinks with time, so an old page is not offered again.
_SAME_PRICE = timedelta(minutes=30)
# Longer than a provider is given to answer.
_LEASE: Final = timedelta(seconds=60)
_TURNS: Final = 40
_TURN_S: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutOrder:
    """What somebody wants to buy. `provider` None means the configured one; any case is accepted.

    With a `currency` (upper case) nothing is bought at a price in another one.

    The return addresses must have passed `services.billing.return_urls.check_return_url`.
    """

    plan_id: UUID
    billing_period: BillingPeriod
    provider: str | None
    success_url: str
    cancel_url: str
    currency: str | None = None


class Checkouts:
    """Begins purchases; what becomes of them is told by webhooks alone."""

    def __init__(
        self,
        units: UnitOfWorkFactory,
        *,
        providers: Mapping[str, PaymentProvider],
        default_provider: str,
        aliases: Mapping[str, str],
        verification: Verification,
        instructions: Instructions,
    ) -> None:
        self._units = units
        self._providers = providers
        self._default_provider = default_provider
        self._aliases = aliases
        self._verification = verification
        self._instructions = instructions

    async def start(self, actor: Principal, order: CheckoutOrder, *, trace: RequestTrace) -> CheckoutView:
        """Send the payer to the provider; for owners and admins.

        Whoever of the tenant asks while a page for the same is open is sent to that page, so that nobody pays twice by
        pressing twice, nor two who do not know of each other. A dearer plan than the one in force costs the difference
        (quotes.py).

        Raises:
            ProviderNotSupported, StripeNotConfigured: the provider asked for cannot be used.
            PlanNotFound, PlanNotForSale, CurrencyNotTaken, AlreadySubscribed, PaymentOverdue, CancellationPending,
                ChangeAtPeriodEnd: the plan cannot be bought, or not now.
            PriceInOtherCurrency: it can, but not in the currency that was named.
            SubscriptionNotFound: the tenant never had a subscription.
            TenantDeleted: it is to be deleted.
            EmailUnverified: the caller has to confirm their address first.
            PageBeingOpened: somebody else has been asking the provider for the same for too long.
            ProviderRejected, ProviderUnavailable: the provider did not open a checkout.
        """
        tenant_id = require_tenant(actor)
        require_may(actor, Permission.PLAN_BUY)
        provider = self._choose(order.provider)
        for _ in range(_TURNS):
            async with self._units(TenantScope(tenant_id), trace=trace) as uow:
                await self._verification.require(uow, actor)
                checkout, request = await self._record_intent(uow, actor, order, provider=provider, tenant_id=tenant_id)
                is_ours = checkout.lease(now=uow.now, until=uow.now + _LEASE)
            if checkout.session_id is not None and checkout.url is not None:
                return CheckoutView(checkout_url=checkout.url, session_id=checkout.session_id)
            if is_ours:
                return await self._open(tenant_id, request, provider=provider, trace=trace)
            await asyncio.sleep(_TURN_S)
        raise PageBeingOpened(retry_after_s=10)

    async def _open(
        self, tenant_id: UUID, request: CheckoutRequest, *, provider: PaymentProvider, trace: RequestTrace
    ) -> CheckoutView:
        try:
            created = await provider.create_checkout(request)
        except (ProviderRejected, ProviderUnavailable):
            await self._give_up(tenant_id, request.checkout_id)
            raise
        async with self._units(TenantScope(tenant_id), trace=trace) as uow:
            await _record_session(uow, request, created)
            # Its deletion may have been asked for while the provider was, which closed the pages there were.
            closed = await is_ending(uow, tenant_id)
            withdrawn = await self._instructions.withdraw_pages(uow, tenant_id) if closed else []
        for instruction_id in withdrawn:
            await self._instructions.carry_out(instruction_id)
        if closed:
            raise TenantDeleted
        return CheckoutView(checkout_url=created.url, session_id=created.session_id)

    async def offer(self, uow: UnitOfWork, *, plan_id: UUID, period: BillingPeriod, provider: PaymentProvider) -> Offer:
        """Return what a plan costs at a provider; raises PlanNotFound, PlanNotForSale and CurrencyNotTaken."""
        plan = await plan_for_sale(uow, plan_id)
        if plan is None:
            raise PlanNotFound
        price, currency = await price_at(uow, plan, provider.name, period)
        if price <= 0:
            raise PlanNotForSale
        if provider.capabilities.currencies is not None and currency not in provider.capabilities.currencies:
            raise CurrencyNotTaken
        return Offer(
            plan=plan,
            billing_period=period,
            price=price,
            currency=currency,
            provider=provider.name,
            renews_by_itself=provider.capabilities.recurring,
        )

    def provider_of(self, subscription: Subscription) -> PaymentProvider:
        """Return the provider that a subscription is paid by, or the one that a purchase would use."""
        known = self._providers.get(subscription.payment_provider or "")
        return self._choose(None) if known is None else known

    def _choose(self, wanted: str | None) -> PaymentProvider:
        name = (wanted or self._default_provider).strip().lower()
        provider = self._providers.get(self._aliases.get(name, name))
        if provider is not None:
            return provider
        # In development without keys the sandbox stands in for Stripe, which is what the released clients name.
        default = self._providers.get(self._default_provider)
        stand_in = default if default is not None and default.capabilities.development_only else None
        if name != _STRIPE:
            taken = [*self._providers, *self._aliases, *(() if stand_in is None else (_STRIPE,))]
            raise ProviderNotSupported(list(dict.fromkeys(taken)))
        if stand_in is None:
            raise StripeNotConfigured
        return stand_in

    async def _record_intent(
        self, uow: UnitOfWork, actor: Principal, order: CheckoutOrder, *, provider: PaymentProvider, tenant_id: UUID
    ) -> tuple[CheckoutSession, CheckoutRequest]:
        offer = await self.offer(uow, plan_id=order.plan_id, period=order.billing_period, provider=provider)
        if order.currency not in (None, offer.currency):
            raise PriceInOtherCurrency(offer.currency)
        subscription = await locked_subscription(uow, Subscription.tenant_id == tenant_id)
        if subscription is None:
            raise SubscriptionNotFound
        await require_not_ending(uow, tenant_id)
        quoted = await quote(uow, subscription, offer)
        if quoted.effect is Effect.PERIOD_END:
            raise ChangeAtPeriodEnd(quoted.effective_at)
        checkout = _checkout(subscription, order, offer, quoted, actor=actor, now=uow.now)
        begun = await _open_one(uow, checkout)
        if begun is not None:
            checkout = begun
        else:
            uow.session.add(checkout)
            uow.audit(
                "checkout.started",
                actor_id=actor.user_id,
                tenant_id=tenant_id,
                subject=("checkout", checkout.id),
                details={
                    "plan": offer.plan.slug,
                    "billing_period": order.billing_period,
                    "provider": provider.name,
                    "kind": checkout.kind,
                },
            )
        # Of whoever has begun it: a provider that is asked twice for one purchase must be asked for the same.
        email = await uow.session.scalar(select(User.email).where(User.id == checkout.created_by))
        known_customer = subscription.payment_provider == provider.name
        return checkout, CheckoutRequest(
            checkout_id=checkout.id,
            begun_at=checkout.created_at,
            tenant_id=tenant_id,
            plan_id=offer.plan.id,
            plan_name=offer.plan.name,
            billing_period=order.billing_period.value,
            amount=checkout.amount,
            currency=checkout.currency,
            customer_email=email,
            customer_ref=subscription.external_customer_id if known_customer else None,
            success_url=order.success_url,
            cancel_url=order.cancel_url,
            renews=checkout.kind is CheckoutKind.PERIOD,
        )

    async def _give_up(self, tenant_id: UUID, checkout_id: UUID) -> None:
        async with self._units(TenantScope(tenant_id)) as uow:
            checkout = await _held(uow, checkout_id)
            checkout.tell(CheckoutState.FAILED, at=None)


def _checkout(
    subscription: Subscription, order: CheckoutOrder, offer: Offer, quoted: Quote, *, actor: Principal, now: datetime
) -> CheckoutSession:
    in_force = subscription.checkout
    is_change = quoted.effect is Effect.PAYMENT and in_force is not None
    continued = in_force.id if in_force is not None and (is_change or quoted.continues) else None
    return CheckoutSession(
        id=uuid4(),
        tenant_id=subscription.tenant_id,
        kind=CheckoutKind.CHANGE if is_change else CheckoutKind.PERIOD,
        plan_id=offer.plan.id,
        billing_period=order.billing_period,
        provider=offer.provider,
        amount=quoted.amount if is_change else offer.price,
        currency=offer.currency,
        price=offer.price,
        base_id=continued,
        root_id=in_force.period_purchase_id if is_change and in_force is not None else None,
        price_before=subscription.price if is_change else None,
        valid_until=subscription.current_period_end if is_change else None,
        restarts=is_change and quoted.restarts,
        state=CheckoutState.PENDING,
        success_url=order.success_url,
        cancel_url=order.cancel_url,
        created_by=actor.person_id,
        created_at=now,
        next_poll_at=now + poll_after(0),
    )


async def _open_one(uow: UnitOfWork, wanted: CheckoutSession) -> CheckoutSession | None:
    """Return a purchase that was begun for the same and can still be paid; the subscription's lock is held."""
    now = wanted.created_at
    can_be_paid = or_(
        CheckoutSession.expires_at > now + _TIME_TO_PAY,
        and_(CheckoutSession.session_id.is_(None), CheckoutSession.created_at > now - _TIME_TO_OPEN),
    )
    conditions = [
        CheckoutSession.tenant_id == wanted.tenant_id,
        CheckoutSession.state == CheckoutState.PENDING,
        CheckoutSession.received == 0,
        can_be_paid,
        ~is_withdrawn(),
    ]
    if wanted.kind is CheckoutKind.CHANGE:
        conditions.append(CheckoutSession.created_at > now - _SAME_PRICE)
    same = ("kind", "plan_id", "billing_period", "provider", "price", "currency", "success_url", "cancel_url")
    conditions += [getattr(CheckoutSession, name) == getattr(wanted, name) for name in same]
    conditions.append(CheckoutSession.base_id.is_not_distinct_from(wanted.base_id))
    begun: CheckoutSession | None = await uow.session.scalar(
        select(CheckoutSession).where(*conditions).order_by(CheckoutSession.created_at.desc()).limit(1)
    )
    return begun


async def _record_session(uow: UnitOfWork, request: CheckoutRequest, created: CheckoutCreated) -> None:
    subscription = await locked_subscription(uow, Subscription.tenant_id == request.tenant_id)
    checkout = await _held(uow, request.checkout_id)
    checkout.opening_until = None
    # Another page that the provider made for the same request may have been paid before this answer.
    if checkout.state is not CheckoutState.PAID:
        checkout.session_id, checkout.url = created.session_id, created.url
        checkout.expires_at = created.expires_at
    # A purchase in force keeps its own customer, by whom its renewals are found.
    if subscription is not None and subscription.external_subscription_id is None and created.customer_ref:
        subscription.payment_provider = checkout.provider
        subscription.external_customer_id = created.customer_ref


async def _held(uow: UnitOfWork, checkout_id: UUID) -> CheckoutSession:
    rows = await uow.session.scalars(select(CheckoutSession).where(CheckoutSession.id == checkout_id).with_for_update())
    return rows.one()
