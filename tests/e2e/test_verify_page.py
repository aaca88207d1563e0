"""The page that the letter about an address leads to, in a real browser."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.webdriver import Window, window
from tests.support.identity import letter_in
from tests.support.people import RegisterCompany
from tests.support.running import Orchestrator

pytestmark = [pytest.mark.embedded, pytest.mark.slow]

MESSAGE = "document.getElementById('message').textContent"
PRESS = "document.querySelector('button').click()"


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Window]:
    async with window(tmp_path) as opened:
        yield opened


async def test_the_link_of_the_letter_confirms_when_the_button_is_pressed(
    browser: Window, orchestrator: Orchestrator, company: RegisterCompany
) -> None:
    owner = await company()
    letter = await letter_in(orchestrator.settings.data_dir / "outbox", owner.email, welcome=True)
    link = re.search(r"^http\S+/verify-email\?token=\S+$", letter, re.MULTILINE)
    assert link is not None

    await browser.open(link[0])
    await browser.until("document.title === 'Confirm your e-mail address'")
    await browser.until("location.search === ''")
    assert (await owner.get("auth/me"))[1]["data"]["email_verified"] is False, "looking at it confirms nothing"
    await browser.run(PRESS)
    await browser.until(f"{MESSAGE}.startsWith('Your address is confirmed.')")
    assert await browser.console() == []
    assert (await owner.get("auth/me"))[1]["data"]["email_verified"] is True

    await browser.open(link[0])
    await browser.run(PRESS)
    await browser.until(f"{MESSAGE}.startsWith('This link was used')")
    await browser.open(f"{owner.url}/verify-email")
    await browser.until(f"{MESSAGE}.startsWith('This address is not complete.')")
