"""Plans, the tenant's subscription, checkout and payments (contract.md 4.3)."""

from decimal import Decimal
from typing import Annotated
from uuid import UUID

from aiohttp import web
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from core.money import Money
from handlers.envelope import Envelope, ListEnvelope
from handlers.rest import Access, Call, PageQuery, Router, WireModel
from models.billing import BillingPeriod
from providers.payments import ProviderUnavailable
from services.billing import ChangeOrder, CheckoutOrder, PriceInput
from services.billing.errors import (
    AlreadySubscribed,
    CancellationPending,
    ChangeAtPeriodEnd,
    CreditNotFound,
    CreditSettled,
    NotEnding,
    NothingLeftToRefund,
    NothingPending,
    PaymentNotFound,
    PaymentOverdue,
    PlanNotFound,
    RefundIsTold,
    SubscriptionNotFound,
    SubscriptionOver,
)
from services.billing.purchases import CreditView, PurchaseView
from services.billing.refunds import PaymentRefundView
from services.billing.return_urls import check_return_url
from services.billing.views import (
    ChangeView,
    CheckoutView,
    InvoiceView,
    PlanPriceView,
    PricedPlanView,
    QuoteView,
    SubscriptionView,
)
from services.closed_tenants import TenantDeleted
from services.identity import SuperuserRequired
from services.permissions import KeyScope
from services.unit_of_work import PlatformScope

# Whoever has used up a plan finds the way to a larger one here.
router = Router(tag="billing", prefix="/api/v1/billing", counted=False)

_PERIOD_NAMES = {"month": "monthly", "year": "yearly", "annual": "yearly", "annually": "yearly"}
_DUES = PlatformScope("an operator sees what is owed to every tenant")
_CATALOGUE = PlatformScope("plans belong to nobody and are shown to everybody")


def _period_name(value: object) -> object:
    if not isinstance(value, str):
        return value
    name = value.strip().lower()
    return _PERIOD_NAMES.get(name, name)


def _none_if_blank(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


# Any case is taken, and the names of contract.md 5.4.
PeriodInput = Annotated[BillingPeriod, BeforeValidator(_period_name)]
ReturnUrl = Annotated[str, AfterValidator(check_return_url), Field(json_schema_extra={"format": "uri"})]
OptionalName = Annotated[Annotated[str, Field(max_length=50)] | None, BeforeValidator(_none_if_blank)]
Reason = Annotated[Annotated[str, Field(max_length=500)] | None, BeforeValidator(_none_if_blank)]
# A released client sends a map that may hold nulls.
FlagOrDefault = Annotated[bool, BeforeValidator(lambda value: True if value is None else value)]


_NOT_SOLD = (
    PlanNotFound,
    SubscriptionNotFound,
    AlreadySubscribed,
    CancellationPending,
    ChangeAtPeriodEnd,
    PaymentOverdue,
    TenantDeleted,
    ProviderUnavailable,
)


class SubscribeBody(WireModel):
    """On which terms to buy a plan.

    `payment_provider` may be left out: the configured one is meant. The addresses, where the payer returns to, are
    web pages or links into an app.
    """

    billing_period: PeriodInput = BillingPeriod.MONTHLY
    payment_provider: OptionalName = None
    success_url: ReturnUrl
    cancel_url: ReturnUrl

    def order(self, plan_id: UUID) -> CheckoutOrder:
        return CheckoutOrder(
            plan_id=plan_id,
            billing_period=self.billing_period,
            provider=self.payment_provider,
            success_url=self.success_url,
            cancel_url=self.cancel_url,
        )


class CheckoutBody(SubscribeBody):
    """Which plan to buy, and on which terms."""

    plan_id: UUID


class ChangePlanBody(WireModel):
    """Which plan is wanted. Without `billing_period` the present one stays.

    The addresses, where the payer returns to, are needed only where something is to be paid.
    """

    plan_id: UUID
    billing_period: PeriodInput | None = None
    success_url: ReturnUrl | None = None
    cancel_url: ReturnUrl | None = None

    def order(self) -> ChangeOrder:
        return ChangeOrder(
            plan_id=self.plan_id,
            billing_period=self.billing_period,
            success_url=self.success_url,
            cancel_url=self.cancel_url,
        )


class CancelBody(WireModel):
    """Why to cancel, and whether the paid period may still be used."""

    reason: Reason = None
    cancel_at_period_end: FlagOrDefault = True


class PriceBody(WireModel):
    """A price at one provider; `amount` is for one period, in the currency's major unit."""

    provider: Annotated[str, StringConstraints(to_lower=True, min_length=1, max_length=50, pattern="^[a-z_]+$")]
    billing_period: PeriodInput = BillingPeriod.MONTHLY
    amount: Annotated[Decimal, Field(gt=0, max_digits=10, decimal_places=2)]
    currency: Annotated[str, StringConstraints(to_upper=True, pattern="^[A-Za-z]{3}$")]


class PaymentRefundBody(WireModel):
    """How much to give back, in the currency's major unit; without an amount all that is left."""

    amount: Annotated[Money, Field(gt=0, max_digits=12, decimal_places=2)] | None = None


class CheckoutEnvelope(Envelope[CheckoutView]):
    """A checkout, also without the envelope for clients that read none (contract.md 1.7)."""

    checkout_url: str
    session_id: str


@router.get("/plans", answer=ListEnvelope[PricedPlanView], access=Access.PUBLIC)
async def list_plans(call: Call) -> web.Response:
    """Show the plans that are sold."""
    async with call.uow(_CATALOGUE) as uow:
        plans = await call.context.services.billing.plans(uow)
    return call.many(plans)


@router.post(
    "/plans/{plan_id}/prices",
    answer=Envelope[PlanPriceView],
    access=Access.USER,
    errors=(SuperuserRequired, PlanNotFound),
)
async def set_price(call: Call, plan_id: UUID, body: PriceBody) -> web.Response:
    """Say what a plan costs at one payment provider; for superusers."""
    price = PriceInput(
        plan_id=plan_id,
        provider=body.provider,
        billing_period=body.billing_period,
        amount=body.amount,
        currency=body.currency,
    )
    async with call.uow(_CATALOGUE) as uow:
        view = await call.context.services.billing.set_price(uow, call.actor, price)
    return call.ok(view)


@router.get(
    "/subscription",
    answer=Envelope[SubscriptionView],
    errors=(SubscriptionNotFound,),
    aliases=("/api/v1/billing/subscriptions",),
    scope=KeyScope.BILLING_READ,
)
async def show_subscription(call: Call) -> web.Response:
    """Show the subscription of the caller's tenant with its plan."""
    async with call.tenant_uow() as uow:
        view = await call.context.services.billing.subscription(uow, call.actor)
    return call.ok(view)


@router.post(
    "/checkout",
    answer=CheckoutEnvelope,
    errors=_NOT_SOLD,
    scope=KeyScope.BILLING_WRITE,
)
async def start_checkout(call: Call, body: CheckoutBody) -> web.Response:
    """Begin to buy a plan; for owners and admins."""
    return await _check_out(call, body.order(body.plan_id))


@router.post(
    "/plans/{plan_id}/subscribe",
    answer=CheckoutEnvelope,
    errors=_NOT_SOLD,
    scope=KeyScope.BILLING_WRITE,
)
async def subscribe(call: Call, plan_id: UUID, body: SubscribeBody) -> web.Response:
    """Begin to buy the plan named in the path; for owners and admins."""
    return await _check_out(call, body.order(plan_id))


@router.post(
    "/cancel",
    answer=Envelope[SubscriptionView],
    errors=(SubscriptionNotFound, SubscriptionOver),
    body_required=False,
)
async def cancel(call: Call, body: CancelBody) -> web.Response:
    """Cancel the subscription, at the end of its period unless told otherwise; for the owner."""
    view = await call.context.services.billing.cancel(
        call.actor, reason=body.reason, at_period_end=body.cancel_at_period_end, trace=call.trace
    )
    return call.ok(view)


@router.post(
    "/reinstate",
    answer=Envelope[SubscriptionView],
    errors=(SubscriptionNotFound, SubscriptionOver, NotEnding, TenantDeleted),
)
async def reinstate(call: Call) -> web.Response:
    """Take back that the subscription ends with its period; for the owner."""
    return call.ok(await call.context.services.billing.reinstate(call.actor, trace=call.trace))


@router.post("/change-plan/preview", answer=Envelope[QuoteView], errors=_NOT_SOLD, scope=KeyScope.BILLING_WRITE)
async def preview_change(call: Call, body: ChangePlanBody) -> web.Response:
    """Tell what another plan would cost now and when it would begin; for owners and admins."""
    async with call.tenant_uow() as uow:
        view = await call.context.services.billing.preview_change(uow, call.actor, body.order())
    return call.ok(view)


@router.post("/change-plan", answer=Envelope[ChangeView], errors=_NOT_SOLD, scope=KeyScope.BILLING_WRITE)
async def change_plan(call: Call, body: ChangePlanBody) -> web.Response:
    """Change the plan: at once, by a payment, or when the paid period ends; for owners and admins."""
    return call.ok(await call.context.services.billing.change_plan(call.actor, body.order(), trace=call.trace))


@router.delete(
    "/change-plan",
    answer=Envelope[SubscriptionView],
    errors=(SubscriptionNotFound, NothingPending),
    scope=KeyScope.BILLING_WRITE,
)
async def withdraw_change(call: Call) -> web.Response:
    """Take back a change of plan that has yet to come; for owners and admins."""
    return call.ok(await call.context.services.billing.withdraw_change(call.actor, trace=call.trace))


@router.get(
    "/invoices", answer=ListEnvelope[InvoiceView], aliases=("/api/v1/billing/payments",), scope=KeyScope.BILLING_READ
)
async def list_invoices(call: Call, query: PageQuery) -> web.Response:
    """Show the tenant's payments, refunds and disputes, newest first; for owners and admins."""
    async with call.tenant_uow() as uow:
        page = await call.context.services.billing.invoices(uow, call.actor, query.request())
    return call.page(page)


@router.get("/checkouts", answer=ListEnvelope[PurchaseView], scope=KeyScope.BILLING_READ)
async def list_purchases(call: Call, query: PageQuery) -> web.Response:
    """Show what the tenant began to buy and what came of it, newest first; for owners and admins."""
    async with call.tenant_uow() as uow:
        page = await call.context.services.billing.purchases(uow, call.actor, query.request())
    return call.page(page)


@router.get("/credits", answer=ListEnvelope[CreditView], access=Access.USER, errors=(SuperuserRequired,))
async def list_credits(call: Call, query: PageQuery) -> web.Response:
    """Show money that came without buying anything and is not settled, oldest first; for superusers."""
    async with call.uow(_DUES) as uow:
        page = await call.context.services.billing.credits(uow, call.actor, query.request())
    return call.page(page)


@router.post(
    "/credits/{credit_id}/settle",
    answer=Envelope[CreditView],
    access=Access.USER,
    errors=(SuperuserRequired, CreditNotFound, CreditSettled),
)
async def settle_credit(call: Call, credit_id: UUID) -> web.Response:
    """Note that such money was given back or credited; for superusers."""
    async with call.uow(_DUES) as uow:
        view = await call.context.services.billing.settle_credit(uow, call.actor, credit_id=credit_id)
    return call.ok(view)


@router.post(
    "/payments/{payment_id}/refund",
    answer=Envelope[PaymentRefundView],
    access=Access.USER,
    body_required=False,
    errors=(SuperuserRequired, PaymentNotFound, NothingLeftToRefund, RefundIsTold, ProviderUnavailable),
)
async def refund_payment(call: Call, payment_id: UUID, body: PaymentRefundBody) -> web.Response:
    """Give a payment back at BTCPay Server, or note that it was, by hand, at Coinbase Commerce; for superusers."""
    view = await call.context.services.billing.refund(call.actor, payment_id, body.amount, trace=call.trace)
    return call.ok(view)


async def _check_out(call: Call, order: CheckoutOrder) -> web.Response:
    view = await call.context.services.billing.checkout(call.actor, order, trace=call.trace)
    return call.ok(view, flat=("checkout_url", "session_id"))
