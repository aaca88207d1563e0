"""Billing: plans, the tenant's subscription, and the money that comes for it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from uuid import UUID

from core.pagination import Page, PageRequest
from models.billing import Subscription
from models.dunning import patience
from models.inbox import InboxState
from models.tenants import Tenant
from providers.payments import PaymentProvider
from services.billing.announcer import Announcer
from services.billing.apply import FactApplier
from services.billing.checkout import CheckoutOrder, Checkouts
from services.billing.errors import SubscriptionNotFound
from services.billing.export import PaymentExport
from services.billing.forgetting import Forgetting
from services.billing.inbox import Inbox, MerchantEvents
from services.billing.instructions import Instructions
from services.billing.money import MoneyFacts
from services.billing.plan_changes import ChangeOrder, PlanChanges
from services.billing.plans import PriceInput, plans_for_sale, seed_plans, set_price
from services.billing.provider_events import ProviderEventView, list_provider_events, resend_provider_event
from services.billing.purchases import CreditView, PurchaseView, list_credits, list_purchases, settle_credit
from services.billing.reconciling import Reconciling
from services.billing.refunds import PaymentRefundView, Refunds
from services.billing.sandbox import SandboxDesk
from services.billing.subscribing import SubscribeInput, Subscribing, require_subscriber
from services.billing.subscriptions import Subscriptions
from services.billing.sweeper import DUNNING, Sweeper
from services.billing.views import (
    ChangeView,
    CheckoutView,
    InvoiceView,
    PlanPriceView,
    PricedPlanView,
    QuoteView,
    SubscriptionView,
)
from services.billing.winding_up import WindingUp
from services.documents import DocumentService
from services.identity import Principal, require_tenant
from services.mail import MailService
from services.notifications import NotificationService
from services.unit_of_work import RequestTrace, UnitOfWork, UnitOfWorkFactory
from services.verification import NOT_REQUIRED, Verification

__all__ = ["BillingService", "ChangeOrder", "CheckoutOrder", "PriceInput", "SubscribeInput"]


class BillingService:
    """All use cases of billing in one place; each is told in the module that carries it out.

    Args:
        units: for the use cases that speak to providers between two units of work, and for the workers.
        providers: those that have what they need to work, by name. Without "stripe" among them its checkout and its
            webhook answer that it is not configured; in development the sandbox then stands in for its checkout.
        default_provider: the name that a checkout uses when it names none.
        aliases: further names that a checkout may use.
        known: all providers that may be given keys, whether they have been or not, and the header that the webhooks of
            each are known by.
        dunning: how long after a failed renewal it is tried again, and each time after that.
        verification: whether buying asks for a confirmed address.
        keep_events: how long the content of providers' events is kept.
        reconcile_hour: from which hour of the day (UTC) on every provider is compared with what we hold.
        notifications: keeps what people are told.
        documents: issues our papers of the money that is booked.
        mail: writes to the platform's people when an event is given up.
        grace: how long a subscription's entitlements outlive it.
        merchants: understands the events of merchants' own accounts.
        return_url: where payers return to who were sent by a client that names no place.
    """

    def __init__(
        self,
        *,
        units: UnitOfWorkFactory,
        providers: Mapping[str, PaymentProvider],
        default_provider: str,
        notifications: NotificationService,
        documents: DocumentService,
        mail: MailService,
        aliases: Mapping[str, str] | None = None,
        known: Mapping[str, str | None] = MappingProxyType({}),
        dunning: Sequence[timedelta] = DUNNING,
        verification: Verification = NOT_REQUIRED,
        keep_events: timedelta = timedelta(days=30),
        reconcile_hour: int = 3,
        grace: timedelta = timedelta(days=3),
        merchants: MerchantEvents | None = None,
        return_url: str = "",
    ) -> None:
        self._providers, self._aliases, self._known = providers, aliases or {}, known
        announcer = self.announcer = Announcer(notifications, mail=mail, grace=grace)
        self._instructions = Instructions(units, providers, announcer)
        self._subscriptions = Subscriptions(units, announcer=announcer, instructions=self._instructions)
        self._checkouts = Checkouts(
            units,
            providers=providers,
            default_provider=default_provider,
            aliases=self._aliases,
            verification=verification,
            instructions=self._instructions,
        )
        self._subscribing = Subscribing(units, checkouts=self._checkouts, return_url=return_url)
        self._changes = PlanChanges(
            units,
            providers=providers,
            checkouts=self._checkouts,
            announcer=announcer,
            instructions=self._instructions,
        )
        applier = FactApplier(
            providers=providers,
            announcer=announcer,
            instructions=self._instructions,
            served_for=patience(dunning),
            documents=documents,
        )
        self._inbox = Inbox(
            units,
            providers=providers,
            known=known,
            applier=applier,
            announcer=announcer,
            instructions=self._instructions,
            merchants=merchants,
        )
        self._sweeper = Sweeper(
            units, providers=providers, announcer=announcer, instructions=self._instructions, dunning=dunning
        )
        self._forgetting = Forgetting(units, keep=keep_events)
        self.winding_up = WindingUp(announcer=announcer, instructions=self._instructions)
        self.reconciling = Reconciling(
            units, providers=providers, aliases=self._aliases, merchants=merchants, nightly_hour=reconcile_hour
        )
        self.sandbox = SandboxDesk(providers)
        self._refunds = Refunds(units, providers=providers, money=MoneyFacts(announcer, documents))
        self._documents = documents
        self._payments = PaymentExport(units, documents)

    async def plans(self, uow: UnitOfWork) -> list[PricedPlanView]:
        """Show the plans that are sold, in their order."""
        return await plans_for_sale(uow)

    async def set_price(self, uow: UnitOfWork, actor: Principal, price: PriceInput) -> PlanPriceView:
        """Say what a plan costs at one provider; see `set_price`. Needs a PlatformScope."""
        meant = replace(price, provider=self._aliases.get(price.provider, price.provider))
        return await set_price(uow, actor, meant, providers={*self._known, *self._providers})

    async def seed_plans(self, uow: UnitOfWork) -> None:
        """Add the first day's plans that are missing; harmless when repeated."""
        await seed_plans(uow)

    async def start_trial(self, uow: UnitOfWork, tenant: Tenant) -> Subscription:
        """Give a new tenant its trial; `tenant` must be in the database already."""
        return await self._subscriptions.start_trial(uow, tenant)

    async def grant(self, uow: UnitOfWork, tenant: Tenant, *, plan_slug: str, until: datetime) -> None:
        """Give a tenant in its trial a plan without a payment (demo accounts); harmless when repeated."""
        await self._subscriptions.grant(uow, tenant, plan_slug=plan_slug, until=until)

    async def subscription_view(self, uow: UnitOfWork, tenant_id: UUID) -> SubscriptionView | None:
        """Show a tenant's subscription, if it has one; the caller has checked who asks."""
        return await self._subscriptions.view(uow, tenant_id)

    async def subscription(self, uow: UnitOfWork, actor: Principal) -> SubscriptionView:
        """Show the subscription of the caller's tenant; raises SubscriptionNotFound."""
        view = await self._subscriptions.view(uow, require_tenant(actor))
        if view is None:
            raise SubscriptionNotFound
        return view

    async def invoices(self, uow: UnitOfWork, actor: Principal, page: PageRequest) -> Page[InvoiceView]:
        """Show the tenant's movements of money, newest first; for owners and admins."""
        found = await self._subscriptions.invoices(uow, actor, page)
        papers = await self._documents.of_movements(uow, [payment.id for payment in found.items])
        shown = [payment.with_paper(papers.get(payment.id)) for payment in found.items]
        return Page(items=shown, total=found.total, request=found.request)

    def invoices_csv(self, actor: Principal, *, trace: RequestTrace) -> AsyncIterator[bytes]:
        """Return the tenant's movements of money as CSV in pieces; for owners and admins. Opens units of its own."""
        return self._payments.write(actor, trace=trace)

    async def purchases(self, uow: UnitOfWork, actor: Principal, page: PageRequest) -> Page[PurchaseView]:
        """Show what the tenant began to buy, newest first; for owners and admins."""
        return await list_purchases(uow, actor, page)

    async def credits(self, uow: UnitOfWork, actor: Principal, page: PageRequest) -> Page[CreditView]:
        """Show superusers what is owed to tenants; needs a PlatformScope."""
        return await list_credits(uow, actor, page)

    async def settle_credit(self, uow: UnitOfWork, actor: Principal, *, credit_id: UUID) -> CreditView:
        """Note that a credit was dealt with; see `settle_credit`. Needs a PlatformScope."""
        return await settle_credit(uow, actor, credit_id=credit_id)

    async def refund(
        self, actor: Principal, payment_id: UUID, amount: Decimal | None, *, trace: RequestTrace
    ) -> PaymentRefundView:
        """Give a payment back; see `Refunds.refund`. Opens units of work of its own."""
        return await self._refunds.refund(actor, payment_id, amount, trace=trace)

    async def checkout(self, actor: Principal, order: CheckoutOrder, *, trace: RequestTrace) -> CheckoutView:
        """Begin a purchase; see `Checkouts.start`. Opens units of work of its own."""
        return await self._checkouts.start(actor, order, trace=trace)

    def require_subscriber(self, actor: Principal, tenant_id: UUID | None) -> UUID:
        """Return the tenant for which the caller may buy; see `require_subscriber`."""
        return require_subscriber(actor, tenant_id)[1]

    async def subscribe(self, actor: Principal, wanted: SubscribeInput, *, trace: RequestTrace) -> CheckoutView:
        """Begin to buy a plan by its name; see `Subscribing.start`. Opens units of work of its own."""
        return await self._subscribing.start(actor, wanted, trace=trace)

    async def cancel(
        self, actor: Principal, *, reason: str | None, at_period_end: bool, trace: RequestTrace
    ) -> SubscriptionView:
        """Cancel the subscription; see `Subscriptions.cancel`. Opens units of work of its own."""
        return await self._subscriptions.cancel(actor, reason=reason, at_period_end=at_period_end, trace=trace)

    async def reinstate(self, actor: Principal, *, trace: RequestTrace) -> SubscriptionView:
        """Take a cancellation back; see `Subscriptions.reinstate`. Opens units of work of its own."""
        return await self._subscriptions.reinstate(actor, trace=trace)

    async def preview_change(self, uow: UnitOfWork, actor: Principal, order: ChangeOrder) -> QuoteView:
        """Tell what a change of plan would cost; see `PlanChanges.preview`."""
        return await self._changes.preview(uow, actor, order)

    async def change_plan(self, actor: Principal, order: ChangeOrder, *, trace: RequestTrace) -> ChangeView:
        """Change the plan; see `PlanChanges.change`. Opens units of work of its own."""
        return await self._changes.change(actor, order, trace=trace)

    async def withdraw_change(self, actor: Principal, *, trace: RequestTrace) -> SubscriptionView:
        """Take back a change that has yet to come; see `PlanChanges.withdraw`. Opens units of work of its own."""
        return await self._changes.withdraw(actor, trace=trace)

    def sender(self, headers: Mapping[str, str]) -> str:
        """Name the provider whose signature a webhook carries; see `Inbox.sender`."""
        return self._inbox.sender(headers)

    async def receive(self, provider: str, *, body: bytes, headers: Mapping[str, str], trace: RequestTrace) -> bool:
        """Store a provider's signed event once; see `Inbox.receive`. Opens a unit of work of its own."""
        return await self._inbox.receive(provider, body=body, headers=headers, trace=trace)

    async def provider_events(
        self, uow: UnitOfWork, actor: Principal, page: PageRequest, *, state: InboxState
    ) -> Page[ProviderEventView]:
        """Show the inbox to superusers; needs a PlatformScope."""
        return await list_provider_events(uow, actor, page, state=state)

    async def resend(self, uow: UnitOfWork, actor: Principal, *, row_id: UUID) -> ProviderEventView:
        """Let a dead event be tried again; see `resend_provider_event`. Needs a PlatformScope."""
        return await resend_provider_event(uow, actor, row_id=row_id)

    async def apply(self, event_row_id: UUID) -> None:
        """Put a stored event into effect; see `Inbox.apply`. For the worker."""
        await self._inbox.apply(event_row_id)

    async def apply_merchants(self, event_row_id: UUID) -> None:
        """Put a stored event of a merchant's account into effect; see `Inbox.apply`. For the worker."""
        await self._inbox.apply(event_row_id)

    async def sweep(self) -> None:
        """Do what time has made due: events, warnings, ends, and orders to providers. For the scheduler."""
        await self._inbox.sweep()
        await self._sweeper.sweep()
        await self._instructions.sweep()

    async def prune(self) -> int:
        """Remove the content of old events; returns of how many. For the scheduler."""
        return await self._forgetting.prune()
