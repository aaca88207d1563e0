"""The access token in a cookie: good for looking, and for changing only when a page of ours has asked."""

from collections.abc import Mapping

import pytest
from aiohttp import ClientSession

from tests.support.people import Person, RegisterCompany, address

# What is said on the wire is the same in both deployments.
pytestmark = pytest.mark.embedded

ORIGIN = "http://localhost:3000"
STRANGER = "https://evil.example.org"


async def ask(person: Person, method: str, path: str, headers: Mapping[str, str], token: str = "") -> tuple[int, str]:
    """Send a request with nothing but the cookie of the released clients, and return the status and the code."""
    sent = {"Cookie": f'access_token="Bearer {token or person.token}"', **headers}
    async with (
        ClientSession() as http,
        http.request(method, address(person.url, path), headers=sent, json={"name": "New"}) as response,
    ):
        answer = await response.json()
        return response.status, (answer["error"] or {}).get("code", "")


@pytest.mark.parametrize("headers", [{}, {"Origin": ORIGIN}, {"Origin": STRANGER}], ids=["none", "ours", "theirs"])
async def test_looking_needs_the_cookie_alone(company: RegisterCompany, headers: dict[str, str]) -> None:
    assert await ask(await company(), "GET", "auth/me", headers) == (200, "")


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({"Origin": ORIGIN}, (200, "")),
        ({"Sec-Fetch-Site": "same-origin"}, (200, "")),
        ({}, (403, "CROSS_SITE_REFUSED")),
        ({"Origin": STRANGER}, (403, "CROSS_SITE_REFUSED")),
        ({"Origin": "null"}, (403, "CROSS_SITE_REFUSED")),
        ({"Origin": STRANGER, "Sec-Fetch-Site": "same-origin"}, (403, "CROSS_SITE_REFUSED")),
        ({"Sec-Fetch-Site": "same-site"}, (403, "CROSS_SITE_REFUSED")),
        ({"Sec-Fetch-Site": "none"}, (403, "CROSS_SITE_REFUSED")),
    ],
    ids=range(8),
)
async def test_changing_needs_a_page_of_ours(
    company: RegisterCompany, headers: dict[str, str], answer: tuple[int, str]
) -> None:
    owner = await company()
    assert await ask(owner, "PATCH", f"tenants/{owner.tenant_id}", headers) == answer
    _, told = await owner.get(f"tenants/{owner.tenant_id}")
    assert (told["data"]["name"] == "New") == (answer[0] == 200)


async def test_the_server_itself_is_one_of_ours(company: RegisterCompany) -> None:
    owner = await company()
    assert await ask(owner, "PATCH", f"tenants/{owner.tenant_id}", {"Origin": owner.url}) == (200, "")


async def test_a_header_is_heard_before_the_cookie(company: RegisterCompany) -> None:
    owner = await company()
    mine = {"Authorization": f"Bearer {owner.token}"}
    assert await ask(owner, "PATCH", f"tenants/{owner.tenant_id}", mine, token="forged") == (200, "")
    assert await ask(owner, "GET", "auth/me", {"Authorization": "Basic x"}) == (401, "AUTH_ERROR")


async def test_a_cookie_may_hold_the_token_alone(company: RegisterCompany) -> None:
    owner = await company()
    bare = {"Cookie": f"access_token={owner.token}"}
    assert await ask(owner, "GET", "auth/me", bare) == (200, "")
    assert await ask(owner, "PATCH", f"tenants/{owner.tenant_id}", bare) == (403, "CROSS_SITE_REFUSED")
    assert await ask(owner, "PATCH", f"tenants/{owner.tenant_id}", {**bare, "Origin": ORIGIN}) == (200, "")


@pytest.mark.parametrize("cookie", ["", '"Bearer "', "Bearer", "forged", '"Basic eA=="', '"Bearer forged"'])
async def test_a_cookie_that_is_none_authenticates_nobody(company: RegisterCompany, cookie: str) -> None:
    owner = await company()
    assert await ask(owner, "GET", "auth/me", {"Cookie": f"access_token={cookie}"}) == (401, "AUTH_ERROR")
