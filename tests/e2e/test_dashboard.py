"""The pages in a real browser: they work under their own policy, and the dashboard carries the main job."""

from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import pytest
from aiohttp import ClientSession

from services.unit_of_work import PlatformScope
from tests.e2e.webdriver import Window, window
from tests.namespaces.deploying import door_to, rename_epoch
from tests.namespaces.instances import expiry_of, token_for
from tests.namespaces.newcomers import found_company
from tests.namespaces.test_delivery import payment, record
from tests.support.running import Orchestrator
from tests.support.waiting import until

pytestmark = [pytest.mark.embedded, pytest.mark.slow]

# The only thing a vendored library tries to fetch from elsewhere (web/vendor/README.md).
BADGE = "https://cdn.redoc.ly/redoc/logo-mini.svg"


@pytest.fixture
def orchestrator(site_orchestrator: Orchestrator) -> Orchestrator:
    return site_orchestrator


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Window]:
    async with window(tmp_path) as opened:
        yield opened


LIVE = "document.getElementById('connection').dataset.state === 'live'"


def text(css: str) -> str:
    return f"document.querySelector('{css}').textContent"


async def test_documents_are_drawn_without_breaking_the_policy(browser: Window, orchestrator: Orchestrator) -> None:
    await browser.open(f"{orchestrator.url}/docs")
    await browser.until("document.querySelector('.opblock-summary-path')")
    assert await browser.console() == []
    await browser.open(f"{orchestrator.url}/redoc")
    await browser.until("[...document.querySelectorAll('h1')].some((node) => node.textContent.includes('ERPMax'))")
    # Styles that the policy had refused would leave the menu in the flow of the page.
    await browser.until("getComputedStyle(document.querySelector('.menu-content')).position === 'sticky'")
    assert [said for said in await browser.console() if BADGE not in said] == []


async def test_company_lives_on_the_dashboard(browser: Window, orchestrator: Orchestrator) -> None:
    unique = uuid4().hex[:8]
    await browser.open(f"{orchestrator.url}/dashboard")
    await browser.fill(
        "#register",
        company_name=f"<img src=x> {unique}",
        full_name="Olga Owner",
        email=f"owner-{unique}@example.org",
        password="correct horse",
    )
    await browser.until(LIVE)
    await browser.until("document.querySelector('#jobs [data-part=state]')?.dataset.tone === 'good'")
    await browser.until("document.querySelector('#jobs progress').value === 100")
    await browser.until(f"{text('#unread')} === '1 unread'")
    await browser.until("!document.getElementById('enter').disabled")
    assert await browser.run(f"return {text('#instance-name')}") == f"<img src=x> {unique}"
    assert await browser.run("return document.querySelectorAll('#house img').length") == 0

    await browser.click("#work")
    await browser.until("document.querySelectorAll('#jobs [data-part=state][data-tone=good]').length === 2")
    await browser.until(f"{text('#unread')} === '2 unread'")
    assert "status:completed" in await browser.run(f"return {text('#events')}")
    assert await browser.run(f"return {text('#jobs [data-part=lines]')}"), "what the second job printed"

    assert await browser.run(f"return {text('#subscription-status')}") == "trial"
    await browser.click('#plans button[aria-label="Choose: Professional"]')
    await browser.until("document.querySelector('button[value=pay]')")
    await browser.click("button[value=pay]")
    await browser.until(f"document.getElementById('house') && {text('#subscription-status')} === 'active'")
    assert await browser.run(f"return {text('#subscription-plan')}") == "Professional"
    assert await browser.run("return location.search") == ""

    # The payment, and the invoice of it.
    await browser.until(f"{text('#unread')} === '4 unread'")
    await browser.click("#notifications button:not([hidden])")
    await browser.until(f"{text('#unread')} === '3 unread'")

    await browser.run(
        "document.getElementById('language').value = 'ru';"
        "document.getElementById('language').dispatchEvent(new Event('change'))"
    )
    assert await browser.run(f"return document.documentElement.lang + {text('#plans-title')}") == "ruТарифы"
    assert not [said for said in await browser.console() if "Content Security Policy" in said]


async def test_session_is_renewed_and_ended(browser: Window, orchestrator: Orchestrator) -> None:
    unique = uuid4().hex[:8]
    await browser.open(f"{orchestrator.url}/dashboard")
    await browser.fill("#sign-in", email=f"nobody-{unique}@example.org", password="wrong horse")
    await browser.until(f"document.querySelector('.message') && {text('.message')}.includes('Invalid email')")
    await browser.fill(
        "#register",
        company_name=f"Company {unique}",
        full_name="Olga Owner",
        email=f"owner-{unique}@example.org",
        password="correct horse",
    )
    await browser.until(LIVE)

    # A token that has run out is exchanged, once, and the socket comes back with the new one.
    await browser.run("sessionStorage.setItem('access_token', 'run.out.token'); location.reload()")
    await browser.until(LIVE)
    await browser.until(f"{text('#who')} === 'Olga Owner'")

    await browser.click("#sign-out")
    await browser.until("!document.getElementById('door').hidden")
    assert await browser.run("return sessionStorage.length") == 0
    assert unique not in await browser.run("return document.getElementById('house').textContent")
    assert await browser.run(f"return {text('#who')}") == ""


async def test_page_catches_up_after_a_cut(browser: Window, orchestrator: Orchestrator, http: ClientSession) -> None:
    owner = await found_company(orchestrator, http)

    async def pay(*amounts: int) -> None:
        for amount in amounts:
            fact = payment(owner.tenant_id, uuid4()).model_copy(update={"amount": Decimal(amount)})
            await record(orchestrator, fact)

    async def shows(*amounts: int) -> None:
        feed = ", ".join(f"${amount}.00 received" for amount in amounts)
        shown = "[...document.querySelectorAll('#events p:last-child')].map((node) => node.textContent).join(', ')"
        await browser.until(f"{shown} === '{feed}'")

    async with door_to(orchestrator.url) as door:
        await browser.open(f"{door.url}/dashboard")
        await browser.fill("#sign-in", email=owner.email, password=owner.password)
        await browser.until(LIVE)
        await browser.until(f"{text('#online')} === 'Online (1): Nina Newcomer'")
        await pay(1)
        await shows(1)

        # What is missed comes by the socket: REST does not tell the page of payments.
        await door.cut()
        await browser.until(f"!({LIVE})")
        await pay(2, 3, 4)
        await door.restore()
        await shows(4, 3, 2, 1)
        await pay(5)
        await shows(5, 4, 3, 2, 1)

        # What cannot be told any more is read anew: of a new name there is no event.
        assert (await owner.patch(f"tenants/{owner.tenant_id}", {"name": "New name"}))[0] == 200
        await rename_epoch(orchestrator.house.engine, owner.tenant_id)
        await browser.until(f"{text('#instance-name')} === 'New name'")


async def test_socket_outlives_its_token_but_not_the_right_to_be_there(
    browser: Window, orchestrator: Orchestrator, http: ClientSession
) -> None:
    owner = await found_company(orchestrator, http)
    await browser.open(f"{orchestrator.url}/dashboard")
    await browser.fill("#sign-in", email=owner.email, password=owner.password)
    await browser.until(LIVE)
    ending = token_for(orchestrator, await browser.run("return sessionStorage.access_token"), left_s=25)
    await browser.run("sessionStorage.access_token = arguments[0]; location.reload()", ending)

    # The server says that the token ends soon, and the page answers with another, without a new connection.
    await browser.until(f"sessionStorage.access_token !== '{ending}'")
    assert orchestrator.clock.now() < expiry_of(ending)
    seats, soon = orchestrator.house.sockets.seats, orchestrator.clock.now() + timedelta(seconds=30)
    await until(
        lambda: [seat.expires_at and seat.expires_at > soon for seat in seats.of_tenant(owner.tenant_id)] == [True], 10
    )

    async with orchestrator.units(PlatformScope("a test acts for the platform")) as uow:
        slug = owner.registration["current_tenant"]["slug"]
        await orchestrator.services.tenants.suspension.suspend(uow, slug=slug, reason="a test")
    await browser.until("!document.getElementById('door').hidden")
    assert "This tenant has been suspended." in await browser.run(f"return {text('.message')}")
