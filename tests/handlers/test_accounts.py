"""One's own address and phone over REST: the letter's token, what strangers learn, what a platform asks."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import ClientSession
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers import accounts
from handlers.context import RateRules
from tests.handlers.frame import open_door
from tests.namespaces.instances import beside
from tests.support.identity import letter_in, token_in
from tests.support.people import Answer, Person, RegisterCompany, address, company_factory, request
from tests.support.phones import new_phone
from tests.support.running import Orchestrator

# What is said on the wire is the same in both deployments.
pytestmark = pytest.mark.embedded


def new_address() -> str:
    return f"somebody-{uuid4().hex[:12]}@example.org"


async def post(person: Person, path: str, body: object) -> Answer:
    """Post without a token."""
    return await request(person.http, "POST", address(person.url, f"auth/{path}"), json=body)


async def confirm(person: Person, orchestrator: Orchestrator, recipient: str, *, welcome: bool = False) -> Answer:
    """Send the token of the first letter to an address."""
    letter = await letter_in(orchestrator.settings.data_dir / "outbox", recipient, welcome=welcome)
    return await post(person, "verify-email", {"token": token_in(letter)})


async def add_phone(person: Person, phone: str) -> Answer:
    _, sent = await post(person, "send-code", {"phone": phone})
    return await person.post("auth/change-phone", {"phone": phone, "code": sent["dev_code"]})


async def test_the_letters_token_confirms_the_address_once(
    company: RegisterCompany, orchestrator: Orchestrator
) -> None:
    owner = await company()
    assert owner.registration["user"]["email_verified"] is False

    first = await confirm(owner, orchestrator, owner.email, welcome=True)
    again = await confirm(owner, orchestrator, owner.email, welcome=True)

    assert first == (200, {"status": "success", "message": "Email address has been confirmed"})
    assert (again[0], again[1]["error"]["code"]) == (400, "AUTH_ERROR")
    assert (await owner.get("auth/me"))[1]["data"]["user"]["email_verified"] is True
    assert (await owner.get("/api/auth/me"))[1]["email_verified"] is True


async def test_asking_for_the_letter_again_tells_nothing_of_who_has_an_account(
    company: RegisterCompany, orchestrator: Orchestrator
) -> None:
    waiting, done = await company(), await company()
    await confirm(done, orchestrator, done.email, welcome=True)

    answers = [
        await post(waiting, "resend-verification", {"email": email})
        for email in (waiting.email, done.email, new_address())
    ]

    assert (
        answers
        == [(200, {"status": "success", "message": "If this email still has to be confirmed, a letter has been sent"})]
        * 3
    )


async def test_address_and_phone_come_change_and_go(company: RegisterCompany, orchestrator: Orchestrator) -> None:
    owner, new, phone = await company(), new_address(), new_phone()
    status, answer = await add_phone(owner, phone)
    assert (status, answer["error"]["code"]) == (403, "EMAIL_UNVERIFIED")

    assert (await owner.post("auth/change-email", {"new_email": new}))[0] == 200
    assert (await confirm(owner, orchestrator, new))[0] == 200
    assert (await owner.get("auth/me"))[1]["data"]["email"] == new
    status, answer = await owner.delete("auth/email")
    assert (status, answer["error"]["code"]) == (409, "LAST_SIGN_IN")
    assert (await add_phone(owner, phone))[0] == 200
    assert (await owner.get("auth/me"))[1]["data"]["phone"] == phone

    assert await owner.delete("auth/email") == (200, {"status": "success", "message": "Email address has been removed"})
    shown = (await owner.get("auth/me"))[1]["data"]
    assert (shown["email"], shown["email_verified"]) == ("", False)
    status, answer = await owner.delete("auth/phone")
    assert (status, answer["error"]["code"]) == (409, "LAST_SIGN_IN")
    status, answer = await owner.delete("auth/email")
    assert (status, answer["error"]["code"]) == (404, "EMAIL_ABSENT")
    titles = [item["title"] for item in (await owner.get("notifications"))[1]["data"]]
    assert {"Your account has another phone", "Your e-mail address was removed"} <= set(titles)


async def test_a_phone_that_nobody_has_is_not_taken_away(company: RegisterCompany, orchestrator: Orchestrator) -> None:
    owner = await company()
    assert (await confirm(owner, orchestrator, owner.email, welcome=True))[0] == 200
    before = await owner.get("notifications")

    status, answer = await owner.delete("auth/phone")

    assert (status, answer["error"]["code"]) == (404, "PHONE_ABSENT")
    assert await owner.get("notifications") == before
    assert "user.phone_removed" not in [item["action"] for item in (await owner.get("audit"))[1]["data"]]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("verify-email", {"token": "x" * 257}, "body -> token"),
        ("verify-email", {"token": "a\x00b"}, "body"),
        ("resend-verification", {"email": "nobody"}, "body -> email"),
        ("resend-verification", {"email": "x" * 5000 + "@example.org"}, "body -> email"),
    ],
)
async def test_a_bad_form_names_its_field(company: RegisterCompany, path: str, body: Any, field: str) -> None:
    status, answer = await post(await company(), path, body)
    assert (status, answer["errors"][0]["field"]) == (422, field)


@pytest.fixture
async def strict(orchestrator: Orchestrator) -> AsyncIterator[Orchestrator]:
    """A server whose platform insists on confirmed addresses."""
    async with beside(orchestrator, require_verified_email=True) as other:
        yield other


async def test_a_platform_may_insist_on_a_confirmed_address(strict: Orchestrator, http: ClientSession) -> None:
    register = company_factory(http, strict.url)
    owner, known = await register(), await register()
    plans = (await request(http, "GET", address(strict.url, "billing/plans")))[1]["data"]
    plan = next(plan["id"] for plan in plans if plan["price_monthly"] > 0)
    page = "http://localhost:3000/"
    invite = ("POST", f"tenants/{owner.tenant_id}/users/invite", {"email": known.email})
    deeds: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "billing/checkout", {"plan_id": plan, "success_url": page, "cancel_url": page}),
        ("POST", "tenants", {"name": "Another one"}),
        ("POST", f"tenants/{owner.tenant_id}/transfer-ownership", {"user_id": str(known.user_id)}),
        ("DELETE", f"tenants/{owner.tenant_id}", {}),
        invite,
    ]

    refused = [await owner.request(method, path, json=body) for method, path, body in deeds]
    await confirm(owner, strict, owner.email, welcome=True)
    allowed = [await owner.request(method, path, json=body) for method, path, body in (deeds[0], deeds[1], invite)]

    assert [(status, answer["error"]["code"]) for status, answer in refused] == [(403, "EMAIL_UNVERIFIED")] * 5
    assert [status for status, _ in allowed] == [200, 201, 201]
    assert allowed[2][1]["data"]["user_id"] is None, "an account that may be a stranger's is not let in by its address"
    # The letter decides: whoever reads it and is signed in with that address joins, and has confirmed it.
    letter = await letter_in(strict.settings.data_dir / "outbox", known.email)
    status, _ = await known.post(f"invitations/{token_in(letter)}/accept")
    assert status == 200
    assert (await known.get("auth/me"))[1]["data"]["email_verified"] is True


async def test_whoever_may_not_change_a_phone_uses_up_no_attempts_at_it(
    orchestrator: Orchestrator, engine: AsyncEngine
) -> None:
    rules, body = RateRules(auth_per_account="3/minute"), {"phone": new_phone(), "code": "000000"}
    who = {"Authorization": "Bearer stranger"}
    async with open_door(engine, rules=rules, routers=[accounts.router], services=orchestrator.services) as client:
        for _ in range(5):
            answer = await client.post("/api/v1/auth/change-phone", json=body, headers=who)
            assert answer.status == 403
