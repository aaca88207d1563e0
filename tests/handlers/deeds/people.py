"""Deeds of people about themselves: signing up and in by mail and phone, passwords, the second factor."""

from typing import Any
from uuid import uuid4

from services.auth.sign_ups import SignUp, SignUps
from tests.handlers.deeds.stage import NEW_PASSWORD, PASSWORD, SCOPE, Deed, Play, Stage, succeeded
from tests.support.people import Person
from tests.support.phones import new_phone

AUTH = "/api/v1/auth"


async def register(_: Stage) -> Deed:
    form = {"full_name": "Rita", "company_name": f"Company {uuid4().hex}", "password": PASSWORD}
    return Deed(json={**form, "email": f"rita-{uuid4().hex}@example.org"})


async def finish_registration(stage: Stage) -> Deed:
    unique = uuid4().hex
    form = SignUp(
        email=f"rita-{unique}@example.org",
        password=PASSWORD,
        full_name="Rita",
        company_name=f"Company {unique}",
        locale="en",
    )
    # As a server does that tells nobody who has an account; the token is good on this one too.
    sign_ups = SignUps(mail=stage.orchestrator.services.mail, public_url=stage.orchestrator.url)
    async with stage.orchestrator.units(SCOPE) as uow:
        await sign_ups.put_off(uow, form, "a hash")
    return Deed(json={"token": await stage.letter_token(form.email)})


async def login(stage: Stage) -> Deed:
    owner = await stage.company()
    return Deed(json={"email": owner.email, "password": owner.password})


async def with_nothing(stage: Stage) -> Deed:
    return Deed(by=await stage.company())


async def end_device(stage: Stage) -> Deed:
    owner = await stage.company()
    await stage.sign_in(owner)
    _, answer = await owner.get("auth/sessions")
    other = next(session["id"] for session in answer["data"] if not session["current"])
    return Deed(by=owner, path={"session_id": other})


async def switch(stage: Stage) -> Deed:
    owner = await stage.company()
    _, answer = await owner.post("tenants", {"name": f"Second {uuid4().hex}"})
    return Deed(by=owner, json={"tenant_id": answer["data"]["id"]})


async def forget(stage: Stage) -> Deed:
    owner = await stage.company()
    return Deed(json={"email": owner.email}, actor=owner.user_id)


async def reset(stage: Stage) -> Deed:
    owner = await stage.company()
    await stage.post("auth/forgot-password", {"email": owner.email})
    token = await stage.letter_token(owner.email)
    return Deed(json={"token": token, "new_password": NEW_PASSWORD}, actor=owner.user_id)


async def change_password(stage: Stage) -> Deed:
    return Deed(by=await stage.company(), json={"current_password": PASSWORD, "new_password": NEW_PASSWORD})


async def confirm_app(stage: Stage) -> Deed:
    owner, secret = await stage.enrolled()
    return Deed(by=owner, json={"code": stage.totp(secret)})


async def with_second_factor(stage: Stage) -> Deed:
    owner, _ = await stage.guarded()
    return Deed(by=owner)


async def answer_challenge(stage: Stage) -> Deed:
    owner, secret = await stage.guarded()
    asked = (await stage.post("auth/login", {"email": owner.email, "password": owner.password}))["data"]
    # The confirming code is used up; the app's next one is good by now.
    return Deed(json={"challenge_token": asked["challenge_token"], "code": stage.totp(secret, later_s=30)})


async def step_up(stage: Stage) -> Deed:
    return Deed(by=await stage.company(), json={"password": PASSWORD})


async def ask_code(_: Stage) -> Deed:
    return Deed(json={"phone": new_phone()})


async def request_code(_: Stage) -> Deed:
    return Deed(json={"channel": "telegram", "identifier": new_phone()})


async def confirm_code(stage: Stage) -> Deed:
    phone, person = await stage.caller()
    body = {"channel": "telegram", "identifier": phone, "code": await stage.code(phone)}
    return Deed(json=body, actor=person.user_id, tenant=person.tenant_id)


async def verify_code(stage: Stage) -> Deed:
    phone, _ = await stage.caller()
    return Deed(json={"phone": phone, "code": await stage.code(phone)})


async def register_full(stage: Stage) -> Deed:
    phone = new_phone()
    form: dict[str, Any] = {"first_name": "Anna", "last_name": "Ivanova", "employment_type": "ip"}
    return Deed(json={**form, "phone": phone, "code": await stage.code(phone), "password": PASSWORD})


async def login_by_phone(stage: Stage) -> Deed:
    phone, _ = await stage.caller()
    return Deed(json={"phone": phone, "password": PASSWORD})


async def reset_by_phone(stage: Stage) -> Deed:
    phone, person = await stage.caller()
    code = await stage.code(phone)
    return Deed(json={"phone": phone, "code": code, "new_password": NEW_PASSWORD}, actor=person.user_id)


async def set_profile(stage: Stage) -> Deed:
    return Deed(by=await stage.company(), json={"first_name": "Olga", "last_name": "Petrova"})


async def verify_email(stage: Stage) -> Deed:
    owner = await stage.company()
    token = await stage.letter_token(owner.email, welcome=True)
    return Deed(json={"token": token}, actor=owner.user_id)


async def resend_letter(stage: Stage) -> Deed:
    owner = await stage.company()
    return Deed(json={"email": owner.email}, actor=owner.user_id)


async def change_email(stage: Stage) -> Deed:
    return Deed(by=await stage.company(), json={"new_email": f"new-{uuid4().hex}@example.org"})


async def change_phone(stage: Stage) -> Deed:
    owner, phone = await confirmed(stage), new_phone()
    return Deed(by=owner, json={"phone": phone, "code": await stage.code(phone)})


async def with_both(stage: Stage) -> Deed:
    """Take one of two ways to sign in away."""
    deed = await change_phone(stage)
    assert deed.by is not None
    succeeded(await deed.by.post("auth/change-phone", deed.json))
    return Deed(by=deed.by)


async def confirmed(stage: Stage) -> Person:
    """Return somebody whose address is confirmed."""
    owner = await stage.company()
    await stage.post("auth/verify-email", {"token": await stage.letter_token(owner.email, welcome=True)})
    return owner


DEEDS: dict[str, Play] = {
    f"POST {AUTH}/register": register,
    f"POST {AUTH}/register/confirm": finish_registration,
    f"POST {AUTH}/login": login,
    f"POST {AUTH}/logout": with_nothing,
    f"POST {AUTH}/logout-everywhere": with_nothing,
    f"DELETE {AUTH}/sessions/{{session_id}}": end_device,
    f"POST {AUTH}/switch-tenant": switch,
    f"POST {AUTH}/forgot-password": forget,
    f"POST {AUTH}/reset-password": reset,
    f"POST {AUTH}/change-password": change_password,
    f"POST {AUTH}/2fa/enrol": with_nothing,
    f"POST {AUTH}/2fa/confirm": confirm_app,
    f"POST {AUTH}/2fa/disable": with_second_factor,
    f"POST {AUTH}/2fa/recovery-codes": with_second_factor,
    f"POST {AUTH}/verify-2fa": answer_challenge,
    f"POST {AUTH}/step-up": step_up,
    f"POST {AUTH}/request-code": request_code,
    f"POST {AUTH}/confirm-code": confirm_code,
    f"POST {AUTH}/send-code": ask_code,
    f"POST {AUTH}/verify": verify_code,
    f"POST {AUTH}/verify-email": verify_email,
    f"POST {AUTH}/resend-verification": resend_letter,
    f"POST {AUTH}/change-email": change_email,
    f"DELETE {AUTH}/email": with_both,
    f"POST {AUTH}/change-phone": change_phone,
    f"DELETE {AUTH}/phone": with_both,
    "POST /api/auth/send-code": ask_code,
    "POST /api/auth/login-password": login_by_phone,
    "POST /api/auth/register-full": register_full,
    "POST /api/auth/reset-password": reset_by_phone,
    "POST /api/auth/set-profile": set_profile,
    "POST /api/auth/logout": with_nothing,
}
