"""One's own address and phone over REST: confirmed, changed, added and taken away."""

from typing import Annotated

from aiohttp import web
from pydantic import StringConstraints

from core.pacing import no_sooner_than
from handlers.auth import LETTER_S, NewPassword, account_key
from handlers.envelope import MessageEnvelope
from handlers.forms import Email, NewEmail
from handlers.phone_forms import Code, Phone
from handlers.rest import Access, Call, Router, WireModel
from services.auth.addresses import PasswordPresent
from services.auth.errors import EmailAbsent, EmailTaken, EmailTokenInvalid, LastWayIn, PhoneAbsent
from services.auth.new_passwords import PasswordBreached
from services.phones.errors import PhoneCodeRefused, PhoneTaken
from services.step_up import StepUpRequired
from services.unit_of_work import PlatformScope
from services.verification import EmailUnverified

router = Router(tag="auth", prefix="/api/v1/auth")

_OWN = PlatformScope("a person's own address and phone")


class VerifyEmailBody(WireModel):
    """The token of a letter."""

    token: Annotated[str, StringConstraints(max_length=256)]


class ResendBody(WireModel):
    """The address that still has to be confirmed."""

    email: Email


class ChangeEmailBody(WireModel):
    """The address that shall be, and a password from whoever has none yet."""

    new_email: NewEmail
    password: NewPassword | None = None


class ChangePhoneBody(WireModel):
    """The phone that shall be, and the code that it was sent."""

    phone: Phone
    code: Code


@router.post(
    "/verify-email",
    answer=MessageEnvelope,
    access=Access.PUBLIC,
    errors=(EmailTokenInvalid, EmailTaken),
    rule="auth_per_ip",
)
async def verify_email(call: Call, body: VerifyEmailBody) -> web.Response:
    """Confirm an address by the letter's token; the token of a change makes the new address the account's."""
    async with call.uow(_OWN) as uow:
        await call.context.services.auth.addresses.confirm(uow, token=body.token)
    return call.message("Email address has been confirmed")


@router.post("/resend-verification", answer=MessageEnvelope, access=Access.PUBLIC, rule="auth_per_ip")
async def resend_verification(call: Call, body: ResendBody) -> web.Response:
    """Ask for that letter again; the answer is the same for an address nobody has, or that is confirmed already."""
    async with no_sooner_than(LETTER_S), call.uow(_OWN) as uow:
        await call.context.services.auth.addresses.resend(uow, email=body.email)
    return call.message("If this email still has to be confirmed, a letter has been sent")


@router.post(
    "/change-email",
    answer=MessageEnvelope,
    access=Access.USER,
    errors=(StepUpRequired, PasswordPresent, PasswordBreached),
    rule="auth_per_ip",
)
async def change_email(call: Call, body: ChangeEmailBody) -> web.Response:
    """Ask for another address, or for a first one; it is the account's once it is confirmed. Needs a step-up."""
    await call.limit("auth_per_account", str(call.actor.user_id))
    await call.context.services.auth.addresses.change(
        call.actor, email=body.new_email, password=body.password, trace=call.trace
    )
    return call.message("A letter has been sent to the new address")


@router.delete("/email", answer=MessageEnvelope, access=Access.USER, errors=(StepUpRequired, LastWayIn, EmailAbsent))
async def remove_email(call: Call) -> web.Response:
    """Take the address from the account, which keeps its phone. Needs a step-up."""
    async with call.uow(_OWN) as uow:
        await call.context.services.auth.addresses.remove(uow, call.actor)
    return call.message("Email address has been removed")


@router.post(
    "/change-phone",
    answer=MessageEnvelope,
    access=Access.USER,
    errors=(StepUpRequired, EmailUnverified, PhoneCodeRefused, PhoneTaken),
    rule="auth_per_ip",
)
async def change_phone(call: Call, body: ChangePhoneBody) -> web.Response:
    """Make a phone the account's by the code that it was sent, in place of any other. Needs a step-up."""
    async with call.uow(_OWN) as uow:
        await call.context.services.auth.own_phone.require_allowed(uow, call.actor)
    # Only now: the phone may be somebody else's, whose attempts these are too.
    await call.limit("auth_per_account", account_key(body.phone))
    await call.context.services.auth.own_phone.change(call.actor, phone=body.phone, code=body.code, trace=call.trace)
    return call.message("Phone has been changed")


@router.delete("/phone", answer=MessageEnvelope, access=Access.USER, errors=(StepUpRequired, LastWayIn, PhoneAbsent))
async def remove_phone(call: Call) -> web.Response:
    """Take the phone from the account, which keeps its confirmed address. Needs a step-up."""
    async with call.uow(_OWN) as uow:
        await call.context.services.auth.own_phone.remove(uow, call.actor)
    return call.message("Phone has been removed")
