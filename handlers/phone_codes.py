"""Codes and sign-in by phone for the clients of the second ancestor, in bare bodies (contract.md 2.3)."""

from typing import Annotated, Literal

from aiohttp import web
from pydantic import RootModel, StringConstraints

from handlers.auth import account_key, device_of, locale_of
from handlers.phone_forms import INVALID_OTP, Phone, PhoneRegisterBody, Provider, worded
from handlers.rest import Access, Call, Router, WireModel, raw
from services.auth.errors import LoginRefused
from services.auth.phone_views import PhoneConfirmedView, PhoneSessionView
from services.auth.views import ChallengeView
from services.phones import CodeRequested
from services.phones.errors import ChannelInactive, NoChannel, PhoneBlocked, PhoneCodeRefused
from services.phones.views import CodeSentView, SentView
from services.unit_of_work import PlatformScope

router = Router(tag="phones", prefix="/api/v1/auth")

_SCOPE = PlatformScope("a phone belongs to a person, not to a tenant")


class RequestCodeBody(WireModel):
    """A messenger, and the phone whose owner is looked for there."""

    channel: Literal["telegram", "max"]
    identifier: Phone


class ConfirmCodeBody(RequestCodeBody):
    """The same with the code that came."""

    code: Annotated[str, StringConstraints(pattern=r"^[0-9]{6}$")]


class SendCodeBody(WireModel):
    """A phone; without a provider the code takes the road that is known to lead there."""

    phone: Phone
    provider: Provider | None = None


class VerifyBody(PhoneRegisterBody):
    """A phone and its code. The provider is taken and plays no part: a code is good whichever way it came."""

    provider: Provider | None = None


class VerifiedAnswer(RootModel[PhoneSessionView | ChallengeView]):
    """A sign-in, or the challenge that comes before it."""


@router.post(
    "/request-code",
    answer=SentView,
    access=Access.PUBLIC,
    errors=(ChannelInactive, NoChannel),
    aliases=("/api/v1/auth/request_code", "/api/auth/request-code", "/api/auth/request_code"),
    rule="phone_codes_per_ip",
)
async def request_code(call: Call, body: RequestCodeBody) -> web.Response:
    """Send a code by a messenger; the answer is the same whether anybody has the phone."""
    requested = await send(call, phone=body.identifier, channel=body.channel)
    return raw(SentView.of(requested).model_dump(exclude_none=True))


@router.post(
    "/confirm-code",
    answer=PhoneConfirmedView,
    access=Access.PUBLIC,
    errors=(PhoneCodeRefused, PhoneBlocked),
    aliases=("/api/v1/auth/confirm_code", "/api/auth/confirm-code", "/api/auth/confirm_code"),
    rule="auth_per_ip",
)
async def confirm_code(call: Call, body: ConfirmCodeBody) -> web.Response:
    """Prove a phone by its code; a phone that nobody has gets an account with a tenant."""
    await call.limit("auth_per_account", account_key(body.identifier))
    view = await call.context.services.auth.phones.confirm(
        phone=body.identifier, code=body.code, locale=locale_of(call), trace=call.trace
    )
    return raw(view.model_dump())


@router.post(
    "/send-code",
    answer=CodeSentView,
    access=Access.PUBLIC,
    errors=(ChannelInactive, NoChannel),
    aliases=("/api/v1/auth/send_code",),
    rule="phone_codes_per_ip",
)
async def send_code(call: Call, body: SendCodeBody) -> web.Response:
    """Send a code to a phone; the answer is the same whether anybody has it."""
    with worded({NoChannel: "Failed to send OTP"}):
        requested = await send(call, phone=body.phone, channel=body.provider)
    return raw(CodeSentView.of(requested).model_dump(exclude_none=True))


@router.post(
    "/verify",
    answer=VerifiedAnswer,
    access=Access.PUBLIC,
    errors=(PhoneCodeRefused, PhoneBlocked, LoginRefused),
    rule="auth_per_ip",
)
async def verify(call: Call, body: VerifyBody) -> web.Response:
    """Sign in by a phone's code, or up if nobody has the phone; a second factor is answered at /verify-2fa."""
    await call.limit("auth_per_account", account_key(body.phone))
    with worded({PhoneCodeRefused: INVALID_OTP}):
        view = await call.context.services.auth.phones.verify(
            phone=body.phone, code=body.code, locale=locale_of(call), device=device_of(call), trace=call.trace
        )
    return raw(view.model_dump())


async def send(call: Call, *, phone: str, channel: str | None) -> CodeRequested:
    """Send a code to whoever has a phone."""
    async with call.uow(_SCOPE) as uow:
        return await call.context.services.phones.codes.request(
            uow, phone=phone, channel=channel, locale=locale_of(call), ip=call.trace.ip
        )
