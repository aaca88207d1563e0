"""The page that an invitation's letter leads to, in a real browser."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.e2e.webdriver import Window, window
from tests.support.identity import letter_in
from tests.support.people import Person, RegisterCompany, address, request
from tests.support.running import Orchestrator

pytestmark = [pytest.mark.embedded, pytest.mark.slow]

MESSAGE = "document.getElementById('message').textContent"
OFFER = "document.getElementById('offer').textContent"
NEWCOMER = {"full_name": "Nina Newcomer", "password": "correct horse"}


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Window]:
    async with window(tmp_path) as opened:
        yield opened


async def invite(owner: Person, orchestrator: Orchestrator, email: str, *, count: int = 1) -> str:
    """Invite an address and return the link of the letter, its `count`-th."""
    status, _ = await owner.post(f"tenants/{owner.tenant_id}/users/invite", {"email": email, "role": "member"})
    assert status == 201
    letter = await letter_in(orchestrator.settings.data_dir / "outbox", email, count=count)
    link = re.search(r"http\S+/invitations/\S+", letter)
    assert link is not None
    return link[0]


async def members(owner: Person) -> set[tuple[str, str]]:
    _, answer = await owner.get(f"tenants/{owner.tenant_id}/users")
    return {(member["full_name"], member["role"]) for member in answer["data"]}


async def test_the_link_of_the_letter_leads_a_new_person_in(
    browser: Window, orchestrator: Orchestrator, company: RegisterCompany
) -> None:
    owner, email = await company("Acme"), f"guest-{uuid4().hex}@example.org"
    link = await invite(owner, orchestrator, email)

    await browser.open(link)
    await browser.until("location.pathname === '/invitations'")
    await browser.until(f"{OFFER}.startsWith('Olga Owner invites {email} to join Acme ')")
    await browser.fill("#newcomer", **NEWCOMER)
    await browser.until(f"{MESSAGE} === 'You have joined.'")
    assert ("Nina Newcomer", "member") in await members(owner)
    # Chromium would like to be told the name of the user beside each password.
    assert [said for said in await browser.console() if "[DOM]" not in said] == []
    await browser.click("#dashboard")
    await browser.until("document.body.innerText.includes('Acme')")
    assert [said for said in await browser.console() if "403" not in said] == []

    await browser.open(link)
    await browser.until(f"{MESSAGE} === 'This invitation was used or taken back.'")
    await browser.open(f"{owner.url}/invitations")
    await browser.until(f"{MESSAGE}.startsWith('This address is not complete.')")


async def test_somebody_who_has_signed_up_meanwhile_signs_in_or_is_signed_in(
    browser: Window, orchestrator: Orchestrator, company: RegisterCompany
) -> None:
    first, second, email = await company(), await company(), f"guest-{uuid4().hex}@example.org"
    links = [await invite(first, orchestrator, email), await invite(second, orchestrator, email, count=2)]
    form = {"email": email, "password": "correct horse", "full_name": "Gus Guest", "company_name": f"G {uuid4().hex}"}
    assert (await request(first.http, "POST", address(first.url, "auth/register"), json=form))[0] == 201

    await browser.open(links[0])
    await browser.until(f"{OFFER} !== ''")
    await browser.fill("#newcomer", **NEWCOMER)
    await browser.until(f"{MESSAGE} === 'There is an account with this address. Sign in with it.'")
    await browser.fill("#member", password="a wrong one")
    await browser.until(f"{MESSAGE} === 'The password is not right. Try again.'")
    await browser.run("document.getElementById('member').reset()")
    await browser.fill("#member", password="correct horse")
    await browser.until(f"{MESSAGE} === 'You have joined.'")
    assert ("Gus Guest", "member") in await members(first)

    await browser.open(links[1])
    await browser.until("document.getElementById('accept-as').textContent === 'Accept as Gus Guest'")
    await browser.click("#accept-as")
    await browser.until(f"{MESSAGE} === 'You have joined.'")
    assert ("Gus Guest", "member") in await members(second)
