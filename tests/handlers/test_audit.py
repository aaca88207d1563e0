"""The audit over REST: who may see it, what it shows, and how it is narrowed."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import update

from models.users import User
from services.unit_of_work import PlatformScope
from tests.support.people import Person, RegisterCompany, address, request
from tests.support.running import Orchestrator

# What is said on the wire is the same in both deployments.
pytestmark = pytest.mark.embedded


async def listed(person: Person, path: str = "audit", **params: str) -> list[dict[str, Any]]:
    status, answer = await person.get(path, params=params)
    assert status == 200, answer
    entries: list[dict[str, Any]] = answer["data"]
    return entries


async def superuser(orchestrator: Orchestrator, company: RegisterCompany) -> Person:
    person = await company("Platform")
    async with orchestrator.units(PlatformScope("a test makes a superuser")) as uow:
        await uow.session.execute(update(User).where(User.id == person.user_id).values(is_superuser=True))
    body = {"email": person.email, "password": person.password}
    _, answer = await request(person.http, "POST", address(person.url, "auth/login"), json=body)
    person.token = answer["data"]["access_token"]
    return person


async def test_the_owner_sees_who_did_what(company: RegisterCompany) -> None:
    owner = await company()
    status, _ = await owner.patch(f"tenants/{owner.tenant_id}", {"name": "Renamed"}, headers={"User-Agent": "Tests/1"})
    assert status == 200
    entries = await listed(owner)
    newest = entries[0]
    assert set(newest) == {
        *("id", "event", "source", "action", "tenant_id", "actor_id", "subject_type", "subject_id", "details"),
        *("ip", "user_agent", "request_id", "created_at", "seq", "seal"),
    }
    assert (newest["event"], newest["actor_id"]) == ("rest.tenant.updated", str(owner.user_id))
    assert (newest["user_agent"], newest["ip"]) == ("Tests/1", "127.0.0.1")
    assert [entry["seq"] for entry in entries] == sorted((entry["seq"] for entry in entries), reverse=True)


async def test_the_list_is_narrowed(company: RegisterCompany, orchestrator: Orchestrator) -> None:
    owner = await company()
    await owner.patch(f"tenants/{owner.tenant_id}", {"name": "Renamed"})
    actions = {entry["action"] for entry in await listed(owner)}
    assert {"tenant.updated", "user.registered"} <= actions
    assert {entry["action"] for entry in await listed(owner, action="tenant.updated")} == {"tenant.updated"}
    assert all(entry["action"].startswith("user.") for entry in await listed(owner, action="user"))
    assert await listed(owner, action="use") == []
    assert await listed(owner, action="tenant%") == []
    assert await listed(owner, actor_id=str(uuid4())) == []
    assert len(await listed(owner, subject_type="user", subject_id=str(owner.user_id))) >= 1
    now = orchestrator.clock.now()
    assert await listed(owner, since=(now + timedelta(hours=1)).isoformat()) == []
    assert await listed(owner, until=(now - timedelta(hours=1)).isoformat()) == []
    assert len(await listed(owner, page="2", size="1")) == 1


async def test_members_do_not_see_it(company: RegisterCompany) -> None:
    owner, member = await company(), await company()
    status, answer = await owner.post(
        f"tenants/{owner.tenant_id}/users/invite", {"email": member.email, "role": "member"}
    )
    assert status == 201, answer
    status, answer = await member.post("auth/switch-tenant", {"tenant_id": str(owner.tenant_id)})
    assert status == 200, answer
    member.token = answer["data"]["access_token"]
    status, answer = await member.get("audit")
    assert (status, answer["error"]["code"]) == (403, "PERMISSION_DENIED")


async def test_each_tenant_sees_its_own(company: RegisterCompany) -> None:
    owner, stranger = await company(), await company()
    assert {entry["tenant_id"] for entry in await listed(owner)} == {str(owner.tenant_id)}
    assert await listed(owner, actor_id=str(stranger.user_id)) == []


async def test_the_platforms_people_see_all_of_it(company: RegisterCompany, orchestrator: Orchestrator) -> None:
    owner, admin = await company(), await superuser(orchestrator, company)
    found = await listed(admin, "super-admin/audit", tenant_id=str(owner.tenant_id))
    assert {entry["tenant_id"] for entry in found} == {str(owner.tenant_id)}
    status, answer = await owner.get("super-admin/audit")
    assert (status, answer["error"]["code"]) == (403, "PERMISSION_DENIED")


@pytest.mark.parametrize(
    "params",
    [
        {"actor_id": "x"},
        {"since": "yesterday"},
        {"since": "2026-01-01T00:00:00"},
        {"until": "9999-12-31T23:59:59-12:00"},
        {"action": "a" * 101},
        {"subject_id": "\x00"},
        {"action": "a\x00b"},
    ],
)
async def test_a_senseless_wish_is_refused(company: RegisterCompany, params: dict[str, str]) -> None:
    owner = await company()
    status, answer = await owner.get("audit", params=params)
    assert (status, answer["error"]["code"]) == (422, "VALIDATION_ERROR"), answer
