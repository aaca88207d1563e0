"""The page of an invoice, in a real browser."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.webdriver import Window, window
from tests.handlers.buying import paid
from tests.support.people import Person, RegisterCompany

pytestmark = [pytest.mark.embedded, pytest.mark.slow]

ODD = '</title><img src=x onerror="document.title=1"><script>document.title=2</script> Ёлка'


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Window]:
    async with window(tmp_path) as opened:
        yield opened


async def invoiced(owner: Person, **details: str) -> dict[str, Any]:
    """Buy a plan in somebody's name; returns the invoice."""
    status, answer = await owner.request("PUT", "billing/details", json=details)
    assert status == 200, answer
    await paid(owner)
    _, answer = await owner.get("billing/documents")
    (paper,) = answer["data"]
    found: dict[str, Any] = paper
    return found


async def test_whoever_has_the_link_sees_the_invoice(browser: Window, company: RegisterCompany) -> None:
    owner = await company()
    paper = await invoiced(owner, name=ODD, address="ул. Щукина, 1\nМосква", language="ru")
    await browser.open(paper["url"])
    await browser.until(f"document.querySelector('h1').textContent === 'Счёт {paper['number']}'")
    text = await browser.run("return document.body.innerText")
    for shown in (ODD, "ул. Щукина, 1", "Оплачен", "Тариф «Professional», один месяц", "49.99 USD"):
        assert shown in text
    assert await browser.run("return document.title") == f"Счёт {paper['number']}"
    assert await browser.run("return document.documentElement.lang") == "ru"
    # The style is ours and was let in by the page's own policy.
    assert await browser.run("return getComputedStyle(document.querySelector('table')).borderCollapse") == "collapse"
    assert await browser.run("return document.querySelectorAll('script, img').length") == 0
    link = await browser.run("return document.querySelector('.download').href")
    assert link == paper["pdf_url"]
    async with owner.http.get(link) as answer:
        assert (await answer.read()).startswith(b"%PDF-")
    assert await browser.console() == []


async def test_a_link_that_leads_nowhere_says_so(browser: Window, company: RegisterCompany) -> None:
    owner = await company()
    paper = await invoiced(owner, name="Acme")
    await browser.open(f"{paper['url'][:-3]}AAA")
    await browser.until("document.querySelector('h1').textContent === 'This document does not exist'")
    assert "Acme" not in await browser.run("return document.body.innerText")
