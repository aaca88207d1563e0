"""API keys over REST: made, shown once, listed, renamed and revoked by a tenant's owners and admins, never by keys."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from aiohttp import web
from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints

from handlers.envelope import Envelope, ListEnvelope, MessageEnvelope
from handlers.forms import refuse_controls
from handlers.rest import Access, Call, PageQuery, Router, WireModel
from services.api_keys.errors import ApiKeyNotFound, TooManyApiKeys
from services.api_keys.views import ApiKeyView, NewApiKeyView
from services.closed_tenants import TenantDeleted
from services.identity import RoleRequired
from services.permissions import KeyScope
from services.step_up import StepUpRequired
from services.tenants.errors import NoTenantAccess
from services.unit_of_work import TenantScope

router = Router(tag="api keys", prefix="/api/v1/tenants/{tenant_id}/api-keys")

KeyName = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=100),
    AfterValidator(refuse_controls),
]
# Far years would not survive the way through another time zone.
Expiry = Annotated[AwareDatetime, Field(ge=datetime(2000, 1, 1, tzinfo=UTC), le=datetime(9000, 1, 1, tzinfo=UTC))]


class CreateApiKeyBody(WireModel):
    """What the key is for, what it may do, and until when; without `expires_at` until it is revoked."""

    name: KeyName
    scopes: Annotated[list[KeyScope], Field(min_length=1, max_length=len(KeyScope))]
    expires_at: Expiry | None = None


class RenameApiKeyBody(WireModel):
    """The new name."""

    name: KeyName


@router.post(
    "",
    answer=Envelope[NewApiKeyView],
    access=Access.USER,
    status=201,
    errors=(NoTenantAccess, RoleRequired, StepUpRequired, TooManyApiKeys, TenantDeleted),
)
async def create_api_key(call: Call, tenant_id: UUID, body: CreateApiKeyBody) -> web.Response:
    """Make an API key; `key` is shown this once. For owners and admins; needs a step-up."""
    async with call.uow(TenantScope(tenant_id)) as uow:
        view = await call.context.services.api_keys.create(
            uow, call.actor, tenant_id=tenant_id, name=body.name, scopes=body.scopes, expires_at=body.expires_at
        )
    return call.ok(view, status=201)


@router.get("", answer=ListEnvelope[ApiKeyView], access=Access.USER, errors=(NoTenantAccess, RoleRequired))
async def list_api_keys(call: Call, tenant_id: UUID, query: PageQuery) -> web.Response:
    """List a tenant's API keys, newest first; for owners and admins."""
    async with call.uow(TenantScope(tenant_id)) as uow:
        page = await call.context.services.api_keys.list(uow, call.actor, tenant_id=tenant_id, page=query.request())
    return call.page(page)


@router.get(
    "/{key_id}",
    answer=Envelope[ApiKeyView],
    access=Access.USER,
    errors=(NoTenantAccess, RoleRequired, ApiKeyNotFound),
)
async def show_api_key(call: Call, tenant_id: UUID, key_id: UUID) -> web.Response:
    """Show an API key without its secret; for owners and admins."""
    async with call.uow(TenantScope(tenant_id)) as uow:
        view = await call.context.services.api_keys.show(uow, call.actor, tenant_id=tenant_id, key_id=key_id)
    return call.ok(view)


@router.patch(
    "/{key_id}",
    answer=Envelope[ApiKeyView],
    access=Access.USER,
    errors=(NoTenantAccess, RoleRequired, ApiKeyNotFound),
)
async def rename_api_key(call: Call, tenant_id: UUID, key_id: UUID, body: RenameApiKeyBody) -> web.Response:
    """Give an API key another name; for owners and admins."""
    async with call.uow(TenantScope(tenant_id)) as uow:
        view = await call.context.services.api_keys.rename(
            uow, call.actor, tenant_id=tenant_id, key_id=key_id, name=body.name
        )
    return call.ok(view)


@router.delete(
    "/{key_id}",
    answer=MessageEnvelope,
    access=Access.USER,
    errors=(NoTenantAccess, RoleRequired, ApiKeyNotFound),
)
async def revoke_api_key(call: Call, tenant_id: UUID, key_id: UUID) -> web.Response:
    """End an API key at once, on open sockets too; for owners and admins."""
    async with call.uow(TenantScope(tenant_id)) as uow:
        await call.context.services.api_keys.revoke(uow, call.actor, tenant_id=tenant_id, key_id=key_id)
    return call.message("API key revoked successfully")
