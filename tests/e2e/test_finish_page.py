"""The page that the letter about a registration leads to, in a real browser."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.e2e.webdriver import Window, window
from tests.namespaces.instances import beside
from tests.support.identity import letter_in
from tests.support.running import Orchestrator

pytestmark = [pytest.mark.embedded, pytest.mark.slow]

MESSAGE = "document.getElementById('message').textContent"
PRESS = "document.querySelector('button').click()"


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Window]:
    async with window(tmp_path) as opened:
        yield opened


async def test_who_registers_on_the_dashboard_goes_on_by_the_letter(
    browser: Window, orchestrator: Orchestrator
) -> None:
    async with beside(orchestrator, accounts_disclosed=False) as silent:
        email = f"nina-{uuid4().hex}@example.org"
        await browser.open(f"{silent.url}/dashboard")
        await browser.until("document.getElementById('register')")
        company = f"Company {uuid4().hex}"
        await browser.fill("#register", company_name=company, full_name="Nina", email=email, password="battery staple")
        await browser.until("document.body.innerText.includes('A letter is on its way to you.')")

        letter = await letter_in(silent.settings.data_dir / "outbox", email)
        link = re.search(r"^http\S+/finish-registration\?token=\S+$", letter, re.MULTILINE)
        assert link is not None
        await browser.open(link[0])
        await browser.until("document.title === 'Finish your registration'")
        await browser.until("location.search === ''")
        await browser.run(PRESS)
        await browser.until(f"{MESSAGE}.startsWith('Your account is ready')")
        assert await browser.console() == []
        await browser.run("document.getElementById('dashboard').click()")
        await browser.until(f"document.body.innerText.includes('{company}')")

        await browser.open(link[0])
        await browser.run(PRESS)
        await browser.until(f"{MESSAGE}.startsWith('This link was used')")
        await browser.open(f"{silent.url}/finish-registration")
        await browser.until(f"{MESSAGE}.startsWith('This address is not complete.')")
