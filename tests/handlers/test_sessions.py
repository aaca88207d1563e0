"""Where somebody is signed in, over REST: to look at, to end, and to be believed without a look at the database."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

import jwt
import pytest
from aiohttp import ClientSession
from sqlalchemy import event, update

from models.tenants import Tenant, TenantStatus
from models.users import User
from services.auth.endings import end_sessions
from services.standing import tenant_closed
from services.unit_of_work import PlatformScope
from tests.support.listeners import Listener
from tests.support.people import Person, RegisterCompany, address, request
from tests.support.running import Orchestrator

# What is said on the wire is the same in both deployments.
pytestmark = pytest.mark.embedded

PLATFORM = PlatformScope("a test looks at everything")


async def sign_in(person: Person, **headers: str) -> Person:
    """Return the person as another device of theirs."""
    body = {"email": person.email, "password": person.password}
    url = address(person.url, "auth/login")
    status, answer = await request(person.http, "POST", url, json=body, headers=headers)
    assert status == 200, answer
    data = answer["data"]
    return replace(person, token=data["access_token"], refresh_token=data["refresh_token"])


def session_id(person: Person) -> str:
    claims: dict[str, Any] = jwt.decode(person.token, options={"verify_signature": False})
    return str(claims["sid"])


async def code_of(person: Person) -> tuple[int, str | None]:
    """Return how a person is answered now, and the code if it is a refusal."""
    status, answer = await person.get("auth/me")
    return status, (answer["error"] or {}).get("code")


@contextmanager
def statements(orchestrator: Orchestrator) -> Iterator[list[str]]:
    """Collect the SQL that the server runs."""
    seen: list[str] = []
    engine = orchestrator.house.engine.sync_engine

    def note(_: object, __: object, statement: str, *___: object) -> None:
        seen.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def test_devices_are_listed_with_the_one_that_asks(company: RegisterCompany, http: ClientSession) -> None:
    desk = await company()
    phone = await sign_in(desk, **{"User-Agent": "Phone/1.0"})

    status, answer = await phone.get("auth/sessions")

    assert status == 200
    newest, oldest = answer["data"]
    assert set(newest) == {
        "id", "device", "ip", "tenant_id", "created_at", "last_seen_at", "expires_at", "current",
        "impersonated",
    }  # fmt: skip
    assert (newest["id"], newest["device"], newest["current"]) == (session_id(phone), "Phone/1.0", True)
    assert (oldest["id"], oldest["current"]) == (session_id(desk), False)
    assert newest["ip"] in ("127.0.0.1", "::1")
    assert newest["tenant_id"] == str(desk.tenant_id)


async def test_a_refresh_tells_where_the_session_is_now(company: RegisterCompany) -> None:
    owner = await company()
    url = address(owner.url, "auth/refresh")
    body = {"refresh_token": owner.refresh_token}
    await request(owner.http, "POST", url, json=body, headers={"User-Agent": "Phone/2.0"})

    _, answer = await owner.get("auth/sessions")

    assert [item["device"] for item in answer["data"]] == ["Phone/2.0"]
    assert answer["data"][0]["last_seen_at"] > answer["data"][0]["created_at"]


async def test_a_device_is_signed_out_from_another(company: RegisterCompany) -> None:
    desk = await company()
    phone = await sign_in(desk)
    listener = await Listener().connect(desk.url, phone.token)

    status, answer = await desk.delete(f"auth/sessions/{session_id(phone)}")

    assert (status, answer) == (200, {"status": "success", "message": "Session ended successfully"})
    assert await code_of(phone) == (401, "TOKEN_REVOKED")
    url = address(desk.url, "auth/refresh")
    assert (await request(desk.http, "POST", url, json={"refresh_token": phone.refresh_token}))[0] == 401
    assert await code_of(desk) == (200, None)
    await listener.until(lambda: listener.of("auth:revoked"))
    await listener.close()
    for ended in (session_id(phone), str(uuid4())):
        status, answer = await desk.delete(f"auth/sessions/{ended}")
        assert (status, answer["message"]) == (404, "Session not found")
    assert (await desk.delete("auth/sessions/x"))[0] == 422


async def test_nobody_ends_somebody_elses_session(company: RegisterCompany) -> None:
    owner, other = await company(), await company()

    assert (await other.delete(f"auth/sessions/{session_id(owner)}"))[0] == 404
    assert await code_of(owner) == (200, None)


@pytest.mark.parametrize("path", ["logout-everywhere", "logout-all"])
async def test_signing_out_everywhere_ends_this_session_too(company: RegisterCompany, path: str) -> None:
    desk, stranger = await company(), await company()
    phone = await sign_in(desk)

    assert (await phone.post(f"auth/{path}"))[0] == 200

    assert {await code_of(desk), await code_of(phone)} == {(401, "TOKEN_REVOKED")}
    assert await code_of(stranger) == (200, None)


async def test_a_token_is_believed_without_a_look_at_the_database(
    company: RegisterCompany, orchestrator: Orchestrator
) -> None:
    owner = await company()
    await owner.get("notifications/unread-count")

    with statements(orchestrator) as seen:
        status, _ = await owner.get("tenants/current")

    assert status == 200
    assert any("tenants" in statement for statement in seen), "the use case itself asks"
    assert not [statement for statement in seen if "user_sessions" in statement or "FROM users" in statement]


async def test_whom_a_change_concerns_is_looked_up(company: RegisterCompany, orchestrator: Orchestrator) -> None:
    desk = await company()
    phone = await sign_in(desk)
    await desk.delete(f"auth/sessions/{session_id(phone)}")

    with statements(orchestrator) as seen:
        assert await code_of(phone) == (401, "TOKEN_REVOKED")

    assert [statement for statement in seen if "user_sessions" in statement]


async def test_who_was_removed_from_a_tenant_is_out_at_once(company: RegisterCompany) -> None:
    owner, guest = await company(), await company()
    await owner.post(f"tenants/{owner.tenant_id}/users/invite", {"email": guest.email, "role": "member"})
    _, answer = await guest.post("auth/switch-tenant", {"tenant_id": str(owner.tenant_id)})
    guest.token = answer["data"]["access_token"]
    assert (await guest.get("tenants/current"))[0] == 200

    await owner.delete(f"tenants/{owner.tenant_id}/users/{guest.user_id}")

    status, answer = await guest.get("tenants/current")
    assert (status, answer["error"]["code"]) == (403, "PERMISSION_DENIED")


async def test_a_changed_role_counts_at_once(company: RegisterCompany) -> None:
    owner, guest = await company(), await company()
    await owner.post(f"tenants/{owner.tenant_id}/users/invite", {"email": guest.email, "role": "admin"})
    _, answer = await guest.post("auth/switch-tenant", {"tenant_id": str(owner.tenant_id)})
    guest.token = answer["data"]["access_token"]

    await owner.patch(f"tenants/{owner.tenant_id}/users/{guest.user_id}", {"role": "member"})

    status, answer = await guest.post("billing/cancel")
    assert (status, answer["error"]["code"]) == (403, "PERMISSION_DENIED")


async def test_a_suspended_tenant_may_still_see_and_pay_its_bills(
    company: RegisterCompany, orchestrator: Orchestrator
) -> None:
    owner = await company()
    async with orchestrator.units(PLATFORM) as uow:
        await uow.session.execute(
            update(Tenant).where(Tenant.id == owner.tenant_id).values(status=TenantStatus.SUSPENDED)
        )
        uow.record(tenant_closed(owner.tenant_id))

    status, _ = await owner.get("billing/subscription")
    assert status == 200


async def test_a_user_who_was_switched_off_is_out_at_once(company: RegisterCompany, orchestrator: Orchestrator) -> None:
    owner = await company()
    async with orchestrator.units(PLATFORM) as uow:
        await uow.session.execute(update(User).where(User.id == owner.user_id).values(is_active=False))
        await end_sessions(uow, owner.user_id, reason="deactivated")

    assert await code_of(owner) == (401, "TOKEN_REVOKED")


async def test_a_reused_refresh_token_is_told_to_its_owner(company: RegisterCompany) -> None:
    owner = await company()
    url, first = address(owner.url, "auth/refresh"), owner.refresh_token
    newest = first
    for _ in range(2):
        _, answer = await request(owner.http, "POST", url, json={"refresh_token": newest})
        newest = answer["data"]["refresh_token"]

    assert (await request(owner.http, "POST", url, json={"refresh_token": first}))[0] == 401

    back = await sign_in(owner)
    _, answer = await back.get("notifications")
    [notice] = [item for item in answer["data"] if item["data"].get("notice") == "session_reused"]
    assert (notice["type"], notice["title"]) == ("warning", "A sign-in was ended for safety")
