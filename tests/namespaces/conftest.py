"""The people of these tests, registered once: every company costs a provisioning job and the hashing of a password."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from aiohttp import ClientSession

from tests.support.listeners import Listener
from tests.support.people import Person, address, company_factory, request
from tests.support.running import Orchestrator


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[ClientSession]:
    """An HTTP client for the people below."""
    async with ClientSession() as session:
        yield session


@pytest.fixture(scope="session")
async def owner(orchestrator: Orchestrator, browser: ClientSession) -> Person:
    """The owner of a company whose first provisioning job is over, so that nothing of it is heard any more."""
    return await _settled(orchestrator, browser)


@pytest.fixture(scope="session")
async def stranger(orchestrator: Orchestrator, browser: ClientSession) -> Person:
    """The owner of another company."""
    return await _settled(orchestrator, browser)


@pytest.fixture(scope="session")
async def colleague(owner: Person, stranger: Person, browser: ClientSession) -> Person:
    """The stranger once more, as a member of the owner's company and signed in to that."""
    body = {"email": stranger.email, "role": "member"}
    status, answer = await owner.post(f"tenants/{owner.tenant_id}/users/invite", body)
    assert status == 201, answer
    token = await sign_in(stranger)
    status, answer = await request(
        browser,
        "POST",
        address(owner.url, "auth/switch-tenant"),
        json={"tenant_id": str(owner.tenant_id)},
        headers={"Authorization": f"Bearer {token}"},
    )
    assert status == 200, answer
    return replace(stranger, token=answer["data"]["access_token"], tenant_id=owner.tenant_id)


async def sign_in(person: Person) -> str:
    """Sign somebody in once more and return the access token of the new session."""
    body = {"email": person.email, "password": person.password}
    status, answer = await request(person.http, "POST", address(person.url, "auth/login"), json=body)
    assert status == 200, answer
    token: str = answer["data"]["access_token"]
    return token


async def _settled(orchestrator: Orchestrator, browser: ClientSession) -> Person:
    person = await company_factory(browser, orchestrator.url)()
    listener = await Listener().connect(orchestrator.url, person.token)
    _, tenant = await person.get("tenants/current")
    if tenant["data"]["status"] == "provisioning":
        await listener.until(lambda: listener.of("notification:new"), seconds=90)
    await listener.close()
    return person
