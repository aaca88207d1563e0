"""A tenant's life over REST: founding a further one, handing it on, leaving it, taking its data along, its end."""

from typing import Annotated, Any, Literal
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, BeforeValidator

from handlers.downloads import send_file
from handlers.envelope import Envelope, MessageEnvelope
from handlers.forms import PersonName
from handlers.rest import Access, Call, Router, WireModel
from handlers.tenants import role_name
from models.tenants import Role
from services.step_up import StepUpRequired
from services.tenants.errors import (
    DeletionNotRequested,
    DeletionUnderWay,
    LastOwner,
    MemberNotFound,
    NoTenantAccess,
    OwnershipNotTransferable,
    TooManyTenants,
)
from services.tenants.views import DeletionView, TenantDetailView
from services.unit_of_work import PlatformScope, TenantScope

router = Router(tag="tenants", prefix="/api/v1")


class CreateTenantBody(WireModel):
    """The new company's name."""

    name: PersonName


class TransferBody(WireModel):
    """Who is to own the tenant, and what the caller is to be afterwards; `owner` means to own it together."""

    user_id: UUID
    former_role: Annotated[Literal[Role.OWNER, Role.ADMIN, Role.MEMBER, Role.USER], BeforeValidator(role_name)] = (
        Role.ADMIN
    )


class DeletionEnvelope(MessageEnvelope):
    """What was asked for, and until when it can be taken back."""

    data: DeletionView


class TenantExport(BaseModel):
    """Everything of a tenant; `tables` holds the rows of each table under its name, with secrets redacted."""

    format: str
    exported_at: str
    tenant: dict[str, Any]
    tables: dict[str, list[dict[str, Any]]]


@router.post(
    "/tenants",
    answer=Envelope[TenantDetailView],
    access=Access.USER,
    status=201,
    errors=(TooManyTenants,),
    aliases=("/api/v1/tenants/",),
)
async def create_tenant(call: Call, body: CreateTenantBody) -> web.Response:
    """Found a further tenant, with a trial and a site of its own; `switch-tenant` leads into it."""
    async with call.uow(PlatformScope("the tenant does not exist yet")) as uow:
        view = await call.context.services.tenants.create_further(uow, call.actor, name=body.name)
    return call.ok(view, status=201)


@router.post(
    "/tenants/{tenant_id}/transfer-ownership",
    answer=MessageEnvelope,
    access=Access.USER,
    errors=(NoTenantAccess, StepUpRequired, MemberNotFound, OwnershipNotTransferable),
)
async def transfer_ownership(call: Call, tenant_id: UUID, body: TransferBody) -> web.Response:
    """Make another member the owner; needs a step-up."""
    async with call.uow(TenantScope(tenant_id)) as uow:
        await call.context.services.tenants.ownership.transfer(
            uow, call.actor, tenant_id=tenant_id, user_id=body.user_id, former_role=body.former_role
        )
    return call.message("Ownership transferred successfully")


@router.post(
    "/tenants/{tenant_id}/leave", answer=MessageEnvelope, access=Access.USER, errors=(NoTenantAccess, LastOwner)
)
async def leave_tenant(call: Call, tenant_id: UUID) -> web.Response:
    """Give one's own place in a tenant up."""
    async with call.uow(TenantScope(tenant_id)) as uow:
        await call.context.services.tenants.ownership.leave(uow, call.actor, tenant_id=tenant_id)
    return call.message("You have left the tenant")


@router.delete(
    "/tenants/{tenant_id}", answer=DeletionEnvelope, access=Access.USER, errors=(NoTenantAccess, StepUpRequired)
)
async def delete_tenant(call: Call, tenant_id: UUID) -> web.Response:
    """Have a tenant deleted after a while, in which it can be restored; needs a step-up."""
    async with call.uow(TenantScope(tenant_id)) as uow:
        view = await call.context.services.tenants.deletion.request(uow, call.actor, tenant_id=tenant_id)
    return call.message("Tenant will be deleted", data=view.model_dump())


@router.get(
    "/tenants/{tenant_id}/deletion",
    answer=Envelope[DeletionView],
    access=Access.USER,
    errors=(NoTenantAccess, DeletionNotRequested),
)
async def show_deletion(call: Call, tenant_id: UUID) -> web.Response:
    """Show until when a tenant that is to be deleted can be restored."""
    async with call.uow(TenantScope(tenant_id)) as uow:
        view = await call.context.services.tenants.deletion.show(uow, call.actor, tenant_id=tenant_id)
    return call.ok(view)


@router.post(
    "/tenants/{tenant_id}/restore",
    answer=Envelope[TenantDetailView],
    access=Access.USER,
    errors=(NoTenantAccess, DeletionNotRequested, DeletionUnderWay),
)
async def restore_tenant(call: Call, tenant_id: UUID) -> web.Response:
    """Take the request to delete a tenant back."""
    async with call.uow(TenantScope(tenant_id)) as uow:
        view = await call.context.services.tenants.deletion.restore(uow, call.actor, tenant_id=tenant_id)
    return call.ok(view)


@router.get(
    "/tenants/{tenant_id}/export",
    answer=TenantExport,
    access=Access.USER,
    errors=(NoTenantAccess, StepUpRequired),
)
async def export_tenant(call: Call, tenant_id: UUID) -> web.StreamResponse:
    """Download everything that is stored of a tenant; needs a step-up."""
    pieces = await call.context.services.tenants.export.begin(call.actor, tenant_id=tenant_id, trace=call.trace)
    return await send_file(call, pieces, name=f"tenant-{tenant_id}.json", content_type="application/json")
