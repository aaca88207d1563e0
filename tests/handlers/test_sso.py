"""Entering a site: tokens over REST (contract.md 6), and the local site that plays ERPNext's part."""

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer

from handlers import sso
from handlers.context import CONTEXT, Context, RateRules
from handlers.rest import serve
from providers.limiter import WindowRateLimiter
from server.middlewares import answer_errors, identify, locate
from server.readiness import StoreReadiness
from tests.handlers.provisioned import with_site
from tests.support.people import Person, RegisterCompany, address, request
from tests.support.running import Orchestrator

BROWSER = {"Accept": "text/html,application/xhtml+xml"}
REFUSED = {"success": False, "error": "Invalid or expired SSO token", "redirect": "/login"}


@pytest.fixture
def orchestrator(site_orchestrator: Orchestrator) -> Orchestrator:
    return site_orchestrator


async def issue(person: Person, path: str = "sso/erpnext/token") -> dict[str, Any]:
    status, answer = await person.post(path)
    assert status == 200, answer
    data: dict[str, Any] = answer["data"]
    return data


async def callback(person: Person, **query: str) -> tuple[int, Any]:
    return await request(person.http, "GET", address(person.url, "sso/erpnext/callback"), params=query)


async def test_a_ticket_stands_in_the_envelope_and_beside_it(company: RegisterCompany, http: ClientSession) -> None:
    owner = await company()
    headers = {"Authorization": f"Bearer {owner.token}"}
    for path in ("sso/erpnext/token", "sso/token"):
        before = datetime.now(UTC)
        async with http.post(address(owner.url, path), headers=headers) as response:
            assert response.status == 200
            assert response.headers["Cache-Control"] == "no-store"
            answer = await response.json()

        assert set(answer) == {"status", "data", "error", "sso_url", "token", "expires_at", "expires_in"}
        ticket = answer["data"]
        assert {key: answer[key] for key in ticket} == ticket
        assert set(ticket) == {"sso_url", "token", "expires_at", "expires_in"}
        assert len(ticket["token"]) == 43
        assert ticket["expires_in"] == 60
        assert ticket["expires_at"].endswith("Z")
        assert timedelta(seconds=59) < datetime.fromisoformat(ticket["expires_at"]) - before < timedelta(seconds=70)
        assert ticket["sso_url"].endswith(f"/api/method/erpmax.sso.login?token={ticket['token']}")


async def test_a_ticket_needs_somebody_signed_in(company: RegisterCompany) -> None:
    owner = await company()
    owner.token = "forged"
    assert (await owner.post("sso/erpnext/token"))[0] == 401


async def test_a_site_redeems_a_token_once(company: RegisterCompany) -> None:
    owner = await company()
    tenant = owner.registration["current_tenant"]
    token = (await issue(owner))["token"]
    validate = address(owner.url, f"sso/erpnext/validate/{token}")

    status, answer = await request(owner.http, "GET", validate)
    assert status == 200
    assert set(answer) == {"valid", "user_id", "tenant_id", "created_at"}
    assert (answer["valid"], answer["user_id"], answer["tenant_id"]) == (
        True,
        str(owner.user_id),
        str(owner.tenant_id),
    )
    assert answer["created_at"].endswith("Z")

    assert await callback(owner, token=token, redirect="/app/customer") == (
        200,
        {
            "success": True,
            "data": {
                "user": {"id": str(owner.user_id), "email": owner.email, "full_name": "Olga Owner"},
                "tenant": {"id": str(owner.tenant_id), "name": tenant["name"], "slug": tenant["slug"]},
                "user_id": str(owner.user_id),
                "tenant_id": str(owner.tenant_id),
                "email": owner.email,
                "full_name": "Olga Owner",
            },
            "redirect": "/app/customer",
        },
    )
    assert await callback(owner, token=token) == (200, REFUSED)
    status, answer = await request(owner.http, "GET", validate)
    assert (status, answer["detail"], answer["error"]["code"]) == (404, "Token not found or expired", "NOT_FOUND")


async def test_a_bad_token_is_still_answered_with_200(orchestrator: Orchestrator, http: ClientSession) -> None:
    where = address(orchestrator.url, "sso/erpnext/callback")
    for query in ({}, {"token": ""}, {"token": "guess"}, {"token": "x" * 5000}):
        assert await request(http, "GET", where, params=query) == (200, REFUSED)


async def test_of_ten_calls_at_once_one_gets_in(company: RegisterCompany) -> None:
    owner = await company()
    token = (await issue(owner))["token"]

    answers = await asyncio.gather(*(callback(owner, token=token) for _ in range(10)))

    assert [status for status, _ in answers] == [200] * 10
    assert sorted(answer["success"] for _, answer in answers) == [False] * 9 + [True]


async def test_no_redirect_leaves_the_site(company: RegisterCompany) -> None:
    owner = await company()
    for asked in ("//evil.example", "/\\evil.example", "https://evil.example", "desk", "/\t/evil"):
        token = (await issue(owner))["token"]
        _, answer = await callback(owner, token=token, redirect=asked)
        assert (answer["success"], answer["redirect"]) == (True, "/desk")


async def test_a_browser_can_be_led_by_the_token_alone(company: RegisterCompany, http: ClientSession) -> None:
    owner = await company()
    ticket = await issue(owner)
    where = address(owner.url, "sso/redirect")

    async with http.get(where, params={"token": ticket["token"]}, allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (302, ticket["sso_url"])
        assert response.headers["Referrer-Policy"] == "no-referrer"
    async with http.get(where, params={"token": "guess"}, allow_redirects=False) as response:
        assert response.status == 404
    async with http.get(where, allow_redirects=False) as response:
        assert response.status == 422
    assert (await callback(owner, token=ticket["token"]))[1]["success"] is True, "being led uses nothing up"


@pytest.fixture
async def limited(orchestrator: Orchestrator) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    """The SSO door with limits: two tickets a minute for each user."""
    app = web.Application(middlewares=[identify, locate(()), answer_errors])
    app[CONTEXT] = Context(
        uow=orchestrator.units,
        services=orchestrator.services,
        recognition=orchestrator.house.recognition,
        limiter=WindowRateLimiter(""),
        rules=RateRules(auth_per_ip="", sso_per_user="2/minute", webhooks_per_ip="", user_total=""),
        readiness=StoreReadiness({}),
        environment="test",
        version="0",
        public_url=orchestrator.url,
        origins=frozenset(),
        request_timeout_s=30,
        http=orchestrator.house.http,
    )
    for endpoint in sso.router.endpoints:
        app.router.add_route(endpoint.method, endpoint.path, serve(endpoint))
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_tickets_are_limited_by_user(
    company: RegisterCompany, limited: TestClient[web.Request, web.Application]
) -> None:
    owner, other = await company(), await company()

    async def ask(person: Person) -> int:
        headers = {"Authorization": f"Bearer {person.token}"}
        async with limited.post("/api/v1/sso/token", headers=headers) as response:
            if response.status == 429:
                assert 1 <= int(response.headers["Retry-After"]) <= 60
                assert (await response.json())["error"]["code"] == "RATE_LIMITED"
            return response.status

    assert [await ask(owner) for _ in range(3)] == [200, 200, 429]
    assert await ask(other) == 200


# ------------------------------------------------------------------------------------------------ the local site


async def test_the_owner_enters_the_site(company: RegisterCompany, http: ClientSession) -> None:
    """The whole way of a browser: ticket, site, our callback behind its back, cookie, desk."""
    owner = await with_site(company, name="<b>Bold & Co</b>", full_name="Olga <script>alert(1)</script>")
    ticket = await issue(owner)
    slug = owner.registration["current_tenant"]["slug"]
    site = f"{owner.url}/sites/{slug}"
    assert ticket["sso_url"].startswith(f"{site}/api/method/erpmax.sso.login?token=")
    async with http.get(site) as response:
        assert response.status == 200
        assert "Bold &amp; Co" in await response.text()
    async with http.get(f"{site}/desk", headers=BROWSER) as response:
        assert (response.status, response.content_type) == (403, "text/html")

    async with http.get(ticket["sso_url"] + "&redirect=//evil.example", headers=BROWSER) as response:
        text = await response.text()
        assert (response.status, str(response.url)) == (200, f"{site}/desk")
        policy = response.headers["Content-Security-Policy"]
        [entrance] = response.history
    assert "Welcome, Olga &lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "&lt;b&gt;Bold &amp; Co&lt;/b&gt;" in text
    assert "<script" not in text
    assert "<b>" not in text
    assert f"<dd>{site}</dd>" in text
    assert "<dt>Database</dt><dd>site_" in text
    cookie = entrance.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert f"Path=/sites/{slug}" in cookie
    [style] = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")

    async with http.get(f"{site}/desk") as response:
        assert response.status == 200, "the cookie is remembered"
    async with http.get(ticket["sso_url"], headers=BROWSER) as response:
        assert (response.status, response.content_type) == (403, "text/html")


async def test_a_token_opens_only_its_own_tenants_site(company: RegisterCompany, http: ClientSession) -> None:
    owner, neighbour = [await with_site(company) for _ in range(2)]
    theirs = f"{neighbour.url}/sites/{neighbour.registration['current_tenant']['slug']}"
    token = (await issue(owner))["token"]

    async with http.get(f"{theirs}/api/method/erpmax.sso.login", params={"token": token}) as response:
        assert response.status == 403
        assert (await response.json())["error"]["code"] == "PERMISSION_DENIED"
        assert "Set-Cookie" not in response.headers

    ticket = await issue(owner)
    async with http.get(ticket["sso_url"]) as response:
        assert response.status == 200
    morsel = next(cookie for cookie in http.cookie_jar if cookie.key == "local_site_session")
    headers = {"Cookie": f"{morsel.key}={morsel.value}"}
    async with ClientSession() as stranger, stranger.get(f"{theirs}/desk", headers=headers) as response:
        assert response.status == 403, "another site's cookie is worth nothing"


async def test_there_is_no_site_where_none_was_made(company: RegisterCompany, http: ClientSession) -> None:
    await company()
    for path in ("/sites/no-such-site", "/sites/no-such-site/desk", "/sites/test-company"):
        async with http.get(f"{(await company()).url}{path}") as response:
            assert (response.status, (await response.json())["detail"]) == (404, "Site not found")
