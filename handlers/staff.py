"""The platform's own people signing in, in the bare bodies of the second ancestor (contract.md 2.4).

Its web server kept the token in a cookie of its own; this one answers it and sets none.
"""

from typing import Annotated

from aiohttp import web
from pydantic import ConfigDict, RootModel, StringConstraints

from core.emails import fold_email
from core.phones import PhoneInvalid, parse_phone
from handlers.auth import Password, account_key, device_of
from handlers.phone_forms import worded
from handlers.rest import Access, Call, Router, WireModel, raw
from services.auth.errors import LoginRefused
from services.auth.staff_sign_in import StaffRole, StaffRoleRequired, StaffSessionView
from services.auth.views import ChallengeView

router = Router(tag="platform", prefix="/api/v1")


class StaffLoginBody(WireModel):
    """A phone or an address, and the account's password."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    login: Annotated[str, StringConstraints(min_length=1, max_length=320)]
    password: Password


class StaffAnswer(RootModel[StaffSessionView | ChallengeView]):
    """A sign-in, or the challenge that comes before it."""


@router.post(
    "/platform/login",
    answer=StaffAnswer,
    access=Access.PUBLIC,
    errors=(LoginRefused, StaffRoleRequired),
    rule="auth_per_ip",
)
async def platform_login(call: Call, body: StaffLoginBody) -> web.Response:
    """Sign in a master of the platform; a second factor is answered at /api/v1/auth/verify-2fa."""
    return await _login(call, body, role="platform_master")


@router.post(
    "/super-admin/login",
    answer=StaffAnswer,
    access=Access.PUBLIC,
    errors=(LoginRefused, StaffRoleRequired),
    aliases=("/api/v1/super_admin/login",),
    rule="auth_per_ip",
)
async def super_admin_login(call: Call, body: StaffLoginBody) -> web.Response:
    """Sign in a superuser; a second factor is answered at /api/v1/auth/verify-2fa."""
    return await _login(call, body, role="super_admin")


async def _login(call: Call, body: StaffLoginBody, *, role: StaffRole) -> web.Response:
    await call.limit("auth_per_account", account_key(_account(body.login)))
    with worded({LoginRefused: "Invalid login or password"}):
        view = await call.context.services.auth.staff.login(
            login=body.login, password=body.password, role=role, device=device_of(call), trace=call.trace
        )
    return raw(view.model_dump())


def _account(login: str) -> str:
    # A name has one count, however it is written and through whichever door it is tried.
    try:
        return parse_phone(login)
    except PhoneInvalid:
        return fold_email(login)
