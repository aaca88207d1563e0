"""Sign-in and sign-up by phone for the clients of the third ancestor, in bare bodies (contract.md 2.5).

Its web client shows refusals as they come, in Russian; so they are worded in the language that the browser asks for,
and in Russian where it asks for none.
"""

from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, RootModel, StringConstraints

from core.i18n import TEXTS
from handlers.auth import NewPassword, Password, RefreshBody, account_key, device_of, forget_attempts, locale_of
from handlers.credentials import COOKIE
from handlers.forms import ShortName
from handlers.phone_codes import SendCodeBody, send
from handlers.phone_forms import Code, Phone, worded
from handlers.rest import Access, Call, Router, WireModel, raw
from models.users import EmploymentType
from services.auth import PhoneSignUp, ProfileChanges
from services.auth.errors import LoginRefused, RefreshRefused
from services.auth.new_passwords import PasswordBreached
from services.auth.phone_views import PhoneKnownView, PhoneSessionView, ProfileView
from services.auth.views import ChallengeView, TokensView
from services.phones.errors import ChannelInactive, NoChannel, PhoneBlocked, PhoneCodeRefused, PhoneTaken, PhoneUnknown
from services.phones.views import CodeOnItsWayView
from services.unit_of_work import PlatformScope

router = Router(tag="phones", prefix="/api/auth")

_OWN = PlatformScope("a person's own sign-in")


class CheckPhoneBody(WireModel):
    """A phone."""

    phone: Phone


class LoginPasswordBody(WireModel):
    """A phone and the account's password."""

    phone: Phone
    password: Password


class RegisterFullBody(WireModel):
    """A person with the phone, the code that proves it, and a password for later."""

    phone: Phone
    # The ancestor let people sign up without one. Here that would let anybody take anybody's number, so a missing code
    # is a wrong one.
    code: Annotated[str, StringConstraints(max_length=64)] | None = None
    password: NewPassword
    first_name: ShortName
    last_name: ShortName
    employment_type: EmploymentType


class ResetPasswordBody(WireModel):
    """A phone, the code that proves it, and the new password."""

    phone: Phone
    code: Code
    new_password: NewPassword


class ProfileBody(WireModel):
    """What to change; what is left out stays."""

    first_name: ShortName | None = None
    last_name: ShortName | None = None
    employment_type: EmploymentType | None = None


class LoginAnswer(RootModel[PhoneSessionView | ChallengeView]):
    """A sign-in, or the challenge that comes before it."""


class Said(BaseModel):
    """A deed was done."""

    message: str


@router.post(
    "/check-phone",
    answer=PhoneKnownView,
    access=Access.PUBLIC,
    aliases=("/api/auth/check_phone",),
    rule="phone_checks_per_ip",
)
async def check_phone(call: Call, body: CheckPhoneBody) -> web.Response:
    """Tell whether somebody has signed up with a phone.

    The released client chooses its next form by the answer, so this must tell strangers who is a customer. That is why
    its limit is narrow; nothing else here tells. Where ACCOUNTS_DISCLOSED is off, nobody seems to have signed up.
    """
    async with call.uow(_OWN) as uow:
        view = await call.context.services.auth.phones.check(uow, phone=body.phone)
    return raw(view.model_dump())


@router.post(
    "/send-code",
    answer=CodeOnItsWayView,
    access=Access.PUBLIC,
    errors=(ChannelInactive, NoChannel),
    aliases=("/api/auth/send_code",),
    rule="phone_codes_per_ip",
)
async def send_code(call: Call, body: SendCodeBody) -> web.Response:
    """Send a code to a phone; the answer is the same whether anybody has it."""
    requested = await send(call, phone=body.phone, channel=body.provider)
    return raw(CodeOnItsWayView.of(requested).model_dump(exclude_none=True))


@router.post(
    "/login-password",
    answer=LoginAnswer,
    access=Access.PUBLIC,
    errors=(LoginRefused,),
    aliases=("/api/auth/login_password",),
    rule="auth_per_ip",
)
async def login_password(call: Call, body: LoginPasswordBody) -> web.Response:
    """Sign in by phone and password; a second factor is answered at /api/v1/auth/verify-2fa."""
    await call.limit("auth_per_account", account_key(body.phone))
    with worded({LoginRefused: _text(call, "wrong_login")}):
        view = await call.context.services.auth.phones.login(
            phone=body.phone, password=body.password, device=device_of(call), trace=call.trace
        )
    return _signed_in(call, view)


@router.post(
    "/register-full",
    answer=LoginAnswer,
    access=Access.PUBLIC,
    errors=(PhoneCodeRefused, PhoneTaken, PhoneBlocked, PasswordBreached, LoginRefused),
    aliases=("/api/auth/register_full",),
    rule="auth_per_ip",
)
async def register_full(call: Call, body: RegisterFullBody) -> web.Response:
    """Sign up with a phone, its code, a password and a profile; a company with its trial begins at once."""
    await call.limit("auth_per_account", account_key(body.phone))
    form = PhoneSignUp(
        phone=body.phone,
        code=body.code or "",
        password=body.password,
        first_name=body.first_name,
        last_name=body.last_name,
        employment_type=body.employment_type,
        locale=_locale(call),
    )
    with worded({PhoneCodeRefused: _text(call, "wrong_code")}):
        view = await call.context.services.auth.phones.register_full(form, device=device_of(call), trace=call.trace)
    return _signed_in(call, view)


@router.post(
    "/reset-password",
    answer=Said,
    access=Access.PUBLIC,
    errors=(PhoneCodeRefused, PhoneUnknown, PhoneBlocked, PasswordBreached),
    aliases=("/api/auth/reset_password",),
    rule="auth_per_ip",
)
async def reset_password(call: Call, body: ResetPasswordBody) -> web.Response:
    """Set a new password by a phone's code; every session ends."""
    # A count of its own: whoever tries passwords must not close the way that is left to the owner.
    reset_key = account_key(f"reset {body.phone}")
    await call.limit("auth_per_account", reset_key)
    with worded({PhoneCodeRefused: _text(call, "wrong_code")}):
        names = await call.context.services.auth.phones.reset_password(
            phone=body.phone, code=body.code, new_password=body.new_password, trace=call.trace
        )
    await forget_attempts(call, names)
    await call.forget("auth_per_account", reset_key)
    return raw(Said(message="Password has been reset successfully").model_dump())


@router.get("/me", answer=ProfileView, access=Access.USER)
async def me(call: Call) -> web.Response:
    """Show the signed-in user's profile."""
    async with call.uow(_OWN) as uow:
        view = await call.context.services.auth.phones.profile(uow, call.actor)
    return raw(view.model_dump())


@router.post("/set-profile", answer=ProfileView, access=Access.USER, aliases=("/api/auth/set_profile",))
async def set_profile(call: Call, body: ProfileBody) -> web.Response:
    """Change the signed-in user's names and employment."""
    changes = ProfileChanges(**body.model_dump())
    async with call.uow(_OWN) as uow:
        view = await call.context.services.auth.phones.change_profile(uow, call.actor, changes)
    return raw(view.model_dump())


@router.post("/refresh", answer=TokensView, access=Access.PUBLIC, errors=(RefreshRefused,))
async def refresh(call: Call, body: RefreshBody) -> web.Response:
    """Exchange a refresh token for new tokens; each works once."""
    view = await call.context.services.auth.sessions.refresh(
        refresh_token=body.refresh_token, device=device_of(call), trace=call.trace
    )
    return _with_cookie(call, raw(view.model_dump()), view.access_token)


@router.post("/logout", answer=Said, access=Access.USER)
async def logout(call: Call) -> web.Response:
    """End the session; its tokens are void at once."""
    async with call.uow(_OWN) as uow:
        await call.context.services.auth.sessions.logout(uow, call.actor)
    response = raw(Said(message="Logged out").model_dump())
    response.del_cookie(COOKIE, path="/")
    return response


def _signed_in(call: Call, view: PhoneSessionView | ChallengeView) -> web.Response:
    response = raw(view.model_dump())
    return response if isinstance(view, ChallengeView) else _with_cookie(call, response, view.access_token)


def _with_cookie(call: Call, response: web.Response, access_token: str) -> web.Response:
    # The form is the ancestor's; that it stays on this site and, in production, on TLS is ours.
    response.set_cookie(
        COOKIE,
        f"Bearer {access_token}",
        path="/",
        httponly=True,
        samesite="Lax",
        secure=call.context.environment == "production",
    )
    return response


def _locale(call: Call) -> str:
    return locale_of(call) if "Accept-Language" in call.request.headers else "ru"


def _text(call: Call, name: str) -> str:
    return TEXTS.text(f"phones.{name}", _locale(call))
