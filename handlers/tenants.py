"""Tenants, their users and invitations (contract.md 3.2)."""

from typing import Annotated, Any
from uuid import UUID

from aiohttp import web
from pydantic import BeforeValidator, field_validator

from core.errors import InvalidInput
from handlers.auth import NewPassword, device_of, locale_of
from handlers.envelope import Envelope, ListEnvelope, MessageEnvelope
from handlers.forms import NewEmail, PersonName
from handlers.free_form import read_free_form
from handlers.rest import Access, Call, PageQuery, Router, WireModel
from models.tenants import Role
from services.auth import Newcomer
from services.auth.errors import CredentialsRefused, EmailTaken
from services.auth.new_passwords import PasswordBreached
from services.auth.views import SessionView
from services.closed_tenants import TenantDeleted
from services.entitlements.errors import PlanLimitReached
from services.permissions import KeyScope
from services.tenants import TenantChanges
from services.tenants.errors import (
    AlreadyMember,
    InvitationClosed,
    InvitationForAnother,
    InvitationNotFound,
    MemberNotFound,
    NoTenantAccess,
)
from services.tenants.views import (
    CurrentTenantView,
    InvitationView,
    InvitedView,
    MemberView,
    OfferView,
    TenantDetailView,
    TenantStatusView,
)
from services.unit_of_work import PlatformScope, TenantScope

router = Router(tag="tenants", prefix="/api/v1")


def role_name(value: object) -> object:
    """Return the role that a client means: any case is taken, and the third ancestor's name for an owner."""
    if not isinstance(value, str):
        return value
    name = value.strip().lower()
    return "owner" if name == "subscriber" else name


# Any case is taken, and the name that the third ancestor has for an owner (contract.md 2.7).
RoleInput = Annotated[Role, BeforeValidator(role_name)]


class UpdateTenantBody(WireModel):
    """What to change; an absent or null name stays as it is, null settings mean none (contract.md 3.2)."""

    name: PersonName | None = None
    settings: dict[str, Any] | None = None

    @field_validator("settings", mode="before")
    @classmethod
    def _read_settings(cls, value: object) -> object:
        if value is None:
            return {}
        return read_free_form(value)


class InviteBody(WireModel):
    """Whom to invite, and as what."""

    email: NewEmail
    role: RoleInput = Role.USER


class ChangeRoleBody(WireModel):
    """The new role."""

    role: RoleInput


class AcceptBody(WireModel):
    """What a person without an account fills in; somebody signed in sends nothing."""

    full_name: PersonName | None = None
    password: NewPassword | None = None


class InvitedEnvelope(MessageEnvelope):
    """The message of the first ancestor, and what really came of inviting."""

    data: InvitedView


@router.get("/tenants", answer=ListEnvelope[TenantDetailView], access=Access.USER, aliases=("/api/v1/tenants/",))
async def list_tenants(call: Call, query: PageQuery) -> web.Response:
    """List the caller's tenants, newest first."""
    async with call.uow(PlatformScope("a person's own tenants")) as uow:
        page = await call.context.services.tenants.list(uow, call.actor, query.request())
    return call.page(page)


@router.get("/tenants/current", answer=Envelope[CurrentTenantView], scope=KeyScope.TENANT_READ)
async def show_current_tenant(call: Call) -> web.Response:
    """Show the tenant of the token with its subscription and limits."""
    async with call.tenant_uow() as uow:
        view = await call.context.services.tenants.current(uow, call.actor)
    return call.ok(view)


@router.get(
    "/tenants/{tenant_id}",
    answer=Envelope[TenantDetailView],
    access=Access.USER,
    errors=(NoTenantAccess,),
    scope=KeyScope.TENANT_READ,
)
async def show_tenant(call: Call, tenant_id: UUID) -> web.Response:
    """Show one of the caller's tenants."""
    async with call.uow(TenantScope(tenant_id)) as uow:
        view = await call.context.services.tenants.show(uow, call.actor, tenant_id=tenant_id)
    return call.ok(view)


@router.patch("/tenants/{tenant_id}", answer=Envelope[TenantDetailView], access=Access.USER, errors=(NoTenantAccess,))
async def update_tenant(call: Call, tenant_id: UUID, body: UpdateTenantBody) -> web.Response:
    """Change a tenant's name or replace its settings."""
    changes = TenantChanges(name=body.name, settings=body.settings)
    async with call.uow(TenantScope(tenant_id)) as uow:
        view = await call.context.services.tenants.update(uow, call.actor, tenant_id=tenant_id, changes=changes)
    return call.ok(view)


@router.get(
    "/tenants/{tenant_id}/status",
    answer=Envelope[TenantStatusView],
    access=Access.USER,
    errors=(NoTenantAccess,),
    scope=KeyScope.TENANT_READ,
)
async def show_tenant_status(call: Call, tenant_id: UUID) -> web.Response:
    """Show where one of the caller's tenants stands."""
    async with call.uow(TenantScope(tenant_id)) as uow:
        view = await call.context.services.tenants.status(uow, call.actor, tenant_id=tenant_id)
    return call.ok(view)


@router.get(
    "/tenants/{tenant_id}/users",
    answer=ListEnvelope[MemberView],
    access=Access.USER,
    errors=(NoTenantAccess,),
    scope=KeyScope.MEMBERS_READ,
)
async def list_members(call: Call, tenant_id: UUID, query: PageQuery) -> web.Response:
    """List a tenant's users, newest first."""
    async with call.uow(TenantScope(tenant_id)) as uow:
        page = await call.context.services.tenants.members.list(
            uow, call.actor, tenant_id=tenant_id, page=query.request()
        )
    return call.page(page)


@router.post(
    "/tenants/{tenant_id}/users/invite",
    answer=InvitedEnvelope,
    access=Access.USER,
    status=201,
    errors=(NoTenantAccess, AlreadyMember, PlanLimitReached, TenantDeleted),
)
async def invite(call: Call, tenant_id: UUID, body: InviteBody) -> web.Response:
    """Invite an address: a known user joins at once, anybody else gets a letter."""
    async with call.uow(TenantScope(tenant_id)) as uow:
        await call.context.services.tenants.invitations.require_host(uow, call.actor, tenant_id=tenant_id)
    # Only now, or else strangers could use up what a tenant may.
    await call.limit("invites_per_tenant", str(tenant_id))
    async with call.uow(PlatformScope("whoever is invited may have other tenants")) as uow:
        view = await call.context.services.tenants.invitations.invite(
            uow, call.actor, tenant_id=tenant_id, email=body.email, role=body.role
        )
    return call.message(f"User {body.email} invited successfully", status=201, data=view.model_dump())


@router.patch(
    "/tenants/{tenant_id}/users/{user_id}",
    answer=MessageEnvelope,
    access=Access.USER,
    errors=(NoTenantAccess, MemberNotFound),
)
async def change_role(call: Call, tenant_id: UUID, user_id: UUID, body: ChangeRoleBody) -> web.Response:
    """Give a member another role."""
    async with call.uow(TenantScope(tenant_id)) as uow:
        await call.context.services.tenants.members.change_role(
            uow, call.actor, tenant_id=tenant_id, user_id=user_id, role=body.role
        )
    return call.message("User role updated successfully")


@router.delete(
    "/tenants/{tenant_id}/users/{user_id}",
    answer=MessageEnvelope,
    access=Access.USER,
    errors=(NoTenantAccess, MemberNotFound),
)
async def remove_member(call: Call, tenant_id: UUID, user_id: UUID) -> web.Response:
    """Remove a user from a tenant."""
    async with call.uow(TenantScope(tenant_id)) as uow:
        await call.context.services.tenants.members.remove(uow, call.actor, tenant_id=tenant_id, user_id=user_id)
    return call.message("User removed from tenant successfully")


@router.get(
    "/tenants/{tenant_id}/invitations",
    answer=ListEnvelope[InvitationView],
    access=Access.USER,
    errors=(NoTenantAccess,),
    scope=KeyScope.MEMBERS_READ,
)
async def list_invitations(call: Call, tenant_id: UUID, query: PageQuery) -> web.Response:
    """List a tenant's invitations, newest first."""
    async with call.uow(TenantScope(tenant_id)) as uow:
        page = await call.context.services.tenants.invitations.list(
            uow, call.actor, tenant_id=tenant_id, page=query.request()
        )
    return call.page(page)


@router.delete(
    "/tenants/{tenant_id}/invitations/{invitation_id}",
    answer=MessageEnvelope,
    access=Access.USER,
    errors=(NoTenantAccess, InvitationNotFound, InvitationClosed),
)
async def revoke_invitation(call: Call, tenant_id: UUID, invitation_id: UUID) -> web.Response:
    """Take an invitation back; its letter is void."""
    async with call.uow(TenantScope(tenant_id)) as uow:
        await call.context.services.tenants.invitations.revoke(
            uow, call.actor, tenant_id=tenant_id, invitation_id=invitation_id
        )
    return call.message("Invitation revoked successfully")


@router.get(
    "/invitations/{token}",
    answer=Envelope[OfferView],
    access=Access.PUBLIC,
    errors=(InvitationNotFound,),
    rule="auth_per_ip",
)
async def show_offer(call: Call, token: str) -> web.Response:
    """Show whoever holds the token of an invitation's letter what it offers."""
    async with call.uow(PlatformScope("an invitation's token names the tenant")) as uow:
        view = await call.context.services.tenants.invitations.offer(uow, token)
    return call.ok(view)


@router.post(
    "/invitations/{token}/accept",
    answer=Envelope[SessionView],
    access=Access.OPTIONAL,
    errors=(
        CredentialsRefused,
        InvitationNotFound,
        InvitationForAnother,
        InvitationClosed,
        EmailTaken,
        PasswordBreached,
        PlanLimitReached,
    ),
    rule="auth_per_ip",
    body_required=False,
)
async def accept_invitation(call: Call, token: str, body: AcceptBody) -> web.Response:
    """Take the place an invitation offers, signed in or as a new user, and sign in to it."""
    guest = call.caller or _newcomer(call, body)
    view = await call.context.services.auth.registration.accept_invitation(
        token=token, guest=guest, device=device_of(call), trace=call.trace
    )
    return call.ok(view)


def _newcomer(call: Call, body: AcceptBody) -> Newcomer:
    if body.full_name is not None and body.password is not None:
        return Newcomer(full_name=body.full_name, password=body.password, locale=locale_of(call))
    problems = [
        {"field": f"body -> {name}", "message": "Field required", "type": "missing"}
        for name, value in (("full_name", body.full_name), ("password", body.password))
        if value is None
    ]
    raise InvalidInput(details={"errors": problems})
