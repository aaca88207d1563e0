"""Selling a plan: the intent is recorded, the provider is asked, its answer is recorded (contract.md 4.3, 4.4)."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID, uuid4

from sqlalchemy import select

from models.billing import BillingPeriod, CheckoutSession, CheckoutState, Plan, Subscription, SubscriptionStatus
from models.users import User
from providers.payments import (
    CheckoutCreated,
    CheckoutRequest,
    PaymentProvider,
    ProviderRejected,
    ProviderUnavailable,
)
from services.billing.errors import (
    AlreadySubscribed,
    CurrencyNotTaken,
    PlanNotForSale,
    PlanNotFound,
    PriceInOtherCurrency,
    ProviderNotSupported,
    StripeNotConfigured,
    SubscriptionNotFound,
)
from services.billing.lookup import locked_subscription
from services.billing.plans import plan_for_sale, price_at
from services.billing.views import CheckoutView
from services.identity import Principal, require_permission, require_tenant
from services.permissions import Permission
from services.unit_of_work import RequestTrace, TenantScope, UnitOfWork, UnitOfWorkFactory

_STRIPE = "stripe"


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
    ) -> None:
        self._units = units
        self._providers = providers
        self._default_provider = default_provider
        self._aliases = aliases

    async def start(self, actor: Principal, order: CheckoutOrder, *, trace: RequestTrace) -> CheckoutView:
        """Send the payer to the provider; for owners and admins.

        Raises:
            ProviderNotSupported, StripeNotConfigured: the provider asked for cannot be used.
            PlanNotFound, PlanNotForSale, CurrencyNotTaken, AlreadySubscribed: the plan cannot be bought.
            PriceInOtherCurrency: it can, but not in the currency that was named.
            SubscriptionNotFound: the tenant never had a subscription.
            ProviderRejected, ProviderUnavailable: the provider did not open a checkout.
        """
        tenant_id = require_tenant(actor)
        require_permission(actor.role, Permission.PLAN_BUY)
        provider = self._choose(order.provider)
        async with self._units(TenantScope(tenant_id), trace=trace) as uow:
            request = await self._record_intent(uow, actor, order, provider=provider, tenant_id=tenant_id)
        try:
            created = await provider.create_checkout(request)
        except (ProviderRejected, ProviderUnavailable):
            await self._give_up(tenant_id, request.checkout_id)
            raise
        async with self._units(TenantScope(tenant_id), trace=trace) as uow:
            await _record_session(uow, request, created)
        return CheckoutView(checkout_url=created.url, session_id=created.session_id)

    def _choose(self, wanted: str | None) -> PaymentProvider:
        name = (wanted or self._default_provider).strip().lower()
        provider = self._providers.get(self._aliases.get(name, name))
        if provider is not None:
            return provider
        if name != _STRIPE:
            real = [name for name, known in self._providers.items() if not known.capabilities.development_only]
            raise ProviderNotSupported(real)
        # In development without keys the sandbox stands in for Stripe, which is what the released clients name.
        default = self._providers.get(self._default_provider)
        if default is None or not default.capabilities.development_only:
            raise StripeNotConfigured
        return default

    async def _record_intent(
        self, uow: UnitOfWork, actor: Principal, order: CheckoutOrder, *, provider: PaymentProvider, tenant_id: UUID
    ) -> CheckoutRequest:
        plan = await plan_for_sale(uow, order.plan_id)
        if plan is None:
            raise PlanNotFound
        amount, currency = await price_at(uow, plan, provider.name, order.billing_period)
        if amount <= 0:
            raise PlanNotForSale
        if provider.capabilities.currencies is not None and currency not in provider.capabilities.currencies:
            raise CurrencyNotTaken
        if order.currency not in (None, currency):
            raise PriceInOtherCurrency(currency)
        subscription = await uow.session.scalar(select(Subscription).where(Subscription.tenant_id == tenant_id))
        if subscription is None:
            raise SubscriptionNotFound
        if self._renews_by_itself(subscription, plan, order.billing_period):
            raise AlreadySubscribed
        checkout = CheckoutSession(
            id=uuid4(),
            tenant_id=tenant_id,
            plan_id=plan.id,
            billing_period=order.billing_period,
            provider=provider.name,
            amount=amount,
            currency=currency,
            state=CheckoutState.PENDING,
            success_url=order.success_url,
            cancel_url=order.cancel_url,
            created_by=actor.user_id,
            created_at=uow.now,
        )
        uow.session.add(checkout)
        uow.audit(
            "checkout.started",
            actor_id=actor.user_id,
            tenant_id=tenant_id,
            subject=("checkout", checkout.id),
            details={"plan": plan.slug, "billing_period": order.billing_period, "provider": provider.name},
        )
        email = await uow.session.scalar(select(User.email).where(User.id == actor.user_id))
        known_customer = subscription.payment_provider == provider.name
        return CheckoutRequest(
            checkout_id=checkout.id,
            tenant_id=tenant_id,
            plan_id=plan.id,
            plan_name=plan.name,
            billing_period=order.billing_period.value,
            amount=checkout.amount,
            currency=checkout.currency,
            customer_email=email,
            customer_ref=subscription.external_customer_id if known_customer else None,
            success_url=order.success_url,
            cancel_url=order.cancel_url,
        )

    def _renews_by_itself(self, subscription: Subscription, plan: Plan, period: BillingPeriod) -> bool:
        provider = self._providers.get(subscription.payment_provider or "")
        return (
            provider is not None
            and provider.capabilities.recurring
            and subscription.status is SubscriptionStatus.ACTIVE
            and not subscription.cancel_at_period_end
            and (subscription.plan_id, subscription.billing_period) == (plan.id, period)
        )

    async def _give_up(self, tenant_id: UUID, checkout_id: UUID) -> None:
        async with self._units(TenantScope(tenant_id)) as uow:
            checkout = await _held(uow, checkout_id)
            checkout.tell(CheckoutState.FAILED, at=None)


async def _record_session(uow: UnitOfWork, request: CheckoutRequest, created: CheckoutCreated) -> None:
    subscription = await locked_subscription(uow, Subscription.tenant_id == request.tenant_id)
    checkout = await _held(uow, request.checkout_id)
    checkout.session_id, checkout.url = created.session_id, created.url
    checkout.expires_at = created.expires_at
    # A purchase in force keeps its own customer, by whom its renewals are found.
    if subscription is not None and subscription.external_subscription_id is None and created.customer_ref:
        subscription.payment_provider = checkout.provider
        subscription.external_customer_id = created.customer_ref


async def _held(uow: UnitOfWork, checkout_id: UUID) -> CheckoutSession:
    rows = await uow.session.scalars(select(CheckoutSession).where(CheckoutSession.id == checkout_id).with_for_update())
    return rows.one()
