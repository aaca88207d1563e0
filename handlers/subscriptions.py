"""Subscriptions and tariffs in the forms of two ancestors, bare (contract.md 4.5)."""

from uuid import UUID

from aiohttp import web

from handlers.rest import Access, Call, Router, raw
from services.billing.errors import SubscriptionNotFound
from services.entitlements.errors import TariffNotFound
from services.entitlements.views import ModuleSubscriptionView, SoldTariffView, TariffSubscriptionView
from services.unit_of_work import PlatformScope

router = Router(tag="billing", counted=False)

_CATALOGUE = PlatformScope("plans belong to nobody and are shown to everybody")
_LOOK = PlatformScope("the path names the tenant; whether the caller belongs to it is looked up")


@router.get(
    "/api/v1/subscriptions/status",
    answer=ModuleSubscriptionView,
    aliases=("/api/v1/modules/subscription",),
)
async def show_module_subscription(call: Call) -> web.Response:
    """Show a module what the caller's tenant has subscribed to."""
    async with call.tenant_uow() as uow:
        view = await call.context.services.entitlements.ancestors.module_subscription(uow, call.actor)
    return raw(view.model_dump() if view.active else {"active": False})


@router.get("/api/billing/tariffs", answer=list[SoldTariffView], access=Access.PUBLIC)
async def list_tariffs(call: Call) -> web.Response:
    """Show the plans that are sold."""
    async with call.uow(_CATALOGUE) as uow:
        views = await call.context.services.entitlements.ancestors.tariffs(uow)
    return raw([view.model_dump() for view in views])


@router.get("/api/billing/tariffs/{tariff_id}", answer=SoldTariffView, access=Access.PUBLIC, errors=(TariffNotFound,))
async def show_tariff(call: Call, tariff_id: UUID) -> web.Response:
    """Show a plan, also one that is not sold any more."""
    async with call.uow(_CATALOGUE) as uow:
        view = await call.context.services.entitlements.ancestors.tariff(uow, tariff_id=tariff_id)
    return raw(view.model_dump())


@router.get(
    "/api/billing/subscriptions/{tenant_id}",
    answer=TariffSubscriptionView,
    access=Access.USER,
    errors=(SubscriptionNotFound,),
)
async def show_tariff_subscription(call: Call, tenant_id: UUID) -> web.Response:
    """Show a tenant's subscription to its people and to superusers."""
    async with call.uow(_LOOK) as uow:
        view = await call.context.services.entitlements.ancestors.tariff_subscription(
            uow, call.actor, tenant_id=tenant_id
        )
    return raw(view.model_dump())
