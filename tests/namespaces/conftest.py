"""The people of these tests, registered once: every company costs a provisioning job and the hashing of a password."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import ClientSession

from tests.namespaces.instances import doors
from tests.namespaces.newcomers import found_company, newcomer
from tests.namespaces.resuming import Enter
from tests.namespaces.wire import Wire
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
async def colleague(owner: Person, stranger: Person) -> Person:
    """The stranger once more, as a member of the owner's company and signed in to that."""
    return await join_company(owner, stranger)


@pytest.fixture
def enter(http: ClientSession, orchestrator: Orchestrator, owner: Person) -> Enter:
    """Connects the owner, and with `person` somebody else."""

    async def connect(namespace: str = "/", *, person: Person = owner, **auth: Any) -> Wire:
        wire = await Wire.enter(http, orchestrator.url, person.token, namespace, **auth)
        await wire.until(lambda: wire.refusal or "connected" in wire.names)
        return wire

    return connect


@pytest.fixture
async def boss(orchestrator: Orchestrator, http: ClientSession) -> Person:
    """The owner of a company that no other test knows, and that has no site."""
    return await found_company(orchestrator, http)


@pytest.fixture
async def guest(orchestrator: Orchestrator, boss: Person) -> Person:
    """A member of that company."""
    return await newcomer(orchestrator, boss)


@pytest.fixture
async def instances(orchestrator: Orchestrator, deployment: str) -> AsyncIterator[list[Orchestrator]]:
    """The instances of this deployment: one when it is embedded, two in the cluster."""
    async with doors(orchestrator, deployment) as found:
        yield found


async def join_company(owner: Person, person: Person, role: str = "member") -> Person:
    """Have an owner take somebody in and return that person signed in there."""
    status, answer = await owner.post(f"tenants/{owner.tenant_id}/users/invite", {"email": person.email, "role": role})
    assert status == 201, answer
    token = await sign_in(person)
    status, answer = await request(
        person.http,
        "POST",
        address(owner.url, "auth/switch-tenant"),
        json={"tenant_id": str(owner.tenant_id)},
        headers={"Authorization": f"Bearer {token}"},
    )
    assert status == 200, answer
    return replace(person, token=answer["data"]["access_token"], tenant_id=owner.tenant_id)


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
