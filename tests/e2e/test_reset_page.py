"""The page that the letter about a forgotten password leads to, in a real browser."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.webdriver import Window, window
from tests.support.identity import letter_in
from tests.support.people import RegisterCompany, address, request
from tests.support.running import Orchestrator

pytestmark = [pytest.mark.embedded, pytest.mark.slow]

MESSAGE = "document.getElementById('message').textContent"


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Window]:
    async with window(tmp_path) as opened:
        yield opened


async def test_the_link_of_the_letter_leads_to_a_new_password(
    browser: Window, orchestrator: Orchestrator, company: RegisterCompany
) -> None:
    owner = await company()
    url = address(owner.url, "auth/forgot-password")
    await request(owner.http, "POST", url, json={"email": owner.email})
    letter = await letter_in(orchestrator.settings.data_dir / "outbox", owner.email)
    link = re.search(r"^http\S+/reset-password\?token=\S+$", letter, re.MULTILINE)
    assert link is not None

    await browser.open(link[0])
    await browser.until("document.title === 'Reset your password'")
    await browser.until("location.search === ''")
    await browser.fill("form", password="another password", again="a different one")
    await browser.until(f"{MESSAGE} === 'The two passwords differ.'")
    await browser.run("document.querySelector('form').reset()")
    await browser.fill("form", password="another password", again="another password")
    await browser.until(f"{MESSAGE}.startsWith('Your password is set.')")
    # Chromium would like to be told the name of the user, which the page does not know.
    assert [said for said in await browser.console() if "[DOM]" not in said] == []

    body = {"email": owner.email, "password": "another password"}
    assert (await request(owner.http, "POST", address(owner.url, "auth/login"), json=body))[0] == 200
    await browser.open(link[0])
    await browser.fill("form", password="yet another one", again="yet another one")
    await browser.until(f"{MESSAGE}.startsWith('This link was used')")
    await browser.open(f"{owner.url}/reset-password")
    await browser.until(f"{MESSAGE}.startsWith('This address is not complete.')")
