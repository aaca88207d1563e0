"""The sandbox's payment page: what it shows, what it allows a browser, and what it refuses."""

import html
import re
from io import BytesIO
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import UUID

import pytest
from aiohttp import ClientSession

from models.billing import CheckoutSession
from services.unit_of_work import PlatformScope
from tests.support.people import Person, RegisterCompany
from tests.support.running import Orchestrator

POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self' "


async def check_out(person: Person, **urls: str) -> str:
    """Begin to buy a plan; returns the page's address."""
    _, plans = await person.get("billing/plans")
    plan_id = next(plan["id"] for plan in plans["data"] if plan["slug"] == "business")
    body = {
        "plan_id": plan_id,
        "billing_period": "yearly",
        "payment_provider": "sandbox",
        "success_url": "https://shop.example:8443/ok",
        "cancel_url": "myapp://cancel",
        **urls,
    }
    status, answer = await person.post("billing/checkout", body)
    assert status == 200, answer
    address: str = answer["checkout_url"]
    return address


async def look(http: ClientSession, address: str, **headers: str) -> tuple[int, str, Any]:
    async with http.get(address, headers=headers) as response:
        return response.status, await response.text(), response.headers


def changed(address: str, **query: str) -> str:
    parts = urlsplit(address)
    return parts._replace(query=urlencode({**dict(parse_qsl(parts.query)), **query})).geturl()


async def test_the_page_shows_what_is_sold(company: RegisterCompany, http: ClientSession) -> None:
    owner = await company()
    address = await check_out(owner)
    status, text, headers = await look(http, address, **{"Accept-Language": "en-GB"})
    assert (status, headers["Content-Type"], headers["Content-Language"]) == (200, "text/html; charset=utf-8", "en")
    assert headers["Content-Security-Policy"] == POLICY + "https://shop.example:8443 myapp:"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"
    for shown in ("Business", "990.00 USD", "every year", html.escape(owner.email), "No real money moves"):
        assert shown in text
    assert re.findall(r'name="action" value="(\w+)"', text) == ["pay", "decline", "expire"]
    assert "<script" not in text
    assert "style=" not in text


async def test_the_page_speaks_russian(company: RegisterCompany, http: ClientSession) -> None:
    address = await check_out(await company())
    _, text, headers = await look(http, address, **{"Accept-Language": "ru-RU,ru;q=0.9,en;q=0.5"})
    assert (headers["Content-Language"], 'lang="ru"' in text, "Оплатить" in text) == ("ru", True, True)
    _, text, headers = await look(http, changed(address, lang="en"), **{"Accept-Language": "ru"})
    assert headers["Content-Language"] == "en"


async def test_the_style_is_a_file_of_ours(http: ClientSession, orchestrator: Orchestrator) -> None:
    status, text, headers = await look(http, f"{orchestrator.url}/sandbox/pay.css")
    assert (status, headers["Content-Type"]) == (200, "text/css; charset=utf-8")
    assert "button.pay" in text


async def test_whatever_stands_on_the_page_is_escaped(
    company: RegisterCompany, http: ClientSession, orchestrator: Orchestrator
) -> None:
    address = await check_out(await company(), cancel_url='https://shop.example/?a="><script>alert(1)</script>')
    async with http.post(address, data={"action": "expire"}, allow_redirects=False) as response:
        assert response.status == 303
    async with orchestrator.units(PlatformScope("a test closes a page")) as uow:
        checkout_id = UUID(urlsplit(address).path.split("_cs_")[1][:32])
        (await uow.session.get_one(CheckoutSession, checkout_id)).state = "expired"  # type: ignore[assignment]
    _, text, _ = await look(http, address)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "This page has expired." in text
    assert "<form" not in text


async def test_an_odd_host_does_not_get_into_the_policy(company: RegisterCompany, http: ClientSession) -> None:
    address = await check_out(
        await company(), success_url="https://x;script-src*/ok", cancel_url="http://[::1]:3000/no"
    )
    _, _, headers = await look(http, address)
    assert headers["Content-Security-Policy"] == POLICY + "http://[::1]:3000 https:"


@pytest.mark.parametrize("token", ["", "nonsense", "a.b", "%00"])
async def test_an_address_that_we_did_not_make(company: RegisterCompany, http: ClientSession, token: str) -> None:
    address = changed(await check_out(await company()), token=token)
    assert (await look(http, address))[0] == 404
    async with http.post(address, data={"action": "pay"}, allow_redirects=False) as response:
        assert response.status == 404
        assert (await response.json())["detail"] == "This payment page does not exist"


@pytest.mark.parametrize("form", [b"", b"action=refund", b"action=pay%20", b"\xff\x00&&=&="])
async def test_a_button_that_is_not_there(company: RegisterCompany, http: ClientSession, form: bytes) -> None:
    address = await check_out(await company())
    headers = {"Content-Type": "multipart/form-data; charset=none"}
    async with http.post(address, data=form, headers=headers, allow_redirects=False) as response:
        assert response.status == 422
        assert (await response.json())["errors"][0]["field"] == "body -> action"


async def test_a_form_without_end(company: RegisterCompany, http: ClientSession) -> None:
    address = await check_out(await company())
    async with http.post(address, data=BytesIO(b" " * 2 * 1024 * 1024), allow_redirects=False) as response:
        assert response.status == 413


async def test_the_payer_is_not_sent_back_before_the_event_is_taken(
    company: RegisterCompany, http: ClientSession, orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = await check_out(await company())
    # The webhook route answers 404 while nobody knows the sandbox's name there.
    providers = orchestrator.services.billing._inbox._providers
    monkeypatch.delitem(providers, "sandbox")
    async with http.post(address, data={"action": "pay"}, allow_redirects=False) as response:
        assert response.status == 503
        assert "Location" not in response.headers
