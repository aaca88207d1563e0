"""The second factor over REST: setting it up, signing in with it, and proving again who one is."""

from typing import Annotated

from aiohttp import web
from pydantic import Field, StringConstraints

from handlers.auth import Password, device_of
from handlers.envelope import Envelope, MessageEnvelope
from handlers.rest import Access, Call, Router, WireModel
from services.auth.errors import ChallengeRefused, SecondFactorAbsent, SecondFactorPresent, WrongCode, WrongPassword
from services.auth.views import EnrolmentView, RecoveryCodesView, SecondFactorView, SessionView
from services.step_up import StepUpRequired
from services.unit_of_work import PlatformScope

router = Router(tag="auth", prefix="/api/v1/auth")

_OWN = PlatformScope("a person's own second factor")

Code = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class CodeBody(WireModel):
    """A code of the authenticator app."""

    code: Code


class AnswerBody(CodeBody):
    """The challenge that signing in was answered with, and a code of the app or a recovery code."""

    challenge_token: str = Field(max_length=4096)


class StepUpBody(WireModel):
    """A code for whoever has a second factor, the password for everybody else."""

    password: Password | None = None
    code: Code | None = None


@router.get("/2fa", answer=Envelope[SecondFactorView], access=Access.USER)
async def show_second_factor(call: Call) -> web.Response:
    """Tell whether the user has a second factor."""
    async with call.uow(_OWN) as uow:
        view = await call.context.services.auth.second_factors.show(uow, call.actor)
    return call.ok(view)


@router.post(
    "/2fa/enrol",
    answer=Envelope[EnrolmentView],
    access=Access.USER,
    errors=(StepUpRequired, SecondFactorPresent),
    rule="auth_per_ip",
)
async def enrol(call: Call) -> web.Response:
    """Begin to set up an authenticator app: its secret, as text and as a QR code."""
    async with call.uow(_OWN) as uow:
        view = await call.context.services.auth.second_factors.enrol(uow, call.actor)
    return _secret(call.ok(view))


@router.post(
    "/2fa/confirm",
    answer=Envelope[RecoveryCodesView],
    access=Access.USER,
    errors=(WrongCode, SecondFactorAbsent, SecondFactorPresent),
    rule="auth_per_ip",
)
async def confirm(call: Call, body: CodeBody) -> web.Response:
    """Switch the second factor on by a code of the app; the recovery codes are shown only here."""
    view = await call.context.services.auth.second_factors.confirm(call.actor, code=body.code, trace=call.trace)
    return _secret(call.ok(view))


@router.post(
    "/2fa/disable",
    answer=MessageEnvelope,
    access=Access.USER,
    errors=(StepUpRequired, SecondFactorAbsent),
    rule="auth_per_ip",
)
async def disable(call: Call) -> web.Response:
    """Switch the second factor off; needs a step-up."""
    async with call.uow(_OWN) as uow:
        await call.context.services.auth.second_factors.disable(uow, call.actor)
    return call.message("Two-factor authentication has been switched off")


@router.post(
    "/2fa/recovery-codes",
    answer=Envelope[RecoveryCodesView],
    access=Access.USER,
    errors=(StepUpRequired, SecondFactorAbsent),
    rule="auth_per_ip",
)
async def renew_recovery_codes(call: Call) -> web.Response:
    """Make new recovery codes, which void the earlier ones; needs a step-up."""
    async with call.uow(_OWN) as uow:
        view = await call.context.services.auth.second_factors.renew_codes(uow, call.actor)
    return _secret(call.ok(view))


@router.post(
    "/verify-2fa",
    answer=Envelope[SessionView],
    access=Access.PUBLIC,
    errors=(ChallengeRefused, WrongCode),
    aliases=("/api/v1/auth/2fa/verify",),
    rule="auth_per_ip",
)
async def verify(call: Call, body: AnswerBody) -> web.Response:
    """Finish signing in by a code of the app or a recovery code."""
    view = await call.context.services.auth.challenges.answer(
        challenge_token=body.challenge_token, code=body.code, device=device_of(call), trace=call.trace
    )
    return call.ok(view)


@router.post(
    "/step-up",
    answer=MessageEnvelope,
    access=Access.USER,
    errors=(WrongCode, WrongPassword),
    rule="auth_per_ip",
)
async def step_up(call: Call, body: StepUpBody) -> web.Response:
    """Prove again who one is, for the dangerous things of the next ten minutes."""
    await call.limit("auth_per_account", str(call.actor.user_id))
    await call.context.services.auth.challenges.step_up(
        call.actor, password=body.password, code=body.code, trace=call.trace
    )
    return call.message("Confirmed")


def _secret(response: web.Response) -> web.Response:
    # What is shown once must not be found in a cache.
    response.headers["Cache-Control"] = "no-store"
    return response
