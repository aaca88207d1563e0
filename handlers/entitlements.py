"""What a tenant may have, for its people and for operators (contract.md 4.2, 4.5)."""

from typing import Annotated
from uuid import UUID

from aiohttp import web
from pydantic import Field

from handlers.audit import Moment
from handlers.envelope import Envelope
from handlers.rest import Access, Call, Router, WireModel
from handlers.super_admin import Reason
from services.entitlements import OverrideInput
from services.entitlements.errors import OverrideNotFound, TenantUnknown
from services.entitlements.views import NotedEntitlementsView, TenantEntitlementsView
from services.identity import SuperuserRequired
from services.unit_of_work import PlatformScope

router = Router(tag="entitlements", prefix="/api/v1", counted=False)

_SCOPE = PlatformScope("an operator looks after every tenant")

LimitValue = Annotated[int, Field(strict=True, ge=-1, le=10**12)]
FlagValue = Annotated[bool, Field(strict=True)]


class OverrideBody(WireModel):
    """A limit (-1 means unlimited) or whether a feature is on; until when it holds (for good if absent), and why."""

    value: FlagValue | LimitValue
    until: Moment | None = None
    reason: Reason


@router.get("/billing/entitlements", answer=Envelope[TenantEntitlementsView])
async def show_entitlements(call: Call) -> web.Response:
    """Show what the caller's tenant may have and how much of it is used."""
    async with call.tenant_uow() as uow:
        view = await call.context.services.entitlements.show(uow, call.actor)
    return call.ok(view)


@router.get(
    "/super-admin/tenants/{tenant_id}/entitlements",
    answer=Envelope[NotedEntitlementsView],
    access=Access.USER,
    errors=(SuperuserRequired, TenantUnknown),
)
async def show_tenant_entitlements(call: Call, tenant_id: UUID) -> web.Response:
    """Show what a tenant may have, what it uses, and the exceptions that were made for it."""
    async with call.uow(_SCOPE) as uow:
        view = await call.context.services.entitlements.overrides.show(uow, call.actor, tenant_id=tenant_id)
    return call.ok(view)


@router.put(
    "/super-admin/tenants/{tenant_id}/entitlements/{name}",
    answer=Envelope[NotedEntitlementsView],
    access=Access.USER,
    errors=(SuperuserRequired, TenantUnknown),
)
async def put_override(call: Call, tenant_id: UUID, name: str, body: OverrideBody) -> web.Response:
    """Give a tenant something else than its plan says."""
    wanted = OverrideInput(name=name, value=body.value, until=body.until, reason=body.reason)
    async with call.uow(_SCOPE) as uow:
        view = await call.context.services.entitlements.overrides.put(
            uow, call.actor, tenant_id=tenant_id, wanted=wanted
        )
    return call.ok(view)


@router.delete(
    "/super-admin/tenants/{tenant_id}/entitlements/{name}",
    answer=Envelope[NotedEntitlementsView],
    access=Access.USER,
    errors=(SuperuserRequired, TenantUnknown, OverrideNotFound),
)
async def remove_override(call: Call, tenant_id: UUID, name: str) -> web.Response:
    """Give a tenant again what its plan says."""
    async with call.uow(_SCOPE) as uow:
        view = await call.context.services.entitlements.overrides.remove(
            uow, call.actor, tenant_id=tenant_id, name=name
        )
    return call.ok(view)
