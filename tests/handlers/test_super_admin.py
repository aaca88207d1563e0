"""The platform's own people over REST: the forms of the second ancestor field by field, and nobody else let in."""

from typing import Any
from uuid import uuid4

import pyotp
import pytest
from sqlalchemy import update

from models.users import User
from services.unit_of_work import PlatformScope
from tests.support.people import Person, RegisterCompany, address, request
from tests.support.running import Orchestrator

USERS = "super-admin/users"


@pytest.fixture
async def boss(orchestrator: Orchestrator, company: RegisterCompany) -> Person:
    """One of the platform's people, just signed in."""
    person = await company("Platform", full_name="Petra Platform")
    async with orchestrator.units(PlatformScope("a test makes a superuser")) as uow:
        await uow.session.execute(update(User).where(User.id == person.user_id).values(is_superuser=True))
    body = {"email": person.email, "password": person.password}
    _, answer = await request(person.http, "POST", address(person.url, "auth/login"), json=body)
    person.token = answer["data"]["access_token"]
    return person


def a_phone() -> str:
    return f"+7999{uuid4().int % 10**7:07}"


async def put(person: Person, path: str, json: object = None) -> tuple[int, Any]:
    return await person.request("PUT", path, json=json)


async def test_users_are_listed_and_sought(boss: Person, company: RegisterCompany) -> None:
    person = await company(full_name="Zoë Sought-100%")
    status, answer = await boss.get(USERS, params={"q": person.email.upper()})
    assert status == 200
    assert {key: answer[key] for key in answer if key != "users"} == {"total": 1, "page": 1, "size": 100, "pages": 1}
    [shown] = answer["users"]
    created_at = shown.pop("created_at")
    assert created_at.endswith("Z")
    assert shown == {
        "id": str(person.user_id),
        "phone": None,
        "role": "user",
        "phone_verified": False,
        "email": person.email,
        "email_verified": False,
        "full_name": "Zoë Sought-100%",
        "is_active": True,
    }
    _, answer = await boss.get(USERS, params={"q": "Sought-100%", "size": "1", "page": "1"})
    assert [user["full_name"] for user in answer["users"]] == ["Zoë Sought-100%"]
    assert answer["size"] == 1
    _, answer = await boss.get(USERS, params={"q": boss.email})
    assert answer["users"][0]["role"] == "super_admin"
    _, answer = await boss.get(USERS, params={"q": "%_%"})
    assert answer["total"] == 0


async def test_an_account_is_switched_off_and_on(boss: Person, company: RegisterCompany) -> None:
    person = await company()
    for _ in range(2):
        status, answer = await put(boss, f"{USERS}/{person.user_id}/deactivate")
        assert (status, answer) == (200, {"status": "ok", "message": f"User {person.user_id} deactivated"})
    status, answer = await person.get("auth/me")
    assert (status, answer["error"]["code"]) == (401, "TOKEN_REVOKED")
    body = {"email": person.email, "password": person.password}
    status, answer = await request(person.http, "POST", address(person.url, "auth/login"), json=body)
    assert (status, answer["detail"]) == (401, "User account is inactive")
    status, answer = await put(boss, f"{USERS}/{person.user_id}/activate", {"reason": "It was a mistake"})
    assert (status, answer) == (200, {"status": "ok", "message": f"User {person.user_id} activated"})
    status, _ = await request(person.http, "POST", address(person.url, "auth/login"), json=body)
    assert status == 200
    status, answer = await put(boss, f"{USERS}/{boss.user_id}/deactivate")
    assert (status, answer["error"]["code"]) == (409, "OWN_ACCOUNT")
    status, answer = await put(boss, f"{USERS}/{uuid4()}/deactivate")
    assert (status, answer["detail"]) == (404, "User not found")


async def test_a_master_is_made_found_and_signs_in(boss: Person) -> None:
    phone = a_phone()
    body = {"phone": phone.replace("+7", "8 "), "password": "correct horse", "role": "platform_master"}
    status, made = await boss.post("users", body)
    assert status == 201
    assert made == {
        "id": made["id"],
        "phone": phone,
        "phone_verified": True,
        "role": "platform_master",
        "created_at": made["created_at"],
    }
    assert await boss.get(f"users/{made['id']}") == (200, made)
    assert await boss.get(f"users/by-phone/{phone}") == (200, made)
    url = address(boss.url, "/api/auth/login-password")
    status, answer = await request(boss.http, "POST", url, json={"phone": phone, "password": "correct horse"})
    assert (status, answer["tenant_id"]) == (200, None)
    status, answer = await boss.post("users", body)
    assert (status, answer["detail"]) == (400, "User with this phone already exists")
    status, answer = await boss.post("users", {**body, "phone": a_phone(), "role": "super_admin"})
    assert (status, answer["error"]["code"]) == (400, "ROLE_NOT_ALLOWED")
    for path in (f"users/{uuid4()}", f"users/by-phone/{a_phone()}"):
        status, answer = await boss.get(path)
        assert (status, answer["detail"]) == (404, "User not found")
    assert (await boss.get("users/by-phone/nobody"))[0] == 422


async def login_at(person: Person, door: str, login: str, password: str, **extra: str) -> tuple[int, Any]:
    url = address(person.url, f"{door}/login")
    return await request(person.http, "POST", url, json={"login": login, "password": password, **extra})


async def test_each_signs_in_at_the_second_ancestors_door(boss: Person, orchestrator: Orchestrator) -> None:
    phone, password = a_phone(), "correct horse"
    status, made = await boss.post("platform/register-master", {"phone": phone, "password": password})
    assert (status, made["role"]) == (201, "platform_master")

    status, master = await login_at(boss, "platform", phone.replace("+7", "8 "), password)
    assert (status, set(master), master["role"]) == (200, {"token", "refresh_token", "role"}, "platform_master")
    bearer = {"Authorization": f"Bearer {master['token']}"}
    url = address(boss.url, "platform/content")
    assert (await request(boss.http, "GET", url, headers=bearer))[0] == 200
    status, chief = await login_at(boss, "super-admin", boss.email, boss.password)
    assert (status, chief["role"]) == (200, "super_admin")

    before = len((await boss.get("auth/sessions"))[1]["data"])
    for door, login, text in (
        ("super-admin", phone, "Access denied. Super admin role required."),
        ("platform", boss.email, "Access denied. Platform master role required."),
    ):
        status, answer = await login_at(boss, door, login, password)
        assert (status, answer["detail"]) == (403, text)
    assert len((await boss.get("auth/sessions"))[1]["data"]) == before, "whoever is refused has no session"
    for login, wrong in ((phone, "wrong"), ("nobody@example.org", password), ("nobody", password)):
        status, answer = await login_at(boss, "platform", login, wrong)
        assert (status, answer["detail"]) == (401, "Invalid login or password")
    assert (await login_at(boss, "platform", phone, password, role="super_admin"))[0] == 422


async def test_a_lost_second_factor_is_reset(
    boss: Person, company: RegisterCompany, orchestrator: Orchestrator
) -> None:
    owner = await company()
    path = f"super-admin/users/{owner.user_id}/reset-second-factor"
    status, answer = await boss.post(path, {"reason": "a lost phone"})
    assert (status, answer["detail"]) == (409, "Two-factor authentication is not set up")
    secret = (await owner.post("auth/2fa/enrol"))[1]["data"]["secret"]
    await owner.post("auth/2fa/confirm", {"code": pyotp.TOTP(secret).at(orchestrator.clock.now())})

    assert (await boss.post(path))[0] == 422, "a reason is asked for"
    assert await boss.post(path, {"reason": "a lost phone"}) == (
        200,
        {"status": "success", "message": "The second factor has been reset"},
    )

    assert (await owner.get("auth/me"))[0] == 401
    body = {"email": owner.email, "password": owner.password}
    status, answer = await request(owner.http, "POST", address(owner.url, "auth/login"), json=body)
    assert (status, "access_token" in answer["data"]) == (200, True)


async def test_acting_in_somebodys_name(boss: Person, company: RegisterCompany) -> None:
    person = await company()
    path = f"{USERS}/{person.user_id}/impersonate"
    assert (await boss.post(path, {"reason": ""}))[0] == 422
    status, answer = await boss.post(path, {"reason": "A question about their invoice"})
    assert status == 201
    seen = answer["data"]
    assert set(seen) == {"access_token", "token_type", "expires_at", "session_id", "user_id", "tenant_id"}
    assert (seen["user_id"], seen["tenant_id"]) == (str(person.user_id), str(person.tenant_id))
    headers = {"Authorization": f"Bearer {seen['access_token']}"}
    status, answer = await request(person.http, "GET", address(person.url, "auth/me"), headers=headers)
    assert (status, answer["data"]["email"]) == (200, person.email)
    proof = {"password": person.password}
    status, answer = await request(
        person.http, "POST", address(person.url, "auth/step-up"), json=proof, headers=headers
    )
    assert (status, answer["error"]["code"]) == (403, "IMPERSONATED")
    url = address(person.url, f"tenants/{person.tenant_id}")
    assert (await request(person.http, "PATCH", url, json={"name": "Renamed"}, headers=headers))[0] == 200
    _, answer = await person.get("audit", params={"action": "tenant.updated"})
    [entry] = answer["data"]
    assert (entry["actor_id"], entry["details"]["impersonator_id"]) == (str(person.user_id), str(boss.user_id))


async def test_tenants_are_listed_closed_and_opened(boss: Person, company: RegisterCompany) -> None:
    person = await company()
    slug = person.registration["current_tenant"]["slug"]
    _, answer = await boss.get("super-admin/tenants", params={"q": slug})
    [shown] = answer["data"]
    assert set(shown) == {
        *("id", "name", "slug", "status", "erpnext_site_url", "created_at", "updated_at"),
        *("members", "deletion_due_at"),
    }
    assert (shown["id"], shown["members"], shown["deletion_due_at"]) == (str(person.tenant_id), 1, None)
    path = f"super-admin/tenants/{person.tenant_id}"
    assert (await put(boss, f"{path}/suspend", {}))[0] == 422
    status, answer = await put(boss, f"{path}/suspend", {"reason": "Three bills are open"})
    assert (status, answer["message"]) == (200, "Tenant suspended")
    for status_sought, found in (("suspended", 1), ("active", 0), ("cancelled", 0)):
        _, answer = await boss.get("super-admin/tenants", params={"q": slug, "status": status_sought})
        assert len(answer["data"]) == found
    status, answer = await put(boss, f"{path}/reinstate", {"reason": "They have paid"})
    assert (status, answer["message"]) == (200, "Tenant reinstated")
    _, answer = await boss.get("super-admin/audit", params={"tenant_id": str(person.tenant_id), "action": "tenant"})
    # The site that is being made meanwhile has entries of its own.
    theirs = [entry for entry in answer["data"] if entry["action"] in ("tenant.suspended", "tenant.reinstated")]
    newest, former = theirs[:2]
    assert (newest["action"], newest["details"]["reason"]) == ("tenant.reinstated", "They have paid")
    assert (former["action"], former["actor_id"]) == ("tenant.suspended", str(boss.user_id))
    assert (await put(boss, f"super-admin/tenants/{uuid4()}/suspend", {"reason": "Nobody"}))[0] == 404


@pytest.mark.embedded
async def test_nobody_else_is_let_in(company: RegisterCompany) -> None:
    owner = await company()
    reason = {"reason": "Let me in"}
    calls: list[tuple[str, str, object]] = [
        ("GET", USERS, None),
        ("PUT", f"{USERS}/{owner.user_id}/activate", None),
        ("PUT", f"{USERS}/{owner.user_id}/deactivate", None),
        ("POST", f"{USERS}/{owner.user_id}/impersonate", reason),
        ("GET", "super-admin/tenants", None),
        ("PUT", f"super-admin/tenants/{owner.tenant_id}/suspend", reason),
        ("PUT", f"super-admin/tenants/{owner.tenant_id}/reinstate", reason),
        ("POST", "users", {"phone": a_phone(), "password": "correct horse", "role": "platform_master"}),
        ("GET", f"users/{owner.user_id}", None),
        ("GET", f"users/by-phone/{a_phone()}", None),
    ]
    for method, path, body in calls:
        status, answer = await owner.request(method, path, json=body)
        assert (status, answer["error"]["code"]) == (403, "PERMISSION_DENIED"), path
        assert (await request(owner.http, method, address(owner.url, path), json=body))[0] == 401, path
