"""Sign-up, sign-in and passwords (contract.md 2.2)."""

from typing import Annotated, Any, Self
from uuid import UUID

from aiohttp import web
from pydantic import Field, ModelWrapValidatorHandler, RootModel, StringConstraints, model_validator

from core.emails import caseless
from core.i18n import TEXTS
from core.pacing import no_sooner_than
from core.tokens import token_hash
from handlers.envelope import Envelope, ListEnvelope, MessageEnvelope
from handlers.forms import Email, NewEmail, PersonName
from handlers.phone_forms import INVALID_OTP, PhoneRegisterBody, worded
from handlers.rest import Access, Call, Router, WireModel, raw
from services.auth import Device, SignUp
from services.auth.errors import (
    EmailTaken,
    LoginRefused,
    RefreshRefused,
    RegistrationTokenInvalid,
    ResetTokenInvalid,
    SessionNotFound,
    WrongPassword,
)
from services.auth.new_passwords import PasswordBreached
from services.auth.passwords import AccountNames
from services.auth.phone_views import PhoneRegisteredView
from services.auth.views import ChallengeView, DeviceView, MeView, SessionView, SwitchView, TokensView
from services.phones.errors import PhoneBlocked, PhoneCodeRefused, PhoneTaken
from services.tenants.errors import NoTenantAccess
from services.unit_of_work import PlatformScope

router = Router(tag="auth", prefix="/api/v1/auth")

_OWN = PlatformScope("a person's own sign-in and tenants")

# Many times as long as it takes to write a letter, which is written for those only who are known.
LETTER_S = 0.2

# Spaces at either end of a password are a part of it. The upper bound only keeps a hasher from being kept busy.
Password = Annotated[str, StringConstraints(strip_whitespace=False, max_length=1024)]
NewPassword = Annotated[Password, StringConstraints(min_length=8)]


class RegisterBody(WireModel):
    """A person with a company."""

    email: NewEmail
    password: NewPassword
    full_name: PersonName
    company_name: PersonName


class RegisterForm(RootModel[RegisterBody | PhoneRegisterBody]):
    """The form of either family of clients (contract.md 11): by `email`, or by a `phone` and its code."""

    @model_validator(mode="wrap")
    @classmethod
    def _choose(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        # Validated by the one form that is meant, so that a refusal names only fields of that.
        by_phone = isinstance(value, dict) and "phone" in value and "email" not in value
        form = PhoneRegisterBody if by_phone else RegisterBody
        return handler(form.model_validate(value))


class FinishRegistrationBody(WireModel):
    """The token of the letter that finishes a sign-up."""

    token: str = Field(max_length=256)


class LoginBody(WireModel):
    """An address and its password."""

    email: Email
    password: Password


class RefreshBody(WireModel):
    """The newest refresh token of a session."""

    refresh_token: str = Field(max_length=4096)


class SwitchTenantBody(WireModel):
    """The tenant to work in from now on."""

    tenant_id: UUID


class ForgotPasswordBody(WireModel):
    """The address of whoever forgot."""

    email: Email


class ResetPasswordBody(WireModel):
    """The token of the letter and the new password."""

    token: str = Field(max_length=256)
    new_password: NewPassword


class ChangePasswordBody(WireModel):
    """The password that is and the one that shall be."""

    current_password: Password
    new_password: NewPassword


@router.post(
    "/register",
    answer=Envelope[SessionView],
    access=Access.PUBLIC,
    status=201,
    errors=(EmailTaken, PasswordBreached, PhoneCodeRefused, PhoneTaken, PhoneBlocked),
    aliases=("/api/v1/auth/signup",),
    rule="auth_per_ip",
    also={200: PhoneRegisteredView, 202: MessageEnvelope},
)
async def register(call: Call, body: RegisterForm) -> web.Response:
    """Sign up a company with its owner; its trial and its site begin at once, or (202) when a letter has come back."""
    given = body.root
    if isinstance(given, PhoneRegisterBody):
        return await _register_by_phone(call, given)
    await call.limit("auth_per_account", account_key(given.email))
    form = SignUp(
        email=given.email,
        password=given.password,
        full_name=given.full_name,
        company_name=given.company_name,
        locale=locale_of(call),
    )
    view = await call.context.services.auth.registration.register(form, device=device_of(call), trace=call.trace)
    if view is None:
        return call.message("A letter with what to do next has been sent to this email", status=202)
    return call.ok(view, status=201)


@router.post(
    "/register/confirm",
    answer=Envelope[SessionView],
    access=Access.PUBLIC,
    status=201,
    errors=(RegistrationTokenInvalid, EmailTaken),
    rule="auth_per_ip",
)
async def finish_registration(call: Call, body: FinishRegistrationBody) -> web.Response:
    """Finish a sign-up by the token of its letter, where nobody is told who has an account."""
    view = await call.context.services.auth.registration.finish(
        token=body.token, device=device_of(call), trace=call.trace
    )
    return call.ok(view, status=201)


@router.post(
    "/login",
    answer=Envelope[SessionView | ChallengeView],
    access=Access.PUBLIC,
    errors=(LoginRefused,),
    rule="auth_per_ip",
)
async def login(call: Call, body: LoginBody) -> web.Response:
    """Sign in to the default tenant; whoever has a second factor gets a challenge to answer at /verify-2fa."""
    await call.limit("auth_per_account", account_key(body.email))
    view = await call.context.services.auth.sessions.login(
        email=body.email, password=body.password, device=device_of(call), trace=call.trace
    )
    return call.ok(view)


# Not limited by address: a whole office refreshes from one, and guessing a signed token is hopeless.
@router.post("/refresh", answer=Envelope[TokensView], access=Access.PUBLIC, errors=(RefreshRefused,))
async def refresh(call: Call, body: RefreshBody) -> web.Response:
    """Exchange a refresh token for new tokens; each works once."""
    view = await call.context.services.auth.sessions.refresh(
        refresh_token=body.refresh_token, device=device_of(call), trace=call.trace
    )
    return call.ok(view)


@router.post("/logout", answer=MessageEnvelope, access=Access.USER)
async def logout(call: Call) -> web.Response:
    """End the session; its tokens are void at once."""
    async with call.uow(_OWN) as uow:
        await call.context.services.auth.sessions.logout(uow, call.actor)
    return call.message("Logged out successfully")


@router.post("/logout-everywhere", answer=MessageEnvelope, access=Access.USER, aliases=("/api/v1/auth/logout-all",))
async def logout_everywhere(call: Call) -> web.Response:
    """End every session of the user, this one too."""
    async with call.uow(_OWN) as uow:
        await call.context.services.auth.devices.end_all(uow, call.actor)
    return call.message("Logged out everywhere successfully")


@router.get("/sessions", answer=ListEnvelope[DeviceView], access=Access.USER)
async def list_sessions(call: Call) -> web.Response:
    """Show where the user is signed in."""
    async with call.uow(_OWN) as uow:
        views = await call.context.services.auth.devices.list(uow, call.actor)
    return call.many(list(views))


@router.delete("/sessions/{session_id}", answer=MessageEnvelope, access=Access.USER, errors=(SessionNotFound,))
async def end_session(call: Call, session_id: UUID) -> web.Response:
    """Sign out one of the user's devices; its tokens are void at once."""
    async with call.uow(_OWN) as uow:
        await call.context.services.auth.devices.end(uow, call.actor, session_id=session_id)
    return call.message("Session ended successfully")


@router.get("/me", answer=Envelope[MeView], access=Access.USER)
async def me(call: Call) -> web.Response:
    """Show the signed-in user with all tenants."""
    async with call.uow(_OWN) as uow:
        view = await call.context.services.auth.sessions.me(uow, call.actor)
    return call.ok(view)


@router.post("/switch-tenant", answer=Envelope[SwitchView], access=Access.USER, errors=(NoTenantAccess,))
async def switch_tenant(call: Call, body: SwitchTenantBody) -> web.Response:
    """Work in another of one's tenants, also after the next sign-in."""
    async with call.uow(_OWN) as uow:
        view = await call.context.services.auth.sessions.switch_tenant(uow, call.actor, tenant_id=body.tenant_id)
    return call.ok(view)


@router.post("/forgot-password", answer=MessageEnvelope, access=Access.PUBLIC, rule="auth_per_ip")
async def forgot_password(call: Call, body: ForgotPasswordBody) -> web.Response:
    """Ask for a letter with a reset token; the answer is the same for an address nobody has."""
    async with no_sooner_than(LETTER_S), call.uow(_OWN) as uow:
        await call.context.services.auth.passwords.forgot(uow, email=body.email)
    return call.message("If this email is registered, a password reset link has been sent")


@router.post(
    "/reset-password",
    answer=MessageEnvelope,
    access=Access.PUBLIC,
    errors=(ResetTokenInvalid, PasswordBreached),
    rule="auth_per_ip",
)
async def reset_password(call: Call, body: ResetPasswordBody) -> web.Response:
    """Set a new password by the letter's token; every session ends."""
    names = await call.context.services.auth.passwords.reset(
        token=body.token, new_password=body.new_password, trace=call.trace
    )
    await forget_attempts(call, names)
    return call.message("Password has been reset successfully")


@router.post(
    "/change-password",
    answer=MessageEnvelope,
    access=Access.USER,
    errors=(WrongPassword, PasswordBreached),
    rule="auth_per_ip",
)
async def change_password(call: Call, body: ChangePasswordBody) -> web.Response:
    """Set another password; every other session ends."""
    await call.limit("auth_per_account", str(call.actor.user_id))
    await call.context.services.auth.passwords.change(
        call.actor, current=body.current_password, new=body.new_password, trace=call.trace
    )
    return call.message("Password has been changed successfully")


async def _register_by_phone(call: Call, body: PhoneRegisterBody) -> web.Response:
    await call.limit("auth_per_account", account_key(body.phone))
    with worded({PhoneCodeRefused: INVALID_OTP}):
        view = await call.context.services.auth.phones.register(
            phone=body.phone, code=body.code, locale=locale_of(call), device=device_of(call), trace=call.trace
        )
    return raw(view.model_dump())


async def forget_attempts(call: Call, names: AccountNames) -> None:
    """Let in again whoever has proved an account theirs by other means than its password.

    Strangers may have used up its attempts, and what they have guessed at is no more. A guess costs no less for it: the
    proof is a letter to the owner or a code to their phone.
    """
    keys = [str(names.user_id), *(account_key(name) for name in (names.email, names.phone) if name is not None)]
    for key in keys:
        await call.forget("auth_per_account", key)


def account_key(name: str) -> str:
    """Return what attempts at an account are counted under, whether it exists or not: its address or its phone."""
    return token_hash(caseless(name))


def device_of(call: Call) -> Device:
    """Return where a request comes from, as far as it tells."""
    return Device(user_agent=call.trace.user_agent, ip=call.trace.ip)


def locale_of(call: Call) -> str:
    """Return the language a person without an account should be written to in."""
    return TEXTS.negotiate(call.request.headers.get("Accept-Language"))
