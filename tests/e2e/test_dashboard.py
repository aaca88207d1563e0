"""The pages in a real browser: they work under their own policy, and the dashboard carries the main job."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.e2e.webdriver import Window, window
from tests.support.running import Orchestrator

pytestmark = pytest.mark.slow

# The only thing a vendored library tries to fetch from elsewhere (web/vendor/README.md).
BADGE = "https://cdn.redoc.ly/redoc/logo-mini.svg"


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Window]:
    async with window(tmp_path) as opened:
        yield opened


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
    await browser.until("document.getElementById('connection').dataset.state === 'live'")
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

    assert await browser.run(f"return {text('#subscription-status')}") == "trial"
    await browser.click('#plans button[aria-label="Choose: Professional"]')
    await browser.until("document.querySelector('button[value=pay]')")
    await browser.click("button[value=pay]")
    await browser.until(f"document.getElementById('house') && {text('#subscription-status')} === 'active'")
    assert await browser.run(f"return {text('#subscription-plan')}") == "Professional"
    assert await browser.run("return location.search") == ""

    await browser.until(f"{text('#unread')} === '3 unread'")
    await browser.click("#notifications button:not([hidden])")
    await browser.until(f"{text('#unread')} === '2 unread'")

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
    await browser.until("document.getElementById('connection').dataset.state === 'live'")

    # A token that has run out is exchanged, once, and the socket comes back with the new one.
    await browser.run("sessionStorage.setItem('access_token', 'run.out.token'); location.reload()")
    await browser.until("document.getElementById('connection').dataset.state === 'live'")
    await browser.until(f"{text('#who')} === 'Olga Owner'")

    await browser.click("#sign-out")
    await browser.until("!document.getElementById('door').hidden")
    assert await browser.run("return sessionStorage.length") == 0
    assert unique not in await browser.run("return document.getElementById('house').textContent")
    assert await browser.run(f"return {text('#who')}") == ""
