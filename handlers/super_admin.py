"""The platform's own people over REST: everybody's accounts and tenants (contract.md 3.6, 3.7)."""

from typing import Annotated
from uuid import UUID

from aiohttp import web
from pydantic import Field, StringConstraints

from core.phones import PhoneInvalid
from handlers.auth import NewPassword, device_of, locale_of
from handlers.envelope import Envelope, ListEnvelope, MessageEnvelope
from handlers.phone_forms import Phone
from handlers.rest import Access, Call, PageQuery, Router, WireModel, raw
from models.tenants import TenantStatus
from services.auth.errors import SecondFactorAbsent
from services.auth.new_passwords import PasswordBreached
from services.identity import SuperuserRequired
from services.phones.errors import PhoneTaken
from services.platform.errors import NotImpersonable, OwnAccount, OwnSecondFactor, RoleNotCreatable, UserNotFound
from services.platform.users import MASTER
from services.platform.views import (
    DoneView,
    ImpersonationView,
    ListedTenantView,
    ManagedUserView,
    UserListView,
)
from services.step_up import StepUpRequired
from services.tenants.errors import NoTenantAccess
from services.tenants.suspension import TenantNotFound
from services.unit_of_work import PlatformScope

router = Router(tag="platform", prefix="/api/v1")

_SCOPE = PlatformScope("the platform's people look across tenants")

# A sentence for whoever reads the audit, and for the one it is about.
Reason = Annotated[str, StringConstraints(min_length=3, max_length=500)]
Sought = Annotated[str | None, Field(max_length=100)]


class UsersQuery(PageQuery):
    """Which users: `q` is a part of a name, an address or a phone. The released clients read one page, the largest."""

    size: int = 100
    q: Sought = None


class TenantsQuery(PageQuery):
    """Which tenants: `q` is a part of a name or a slug."""

    q: Sought = None
    status: TenantStatus | None = None


class ReasonBody(WireModel):
    """Why it is done."""

    reason: Reason


class AccountBody(WireModel):
    """Why it is done; the released clients do not say."""

    reason: Reason | None = None


class ImpersonateBody(ReasonBody):
    """Why, and in which of the user's tenants; without one where they sign in to."""

    tenant_id: UUID | None = None


class RegisterMasterBody(WireModel):
    """A master of the platform, who may edit its content."""

    phone: Phone
    password: NewPassword


class CreateUserBody(RegisterMasterBody):
    """The same where the role is named."""

    role: Annotated[str, StringConstraints(max_length=32, to_lower=True)]


@router.get("/super-admin/users", answer=UserListView, access=Access.USER, errors=(SuperuserRequired,))
async def list_users(call: Call, query: UsersQuery) -> web.Response:
    """List everybody on the platform, newest first."""
    async with call.uow(_SCOPE) as uow:
        view = await call.context.services.platform.users.list(uow, call.actor, query.request(), sought=query.q)
    return raw(view.model_dump())


@router.put(
    "/super-admin/users/{user_id}/activate",
    answer=DoneView,
    access=Access.USER,
    errors=(SuperuserRequired, UserNotFound),
    body_required=False,
)
async def activate_user(call: Call, user_id: UUID, body: AccountBody) -> web.Response:
    """Switch an account on again."""
    async with call.uow(_SCOPE) as uow:
        await call.context.services.platform.users.activate(uow, call.actor, user_id=user_id, reason=body.reason)
    return _done(f"User {user_id} activated")


@router.put(
    "/super-admin/users/{user_id}/deactivate",
    answer=DoneView,
    access=Access.USER,
    errors=(SuperuserRequired, UserNotFound, OwnAccount),
    body_required=False,
)
async def deactivate_user(call: Call, user_id: UUID, body: AccountBody) -> web.Response:
    """Switch an account off; its sessions and its open sockets end at once."""
    async with call.uow(_SCOPE) as uow:
        await call.context.services.platform.users.deactivate(uow, call.actor, user_id=user_id, reason=body.reason)
    return _done(f"User {user_id} deactivated")


@router.post(
    "/super-admin/users/{user_id}/impersonate",
    answer=Envelope[ImpersonationView],
    access=Access.USER,
    status=201,
    errors=(SuperuserRequired, StepUpRequired, UserNotFound, NotImpersonable, NoTenantAccess),
)
async def impersonate(call: Call, user_id: UUID, body: ImpersonateBody) -> web.Response:
    """Get a short token to act in a user's name, of which they are told; needs a step-up."""
    async with call.uow(_SCOPE) as uow:
        view = await call.context.services.platform.impersonation.begin(
            uow,
            call.actor,
            user_id=user_id,
            reason=body.reason,
            tenant_id=body.tenant_id,
            device=device_of(call),
        )
    response = call.ok(view, status=201)
    response.headers["Cache-Control"] = "no-store"
    return response


@router.post(
    "/super-admin/users/{user_id}/reset-second-factor",
    answer=MessageEnvelope,
    access=Access.USER,
    errors=(SuperuserRequired, StepUpRequired, UserNotFound, OwnSecondFactor, SecondFactorAbsent),
)
async def reset_second_factor(call: Call, user_id: UUID, body: ReasonBody) -> web.Response:
    """Switch off the second factor of somebody who has lost it; they are told, and signed out. Needs a step-up."""
    async with call.uow(_SCOPE) as uow:
        await call.context.services.platform.second_factors.reset(uow, call.actor, user_id=user_id, reason=body.reason)
    return call.message("The second factor has been reset")


@router.get(
    "/super-admin/tenants", answer=ListEnvelope[ListedTenantView], access=Access.USER, errors=(SuperuserRequired,)
)
async def list_all_tenants(call: Call, query: TenantsQuery) -> web.Response:
    """List every tenant on the platform, newest first."""
    async with call.uow(_SCOPE) as uow:
        page = await call.context.services.platform.tenants.list(
            uow, call.actor, query.request(), sought=query.q, status=query.status
        )
    return call.page(page)


@router.put(
    "/super-admin/tenants/{tenant_id}/suspend",
    answer=MessageEnvelope,
    access=Access.USER,
    errors=(SuperuserRequired, StepUpRequired, TenantNotFound),
)
async def suspend_tenant(call: Call, tenant_id: UUID, body: ReasonBody) -> web.Response:
    """Close a tenant to its people; their open sockets end at once. Needs a step-up."""
    async with call.uow(_SCOPE) as uow:
        changed = await call.context.services.platform.tenants.suspend(
            uow, call.actor, tenant_id=tenant_id, reason=body.reason
        )
    return call.message("Tenant suspended" if changed else "Tenant was suspended already")


@router.put(
    "/super-admin/tenants/{tenant_id}/reinstate",
    answer=MessageEnvelope,
    access=Access.USER,
    errors=(SuperuserRequired, TenantNotFound),
)
async def reinstate_tenant(call: Call, tenant_id: UUID, body: ReasonBody) -> web.Response:
    """Open a suspended tenant again."""
    async with call.uow(_SCOPE) as uow:
        changed = await call.context.services.platform.tenants.reinstate(
            uow, call.actor, tenant_id=tenant_id, reason=body.reason
        )
    return call.message("Tenant reinstated" if changed else "Tenant is not suspended")


@router.post(
    "/users",
    answer=ManagedUserView,
    access=Access.USER,
    status=201,
    errors=(SuperuserRequired, StepUpRequired, RoleNotCreatable, PhoneTaken, PasswordBreached),
    aliases=("/api/v1/users/",),
)
async def create_user(call: Call, body: CreateUserBody) -> web.Response:
    """Make a master of the platform. Needs a step-up."""
    view = await call.context.services.platform.users.create_master(
        call.actor, phone=body.phone, password=body.password, role=body.role, locale=locale_of(call), trace=call.trace
    )
    return raw(view.model_dump(), status=201)


@router.post(
    "/platform/register-master",
    answer=ManagedUserView,
    access=Access.USER,
    status=201,
    errors=(SuperuserRequired, StepUpRequired, PhoneTaken, PasswordBreached),
    aliases=("/api/v1/platform/register_master",),
)
async def register_master(call: Call, body: RegisterMasterBody) -> web.Response:
    """Make a master of the platform; for superusers who step up, where the second ancestor let anybody."""
    view = await call.context.services.platform.users.create_master(
        call.actor, phone=body.phone, password=body.password, role=MASTER, locale=locale_of(call), trace=call.trace
    )
    return raw(view.model_dump(), status=201)


@router.get(
    "/users/by-phone/{phone}",
    answer=ManagedUserView,
    access=Access.USER,
    errors=(SuperuserRequired, UserNotFound, PhoneInvalid),
)
async def show_user_by_phone(call: Call, phone: str) -> web.Response:
    """Show the user of a phone."""
    async with call.uow(_SCOPE) as uow:
        view = await call.context.services.platform.users.show_by_phone(uow, call.actor, phone=phone)
    return raw(view.model_dump())


@router.get("/users/{user_id}", answer=ManagedUserView, access=Access.USER, errors=(SuperuserRequired, UserNotFound))
async def show_user(call: Call, user_id: UUID) -> web.Response:
    """Show a user."""
    async with call.uow(_SCOPE) as uow:
        view = await call.context.services.platform.users.show(uow, call.actor, user_id=user_id)
    return raw(view.model_dump())


def _done(message: str) -> web.Response:
    return raw(DoneView(message=message).model_dump())
