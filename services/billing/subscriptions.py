"""The tenant's own subscription: its trial, what it shows, and its cancellation (contract.md 4.3, 4.4)."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import and_, func, select

from core.pagination import Page, PageRequest
from models.billing import PaymentEvent, Plan, Subscription
from models.tenants import Tenant
from services.billing.announcer import Announcer
from services.billing.change_facts import close_changes
from services.billing.errors import NotEnding, SubscriptionNotFound, SubscriptionOver
from services.billing.instructions import Instructions, addressee_of
from services.billing.lookup import locked_subscription, subscriptions_with_plan
from services.billing.plans import trial_plan
from services.billing.views import InvoiceView, SubscriptionView
from services.closed_tenants import require_not_ending
from services.identity import Principal, require_may, require_oneself, require_tenant
from services.permissions import Permission
from services.unit_of_work import RequestTrace, TenantScope, UnitOfWork, UnitOfWorkFactory


class Subscriptions:
    """The use cases of a tenant's people."""

    def __init__(self, units: UnitOfWorkFactory, *, announcer: Announcer, instructions: Instructions) -> None:
        self._units = units
        self._announcer = announcer
        self._instructions = instructions

    async def start_trial(self, uow: UnitOfWork, tenant: Tenant) -> Subscription:
        """Give a new tenant its trial; `tenant` must be in the database already."""
        subscription = Subscription.trial(tenant.id, await trial_plan(uow), now=uow.now)
        subscription.id = uuid4()
        uow.session.add(subscription)
        uow.audit(
            "subscription.trial_started",
            actor_id=None,
            tenant_id=tenant.id,
            subject=("subscription", subscription.id),
        )
        return subscription

    async def grant(self, uow: UnitOfWork, tenant: Tenant, *, plan_slug: str, until: datetime) -> None:
        """Give a tenant in its trial a plan without a payment; anything but a trial is left alone."""
        subscription = await locked_subscription(uow, Subscription.tenant_id == tenant.id)
        plan = (await uow.session.scalars(select(Plan).where(Plan.slug == plan_slug))).one()
        if subscription is not None and subscription.grant(plan, until=until, now=uow.now):
            uow.audit(
                "subscription.granted",
                actor_id=None,
                tenant_id=tenant.id,
                subject=("subscription", subscription.id),
                details={"plan": plan.slug, "until": until.isoformat()},
            )

    async def view(self, uow: UnitOfWork, tenant_id: UUID) -> SubscriptionView | None:
        """Show a tenant's subscription."""
        subscription = await uow.session.scalar(subscriptions_with_plan(Subscription.tenant_id == tenant_id))
        return None if subscription is None else SubscriptionView.of(subscription)

    async def invoices(self, uow: UnitOfWork, actor: Principal, page: PageRequest) -> Page[InvoiceView]:
        """Show the tenant's movements of money, newest first; for owners and admins."""
        tenant_id = require_tenant(actor)
        require_may(actor, Permission.INVOICES_READ)
        # A refund that failed stays as a row that holds nothing.
        own = and_(PaymentEvent.tenant_id == tenant_id, PaymentEvent.amount != 0)
        total = await uow.session.scalar(select(func.count()).select_from(PaymentEvent).where(own))
        rows = await uow.session.scalars(
            select(PaymentEvent)
            .where(own)
            .order_by(PaymentEvent.created_at.desc(), PaymentEvent.id)
            .offset(page.offset)
            .limit(page.size)
        )
        return Page(items=[InvoiceView.of(row) for row in rows], total=total or 0, request=page)

    async def cancel(
        self, actor: Principal, *, reason: str | None, at_period_end: bool, trace: RequestTrace
    ) -> SubscriptionView:
        """Cancel the subscription, now or when its period ends; for the owner.

        The decision holds at once. A provider that charges is told after it is committed, by the sweeper if it is
        away just now. Cancelling at the period's end twice changes nothing. Cancelling at once closes the pages at
        which something could still be paid.
        Raises SubscriptionNotFound, SubscriptionOver and Impersonated.
        """
        tenant_id = require_tenant(actor)
        require_may(actor, Permission.PLAN_CANCEL)
        require_oneself(actor)
        async with self._units(TenantScope(tenant_id), trace=trace) as uow:
            subscription = await locked_subscription(uow, Subscription.tenant_id == tenant_id)
            if subscription is None:
                raise SubscriptionNotFound
            if subscription.is_over:
                raise SubscriptionOver
            instruction_ids: list[UUID] = []
            addressee = addressee_of(subscription)
            decided = await self._decide(uow, actor, subscription, reason=reason, at_period_end=at_period_end)
            if decided and addressee is not None:
                instruction_ids.append(await self._instructions.cancel(uow, addressee, at_period_end=at_period_end))
            if not at_period_end:
                await close_changes(uow, subscription)
                instruction_ids += await self._instructions.withdraw_pages(uow, tenant_id)
            view = SubscriptionView.of(subscription)
        for instruction_id in instruction_ids:
            await self._instructions.carry_out(instruction_id)
        return view

    async def reinstate(self, actor: Principal, *, trace: RequestTrace) -> SubscriptionView:
        """Take back that the subscription ends with its period; for the owner.

        Raises SubscriptionNotFound, SubscriptionOver once it has ended, NotEnding, TenantDeleted and Impersonated.
        """
        tenant_id = require_tenant(actor)
        require_may(actor, Permission.PLAN_CANCEL)
        require_oneself(actor)
        async with self._units(TenantScope(tenant_id), trace=trace) as uow:
            subscription = await locked_subscription(uow, Subscription.tenant_id == tenant_id)
            if subscription is None:
                raise SubscriptionNotFound
            if subscription.is_over:
                raise SubscriptionOver
            await require_not_ending(uow, tenant_id)
            if not subscription.reinstate(now=uow.now):
                raise NotEnding
            addressee = addressee_of(subscription)
            instruction_id = None if addressee is None else await self._instructions.resume(uow, addressee)
            uow.audit(
                "subscription.reinstated",
                actor_id=actor.user_id,
                tenant_id=tenant_id,
                subject=("subscription", subscription.id),
            )
            self._announcer.subscription_updated(uow, subscription)
            await self._announcer.notify(uow, "subscription_reinstated", subscription)
            view = SubscriptionView.of(subscription)
        if instruction_id is not None:
            await self._instructions.carry_out(instruction_id)
        return view

    async def _decide(
        self,
        uow: UnitOfWork,
        actor: Principal,
        subscription: Subscription,
        *,
        reason: str | None,
        at_period_end: bool,
    ) -> bool:
        if not at_period_end:
            subscription.cancel_now(reason=reason, now=uow.now)
        elif not subscription.cancel_later(reason=reason, now=uow.now):
            return False
        uow.audit(
            "subscription.cancelled",
            actor_id=actor.user_id,
            tenant_id=subscription.tenant_id,
            subject=("subscription", subscription.id),
            details={"at_period_end": at_period_end, "reason": reason},
        )
        self._announcer.subscription_updated(uow, subscription)
        if at_period_end:
            await self._announcer.notify(uow, "subscription_ending", subscription, date=subscription.ends_at)
        else:
            await self._announcer.notify(uow, "subscription_cancelled", subscription)
        return True
