"""Crypto billing: merchants' accounts and orders, their payment and its webhooks, and buying a plan (contract.md 4.6).

Bare answers in camel case; amounts are texts, never numbers.
"""

from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from aiohttp import web
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from core.errors import RateLimited
from handlers.envelope import MessageEnvelope
from handlers.free_form import read_free_form
from handlers.parsing import PayloadTooLarge
from handlers.rest import Access, Call, PageQuery, Router, WireModel, raw
from handlers.webhooks import raw_body, refusals_limited
from models.orders import OrderStatus
from providers.payments import BadPayload, BadSignature, ProviderRejected, ProviderUnavailable
from services.billing import SubscribeInput
from services.billing.errors import (
    AlreadySubscribed,
    CurrencyNotTaken,
    PlanNotForSale,
    PlanNotFound,
    PriceInOtherCurrency,
    SubscriptionNotFound,
    TenantUnknown,
    WebhookUnknown,
)
from services.billing.return_urls import check_return_url
from services.closed_tenants import TenantDeleted
from services.identity import Impersonated, RoleRequired, SuperuserRequired
from services.merchants import AccountInput, MerchantService, OrderInput, PayInput, RefundInput
from services.merchants.errors import (
    IntegrationNotFound,
    InvoiceBeingOpened,
    KeysUnreadable,
    NoAccount,
    NothingToRefund,
    OrderAmountDiffers,
    OrderExists,
    OrderNotFound,
    OrderPaidAlready,
    ProviderNotOffered,
    RefundUnderWay,
)
from services.merchants.views import (
    CommissionListView,
    IntegrationsView,
    IntegrationView,
    OrderListView,
    OrderView,
    UrlView,
)
from services.step_up import StepUpRequired
from services.tenants.errors import NoTenantAccess

router = Router(tag="merchants")

_TENANT = "/api/tenant"
_PROVIDER = f"{_TENANT}/payments/provider"
_WEBHOOK = f"{_TENANT}/payments/webhook"
_ORDERS = f"{_TENANT}/orders"
_LIMIT = "payments_per_tenant"
_WEBHOOK_ERRORS = (BadSignature, BadPayload, WebhookUnknown, PayloadTooLarge, KeysUnreadable, RateLimited)


def _none_if_blank(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


# Texts alone: a number of JSON has lost its last decimal before we see it.
Amount = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}(\.[0-9]{1,18})?$")]
Currency = Annotated[str, StringConstraints(to_upper=True, pattern=r"^[A-Za-z][A-Za-z0-9]{2,4}$")]
# What is sent in headers and addresses holds nothing that would end them; only a private key has several lines.
Key = Annotated[str, StringConstraints(max_length=8192, pattern=r"^[\x20-\x7e]*$")]
PrivateKey = Annotated[str, StringConstraints(max_length=8192, pattern=r"^[\x20-\x7e\r\n]*$")]
StoreId = Annotated[str, StringConstraints(max_length=100, pattern=r"^[A-Za-z0-9_-]*$")]
Name = Annotated[Annotated[str, Field(max_length=255)] | None, BeforeValidator(_none_if_blank)]
ReturnUrl = Annotated[
    Annotated[str, AfterValidator(check_return_url), Field(json_schema_extra={"format": "uri"})] | None,
    BeforeValidator(_none_if_blank),
]
ProviderName = Annotated[str, BeforeValidator(_lower), StringConstraints(max_length=50)]


class CamelBody(WireModel):
    """A body in camel case; snake case is read too."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class SubscribeBody(CamelBody):
    """Which plan to buy: its id, its slug, or `slug-monthly` and `slug-yearly`. `tenantId` is for superusers."""

    plan_id: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    currency: Currency
    tenant_id: UUID | None = None


class ProviderBody(CamelBody):
    """A merchant's account and what opens it, which is never shown again.

    `host`, `storeId`, `apiKey` and `webhookSecret` of a BTCPay Server; `apiKey` and `webhookSecret` of Coinbase
    Commerce; `keyId`, `keySecret` and `webhookSecret` of Coinbase Business. They may also stand in an object `keys`.
    """

    provider: ProviderName
    host: Key = ""
    store_id: StoreId = ""
    api_key: Key = ""
    key_id: Key = ""
    key_secret: PrivateKey = ""
    webhook_secret: Key = ""
    return_url: ReturnUrl = None

    @model_validator(mode="before")
    @classmethod
    def _unpack(cls, value: object) -> object:
        keys = value.get("keys") if isinstance(value, dict) else None
        return {**keys, **value} if isinstance(value, dict) and isinstance(keys, dict) else value

    def account(self) -> AccountInput:
        keys = self.model_dump(exclude={"provider", "return_url"})
        return AccountInput(provider=self.provider, keys=keys, return_url=self.return_url)


class ProviderQuery(BaseModel):
    """Which account; without a name the one at which orders are paid."""

    provider: ProviderName | None = None


class WebhookQuery(BaseModel):
    """Whose account: the id or the slug of a tenant."""

    tenant: Annotated[str, StringConstraints(max_length=100)] = ""


class OrderBody(CamelBody):
    """What a customer owes; `items` are kept as they are."""

    amount: Amount
    currency: Currency
    items: Annotated[list[dict[str, Any]], BeforeValidator(read_free_form), Field(max_length=500)] = Field(
        default_factory=list
    )
    note: Annotated[str | None, Field(max_length=2000)] = None
    external_reference: Name = None


class OrderQuery(PageQuery):
    """Which orders to show."""

    status: OrderStatus | None = None
    reference: Name = None


class PayBody(CamelBody):
    """What is to be paid, which must be what the order costs; the customer returns to the addresses."""

    currency: Currency
    amount: Amount
    success_url: ReturnUrl = None
    cancel_url: ReturnUrl = None


class RefundBody(CamelBody):
    """How much to give back, without an amount all that is left; `invoiceId` names another than the paid invoice."""

    amount: Amount | None = None
    invoice_id: UUID | None = None


@router.post(
    "/api/billing/subscribe",
    answer=UrlView,
    access=Access.USER,
    errors=(
        PlanNotFound,
        PlanNotForSale,
        CurrencyNotTaken,
        PriceInOtherCurrency,
        SubscriptionNotFound,
        TenantUnknown,
        AlreadySubscribed,
        TenantDeleted,
        RoleRequired,
        SuperuserRequired,
        ProviderRejected,
        ProviderUnavailable,
    ),
)
async def subscribe(call: Call, body: SubscribeBody) -> web.Response:
    """Begin to buy a plan at the configured payment provider; for owners and admins, for superusers in any tenant."""
    billing = call.context.services.billing
    # Counted for those only who may act for the tenant, here and below, or else anybody could use up what it may.
    await call.limit(_LIMIT, str(billing.require_subscriber(call.actor, body.tenant_id)))
    wanted = SubscribeInput(plan=body.plan_id, currency=body.currency, tenant_id=body.tenant_id)
    view = await billing.subscribe(call.actor, wanted, trace=call.trace)
    return raw(UrlView(url=view.checkout_url).plain())


@router.post(
    _PROVIDER,
    answer=IntegrationView,
    errors=(ProviderNotOffered, TenantDeleted, RoleRequired, StepUpRequired, Impersonated, NoTenantAccess),
)
async def set_provider(call: Call, body: ProviderBody) -> web.Response:
    """Set up the account at which orders are paid, or replace its keys; for owners, who may have to step up."""
    merchants = await _merchants(call)
    async with call.tenant_uow() as uow:
        tenant_id = await merchants.integrations.require_keeper(uow, call.actor)
    await call.limit(_LIMIT, str(tenant_id))
    view = await merchants.integrations.put(call.actor, body.account(), trace=call.trace)
    return raw(view.plain())


@router.get(_PROVIDER, answer=IntegrationsView, errors=(IntegrationNotFound, RoleRequired, NoTenantAccess))
async def show_provider(call: Call) -> web.Response:
    """Show the tenant's accounts without their keys; for owners."""
    merchants = await _merchants(call)
    async with call.tenant_uow() as uow:
        view = await merchants.integrations.show(uow, call.actor)
    return raw(view.plain())


@router.delete(
    _PROVIDER,
    answer=MessageEnvelope,
    errors=(IntegrationNotFound, RoleRequired, StepUpRequired, Impersonated, NoTenantAccess),
)
async def remove_provider(call: Call, query: ProviderQuery) -> web.Response:
    """Delete an account with its keys, and follow its invoices no more; as it is set up."""
    merchants = await _merchants(call)
    async with call.tenant_uow() as uow:
        await merchants.integrations.remove(uow, call.actor, provider=query.provider)
    return call.message("Payment provider removed")


@router.post(_ORDERS, answer=OrderView, status=201, errors=(OrderExists, TenantDeleted, RoleRequired, NoTenantAccess))
async def create_order(call: Call, body: OrderBody) -> web.Response:
    """Make an order; for owners and admins."""
    merchants = await _merchants(call)
    wanted = OrderInput(
        amount=Decimal(body.amount),
        currency=body.currency,
        items=body.items,
        note=body.note,
        external_reference=body.external_reference,
    )
    async with call.tenant_uow() as uow:
        view = await merchants.create_order(uow, call.actor, wanted)
    return raw(view.plain(), status=201)


@router.get(_ORDERS, answer=OrderListView, errors=(RoleRequired, NoTenantAccess))
async def list_orders(call: Call, query: OrderQuery) -> web.Response:
    """List the tenant's orders, newest first; for owners and admins."""
    merchants = await _merchants(call)
    async with call.tenant_uow() as uow:
        view = await merchants.orders(uow, call.actor, query.request(), status=query.status, reference=query.reference)
    return raw(view.plain())


@router.get(_ORDERS + "/{order_id}", answer=OrderView, errors=(OrderNotFound, RoleRequired, NoTenantAccess))
async def show_order(call: Call, order_id: UUID) -> web.Response:
    """Show an order with its invoices, and what must go back to the customer; for owners and admins."""
    merchants = await _merchants(call)
    async with call.tenant_uow() as uow:
        view = await merchants.order(uow, call.actor, order_id=order_id)
    return raw(view.plain())


@router.post(
    _ORDERS + "/{order_id}/pay",
    answer=UrlView,
    errors=(
        OrderNotFound,
        OrderPaidAlready,
        OrderAmountDiffers,
        NoAccount,
        TenantDeleted,
        InvoiceBeingOpened,
        KeysUnreadable,
        RoleRequired,
        NoTenantAccess,
        ProviderRejected,
        ProviderUnavailable,
    ),
)
async def pay_order(call: Call, order_id: UUID, body: PayBody) -> web.Response:
    """Open an order's invoice at the tenant's own payment provider, or show the one that is open."""
    merchants = await _merchants(call)
    await call.limit(_LIMIT, str(merchants.paying.require_allowed(call.actor)))
    wanted = PayInput(
        amount=Decimal(body.amount),
        currency=body.currency,
        success_url=body.success_url,
        cancel_url=body.cancel_url,
    )
    view = await merchants.paying.pay(call.actor, order_id, wanted, trace=call.trace)
    return raw(view.plain())


@router.post(
    _ORDERS + "/{order_id}/refund",
    answer=OrderView,
    body_required=False,
    errors=(
        OrderNotFound,
        IntegrationNotFound,
        NothingToRefund,
        RefundUnderWay,
        KeysUnreadable,
        RoleRequired,
        Impersonated,
        NoTenantAccess,
        ProviderRejected,
        ProviderUnavailable,
    ),
)
async def refund_order(call: Call, order_id: UUID, body: RefundBody) -> web.Response:
    """Give a customer's money back at the tenant's own payment provider; for owners."""
    merchants = await _merchants(call)
    await call.limit(_LIMIT, str(merchants.refunds.require_allowed(call.actor)))
    wanted = RefundInput(
        amount=None if body.amount is None else Decimal(body.amount),
        invoice_id=body.invoice_id,
    )
    view = await merchants.refunds.refund(call.actor, order_id, wanted, trace=call.trace)
    return raw(view.plain())


@router.get(f"{_TENANT}/commissions", answer=CommissionListView, errors=(RoleRequired, NoTenantAccess))
async def list_commissions(call: Call, query: PageQuery) -> web.Response:
    """List what the platform takes of the tenant's orders, newest first; for owners and admins."""
    merchants = await _merchants(call)
    async with call.tenant_uow() as uow:
        view = await merchants.commissions(uow, call.actor, query.request())
    return raw(view.plain())


@router.post(_WEBHOOK, answer=MessageEnvelope, access=Access.PUBLIC, errors=_WEBHOOK_ERRORS)
async def receive_for_tenant(call: Call, query: WebhookQuery) -> web.Response:
    """Take an event from the payment provider of the tenant named by `tenant`."""
    return await _receive(call, integration_id=None, tenant=query.tenant)


@router.post(
    _WEBHOOK + "/{integration_id}",
    answer=MessageEnvelope,
    access=Access.PUBLIC,
    errors=_WEBHOOK_ERRORS,
)
async def receive(call: Call, integration_id: UUID) -> web.Response:
    """Take an event from a merchant's account at its payment provider."""
    return await _receive(call, integration_id=integration_id, tenant=None)


async def _receive(call: Call, *, integration_id: UUID | None, tenant: str | None) -> web.Response:
    async with refusals_limited(call):
        body = await raw_body(call.request)
        await call.context.services.merchants.inbox.receive(
            integration_id=integration_id, tenant=tenant, body=body, headers=call.request.headers, trace=call.trace
        )
    return call.message("Webhook received")


async def _merchants(call: Call) -> MerchantService:
    """Return the service; a client that names a tenant in `X-Tenant` must mean the one of its token."""
    merchants = call.context.services.merchants
    named = call.request.headers.get("X-Tenant", "").strip()
    if named:
        await merchants.refuse_other_tenant(call.actor, named)
    return merchants
