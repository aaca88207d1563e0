"""API keys on the wire: made and shown once, let in where a scope says so, and nowhere else."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from aiohttp import ClientSession
from sqlalchemy import select

from handlers.rest import Access, Endpoint
from models.api_keys import ApiKey
from models.audit import AuditEntry
from server.web import endpoints
from services.permissions import GRANTS, HOLDERS, KeyScope
from services.unit_of_work import PlatformScope
from tests.namespaces.instances import beside
from tests.namespaces.newcomers import found_company, newcomer
from tests.support.keys import MadeKey, keys_of, make_key
from tests.support.people import Person, address, request
from tests.support.running import Orchestrator

# What is said on the wire is the same in both deployments.
pytestmark = pytest.mark.embedded

PLATFORM = PlatformScope("a test looks at everything")
GUARDED = [endpoint for endpoint in endpoints(development=True) if endpoint.access is not Access.PUBLIC]


@pytest.fixture
async def owner(orchestrator: Orchestrator, http: ClientSession) -> Person:
    return await found_company(orchestrator, http)


@pytest.fixture
def moved(orchestrator: Orchestrator) -> Iterator[Any]:
    """The server's clock, put right again afterwards."""
    yield orchestrator.clock
    orchestrator.clock.offset = timedelta()


@pytest.fixture(scope="module")
async def keys(orchestrator: Orchestrator) -> AsyncIterator[dict[KeyScope | None, MadeKey]]:
    """For each scope a key that has all others, and one that has them all."""
    async with ClientSession() as http:
        owner = await found_company(orchestrator, http)
        made: dict[KeyScope | None, MadeKey] = {None: await make_key(owner, *KeyScope)}
        for scope in KeyScope:
            made[scope] = await make_key(owner, *set(KeyScope) - {scope})
        yield made


def code_of(answer: Any) -> str:
    return str(answer["error"]["code"])


async def entries(orchestrator: Orchestrator, key: MadeKey) -> list[AuditEntry]:
    statement = select(AuditEntry).where(AuditEntry.subject_id == key.id).order_by(AuditEntry.id)
    async with orchestrator.units(PLATFORM) as uow:
        return list(await uow.session.scalars(statement))


class TestMaking:
    async def test_a_key_is_shown_once_and_then_by_its_beginning(self, owner: Person) -> None:
        until = "2099-01-01T00:00:00Z"
        key = await make_key(owner, KeyScope.JOBS_READ, name="  1C  ", expires_at=until)

        assert re.fullmatch(r"erpmax_[a-z0-9]{8}_[A-Za-z0-9]{43}", key.text)
        assert key.text.startswith(f"{key.view['prefix']}_")
        shown = {name: value for name, value in key.view.items() if name != "key"}
        assert set(shown) == {
            *("id", "tenant_id", "name", "prefix", "scopes", "state"),
            *("created_by", "created_at", "expires_at", "last_used_at", "revoked_at"),
        }
        assert (shown["name"], shown["scopes"], shown["state"]) == ("1C", ["jobs:read"], "active")
        assert (shown["created_by"], shown["expires_at"]) == (str(owner.user_id), until)
        _, listed = await owner.get(keys_of(owner))
        assert (listed["data"], listed["pagination"]["total"]) == ([shown], 1)
        assert (await owner.get(key.path))[1]["data"] == shown

    async def test_the_secret_is_not_stored(self, orchestrator: Orchestrator, owner: Person) -> None:
        key = await make_key(owner)
        async with orchestrator.units(PLATFORM) as uow:
            row = (await uow.session.scalars(select(ApiKey).where(ApiKey.prefix == key.view["prefix"]))).one()
        stored = str({column.key: getattr(row, column.key) for column in ApiKey.__table__.columns})
        assert key.text.rpartition("_")[2] not in stored
        assert re.fullmatch("[0-9a-f]{64}", row.secret_hash)
        status, exported = await owner.get(f"tenants/{owner.tenant_id}/export")
        assert (status, exported["tables"]["api_keys"][0]["secret_hash"]) == (200, "[redacted]")

    @pytest.mark.parametrize(
        "body",
        [
            {"name": "", "scopes": ["jobs:read"]},
            {"name": "a\u0000b", "scopes": ["jobs:read"]},
            {"name": "a\u001b[2Jb", "scopes": ["jobs:read"]},
            {"name": "a\u202eb", "scopes": ["jobs:read"]},
            {"name": "x" * 101, "scopes": ["jobs:read"]},
            {"name": "1C", "scopes": []},
            {"name": "1C", "scopes": ["jobs:*"]},
            {"name": "1C", "scopes": ["keys:write"]},
            {"name": "1C"},
            {"name": "1C", "scopes": ["jobs:read"], "expires_at": "2020-01-01T00:00:00Z"},
            {"name": "1C", "scopes": ["jobs:read"], "expires_at": "2099-01-01T00:00:00"},
            {"name": "1C", "scopes": ["jobs:read"], "expires_at": "9999-12-31T23:59:59-23:59"},
            {"name": "1C", "scopes": ["jobs:read"], "expires_at": "0001-01-01T00:00:00+14:00"},
        ],
        ids=range(13),
    )
    async def test_what_is_no_key_is_refused(self, owner: Person, body: dict[str, Any]) -> None:
        status, answer = await owner.post(keys_of(owner), body)
        assert (status, code_of(answer)) == (422, "VALIDATION_ERROR")
        assert (await owner.get(keys_of(owner)))[1]["data"] == []

    async def test_it_needs_a_step_up(self, owner: Person, moved: Any) -> None:
        key = await make_key(owner)
        moved.offset += timedelta(minutes=11)
        status, answer = await owner.post(keys_of(owner), {"name": "1C", "scopes": ["jobs:read"]})
        assert (status, code_of(answer)) == (403, "STEP_UP_REQUIRED")
        # Ending one does not: whoever has seen it leak must not be held up.
        assert (await owner.delete(key.path))[0] == 200

    async def test_every_owner_is_told_in_their_own_language(self, orchestrator: Orchestrator, owner: Person) -> None:
        other = await newcomer(orchestrator, owner, "owner")
        admin = await newcomer(orchestrator, owner, "admin")
        key = await make_key(admin, KeyScope.BILLING_READ, KeyScope.JOBS_READ)
        for person, count in ((owner, 1), (other, 1), (admin, 0)):
            _, told = await person.get("notifications")
            texts = [f"{note['title']} {note['message']}" for note in told["data"]]
            assert len(texts) == count
            for text in texts:
                assert key.view["prefix"] in text
                assert "billing:read, jobs:read" in text
                assert key.text not in text

    async def test_what_is_done_with_keys_is_audited(self, orchestrator: Orchestrator, owner: Person) -> None:
        key = await make_key(owner)
        for name in ("New", "New"):
            status, answer = await owner.patch(key.path, {"name": name})
            assert (status, answer["data"]["name"]) == (200, "New")
        await key.revoke()
        await key.revoke()

        found = await entries(orchestrator, key)

        assert [entry.action for entry in found] == ["api_key.created", "api_key.renamed", "api_key.revoked"]
        assert {entry.actor_id for entry in found} == {owner.user_id}
        assert found[0].details["scopes"] == ["jobs:read", "jobs:write"]
        assert found[1].details == {"from": "1C", "to": "New"}
        assert key.text not in str([entry.details for entry in found])

    async def test_only_so_many_work_at_once(self, orchestrator: Orchestrator, owner: Person, moved: Any) -> None:
        async with beside(orchestrator, api_keys_per_tenant=2) as small:
            asking = Person(
                owner.http, small.url, owner.email, owner.password, owner.token, "", owner.user_id, owner.tenant_id, {}
            )
            soon = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
            await make_key(asking, expires_at=soon)
            second = await make_key(asking)
            status, answer = await asking.post(keys_of(owner), {"name": "1C", "scopes": ["jobs:read"]})
            assert (status, code_of(answer)) == (409, "API_KEY_LIMIT")
            await second.revoke()
            await make_key(asking)
            # One that has expired counts no more.
            small.clock.offset = timedelta(minutes=2)
            await make_key(asking)


class TestUsing:
    async def test_it_is_taken_in_both_headers(self, owner: Person, http: ClientSession) -> None:
        key = await make_key(owner)
        for headers in (
            {"Authorization": f"Bearer {key.text}"},
            {"Authorization": f"bearer {key.text}"},
            {"X-API-Key": key.text},
            # A page that has a cookie from somewhere is not asked for its origin.
            {"X-API-Key": key.text, "Cookie": 'access_token="Bearer forged"'},
        ):
            status, answer = await request(http, "GET", address(owner.url, "provisioning/jobs"), headers=headers)
            assert (status, answer["data"]) == (200, []), headers

    async def test_it_does_its_work(self, orchestrator: Orchestrator, owner: Person) -> None:
        key = await make_key(owner, *KeyScope)
        machine = key.machine
        status, answer = await machine.post("provisioning/jobs", {"job_type": "backup_site"})
        assert status == 201, answer
        job = answer["data"]["id"]
        assert (await machine.get(f"provisioning/jobs/{job}"))[0] == 200
        _, tenant = await machine.get("tenants/current")
        assert (tenant["data"]["id"], tenant["data"]["role"]) == (str(owner.tenant_id), None)
        _, people = await machine.get(f"tenants/{owner.tenant_id}/users")
        assert [person["user_id"] for person in people["data"]] == [str(owner.user_id)]
        statement = select(AuditEntry).where(AuditEntry.subject_id == job)
        async with orchestrator.units(PLATFORM) as uow:
            [entry] = [row for row in await uow.session.scalars(statement) if row.action.endswith("requested")]
        assert (str(entry.actor_id), entry.details["actor"]) == (key.id, "api_key")

    async def test_it_buys_a_plan(self, owner: Person) -> None:
        machine = (await make_key(owner, KeyScope.BILLING_WRITE)).machine
        _, plans = await owner.get("billing/plans")
        plan = next(plan for plan in plans["data"] if float(plan["price_monthly"]) > 0)
        body = {"plan_id": plan["id"], "success_url": "http://localhost:3000/", "cancel_url": "http://localhost:3000/"}
        status, answer = await machine.post("billing/checkout", body)
        assert status == 200, answer

    @pytest.mark.parametrize(
        "change",
        [
            lambda text: text[:-1] + ("A" if text[-1] != "A" else "B"),
            lambda text: text[:-1],
            lambda text: text + "A",
            lambda text: text.replace("erpmax_", "erpmax_x"),
            lambda text: "erpmax_" + "a" * 8 + text[15:],
            lambda text: text.split("_")[2],
            lambda text: text + "é",
            lambda _: "erpmax_",
        ],
        ids=range(8),
    )
    async def test_whatever_is_not_quite_a_key_opens_nothing(self, owner: Person, change: Any) -> None:
        wrong = change((await make_key(owner)).text)
        for headers in ({"Authorization": f"Bearer {wrong}"}, {"X-API-Key": wrong}):
            status, answer = await request(owner.http, "GET", address(owner.url, "provisioning/jobs"), headers=headers)
            assert (status, code_of(answer)) == (401, "AUTH_ERROR")

    @pytest.mark.parametrize("header", ["Authorization: Bearer ", "X-API-Key: "])
    @pytest.mark.parametrize("line", ["GET /api/v1/provisioning/jobs", "POST /api/v1/invitations/x/accept"])
    async def test_bytes_that_are_no_text_open_nothing(self, owner: Person, header: str, line: str) -> None:
        parts = urlsplit(owner.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        head = f"{line} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n{header}erpmax_".encode()
        writer.write(head + b"\xff\r\nContent-Length: 0\r\n\r\n")
        answer = (await reader.read()).split(b"\r\n", 1)[0]
        writer.close()
        await writer.wait_closed()
        assert answer in (b"HTTP/1.1 401 Unauthorized", b"HTTP/1.1 422 Unprocessable Entity")

    async def test_a_token_is_no_key(self, owner: Person) -> None:
        headers = {"X-API-Key": owner.token}
        status, answer = await request(owner.http, "GET", address(owner.url, "provisioning/jobs"), headers=headers)
        assert (status, code_of(answer)) == (401, "AUTH_ERROR")

    async def test_it_opens_nothing_of_another_tenant(
        self, owner: Person, orchestrator: Orchestrator, http: ClientSession
    ) -> None:
        machine = (await make_key(await found_company(orchestrator, http), *KeyScope)).machine
        for path in ("", "/status", "/users", "/invitations"):
            status, answer = await machine.get(f"tenants/{owner.tenant_id}{path}")
            assert (status, code_of(answer)) == (403, "PERMISSION_DENIED")

    async def test_it_ends_when_it_was_to_end(self, owner: Person, moved: Any) -> None:
        key = await make_key(owner, expires_at=(datetime.now(UTC) + timedelta(seconds=30)).isoformat())
        assert (await key.machine.get("provisioning/jobs"))[0] == 200
        # Within the minute for which it is remembered.
        moved.offset += timedelta(seconds=31)
        for _ in range(2):
            status, answer = await key.machine.get("provisioning/jobs")
            assert (status, code_of(answer)) == (401, "API_KEY_EXPIRED")
            moved.offset += timedelta(minutes=2)
        assert (await owner.get(key.path))[1]["data"]["state"] == "expired"

    async def test_it_outlives_the_place_of_who_made_it(self, orchestrator: Orchestrator, owner: Person) -> None:
        admin = await newcomer(orchestrator, owner, "admin")
        key = await make_key(admin)
        assert (await owner.delete(f"tenants/{owner.tenant_id}/users/{admin.user_id}"))[0] == 200
        assert (await key.machine.get("provisioning/jobs"))[0] == 200
        assert (await admin.delete(key.path))[0] == 403, "who has left rules over no key"
        _, shown = await owner.get(key.path)
        assert shown["data"]["created_by"] == str(admin.user_id)

    async def test_a_closed_tenants_keys_open_nothing_until_it_is_open_again(
        self, orchestrator: Orchestrator, owner: Person
    ) -> None:
        key = await make_key(owner)
        slug = owner.registration["current_tenant"]["slug"]
        suspension = orchestrator.services.tenants.suspension
        assert (await key.machine.get("provisioning/jobs"))[0] == 200
        async with orchestrator.units(PLATFORM) as uow:
            await suspension.suspend(uow, slug=slug, reason="a test")
        status, answer = await key.machine.get("provisioning/jobs")
        assert (status, code_of(answer)) == (403, "TENANT_SUSPENDED")
        async with orchestrator.units(PLATFORM) as uow:
            await suspension.reinstate(uow, slug=slug)
        assert (await key.machine.get("provisioning/jobs"))[0] == 200
        assert (await owner.delete(f"tenants/{owner.tenant_id}"))[0] == 200
        status, answer = await key.machine.get("provisioning/jobs")
        assert (status, code_of(answer)) == (403, "TENANT_DELETED")

    async def test_it_is_limited_by_itself(self, orchestrator: Orchestrator, owner: Person) -> None:
        one, other = await make_key(owner), await make_key(owner)
        async with beside(orchestrator, rate_key_total="3/minute") as strict:

            async def ask(token: str) -> int:
                headers = {"Authorization": f"Bearer {token}"}
                return (await request(owner.http, "GET", address(strict.url, "provisioning/jobs"), headers=headers))[0]

            assert [await ask(one.text) for _ in range(4)] == [200, 200, 200, 429]
            assert (await ask(other.text), await ask(owner.token)) == (200, 200)

    async def test_made_up_keys_are_looked_up_only_so_often(self, orchestrator: Orchestrator, owner: Person) -> None:
        key = await make_key(owner)
        async with beside(orchestrator, rate_key_looks_per_ip="3/minute") as strict:

            async def ask(token: str) -> int:
                headers = {"X-API-Key": token}
                return (await request(owner.http, "GET", address(strict.url, "provisioning/jobs"), headers=headers))[0]

            assert [await ask(key.text) for _ in range(5)] == [200] * 5, "one that is known is not looked up"
            assert [await ask(key.text[:-1]) for _ in range(3)] == [401, 401, 429]
            assert await ask(key.text) == 200


class TestScopes:
    def test_no_scope_gives_what_an_admin_may_not(self) -> None:
        given = {permission for permissions in GRANTS.values() for permission in permissions}
        assert set(GRANTS) == set(KeyScope)
        assert {permission for permission in given if "admin" not in HOLDERS[permission]} == set()

    @pytest.mark.parametrize("endpoint", GUARDED, ids=lambda endpoint: f"{endpoint.method} {endpoint.path}")
    async def test_every_route_asks_for_its_own_scope(
        self, keys: dict[KeyScope | None, MadeKey], endpoint: Endpoint
    ) -> None:
        """Without it every other one is of no use; without one declared all of them together are not."""
        machine = keys[endpoint.scope].machine
        path = re.sub(r"\{\w+\}", lambda _: str(uuid4()), endpoint.path)
        status, answer = await machine.request(endpoint.method, path)
        expected = "API_KEY_REFUSED" if endpoint.scope is None else "SCOPE_REQUIRED"
        assert (status, code_of(answer)) == (403, expected)
        if endpoint.scope is not None:
            assert answer["error"]["details"] == {"scope": endpoint.scope.value}

    async def test_a_place_is_not_taken_with_a_key(self, owner: Person, http: ClientSession) -> None:
        key = await make_key(owner, *KeyScope)
        url = address(owner.url, "invitations/nothing/accept")
        for headers in ({"Authorization": f"Bearer {key.text}"}, {"X-API-Key": key.text}):
            status, answer = await request(http, "POST", url, json={}, headers=headers)
            assert (status, code_of(answer)) == (403, "API_KEY_REFUSED")

    async def test_nor_are_made_up_ones_looked_up_there_as_often_as_one_likes(
        self, orchestrator: Orchestrator, owner: Person
    ) -> None:
        made_up = (await make_key(owner)).text[:-4] + "AAAA"
        async with beside(orchestrator, rate_key_looks_per_ip="3/minute") as strict:
            url, headers = address(strict.url, "invitations/nothing/accept"), {"Authorization": f"Bearer {made_up}"}
            answers = [(await request(owner.http, "POST", url, json={}, headers=headers))[0] for _ in range(4)]
        assert answers == [401, 401, 401, 429]
