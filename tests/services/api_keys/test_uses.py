"""When a key was last used: written beside the requests, once a minute however often and wherever it is used."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest
from aiohttp import ClientSession
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from models.api_keys import ApiKey
from services.api_keys.uses import Uses
from services.unit_of_work import PlatformScope, UnitOfWorkFactory
from tests.namespaces.newcomers import found_company
from tests.support.clock import MovableClock
from tests.support.keys import MadeKey, make_key
from tests.support.people import Person
from tests.support.running import Orchestrator
from tests.support.spine import Ears, spine

PLATFORM = PlatformScope("a test looks at everything")


@pytest.fixture
async def owner(orchestrator: Orchestrator, http: ClientSession) -> Person:
    return await found_company(orchestrator, http)


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def own(engine: AsyncEngine, clock: MovableClock) -> UnitOfWorkFactory:
    """Units of work whose clock is the test's."""
    factory = spine(engine, Ears())
    factory._clock = clock
    return factory


async def row_of(units: UnitOfWorkFactory, key: MadeKey) -> ApiKey:
    async with units(PLATFORM) as uow:
        return (await uow.session.scalars(select(ApiKey).where(ApiKey.id == UUID(key.id)))).one()


async def test_a_use_is_seen_soon(owner: Person) -> None:
    key = await make_key(owner)
    assert key.view["last_used_at"] is None
    assert (await key.machine.get("provisioning/jobs"))[0] == 200
    async with asyncio.timeout(10):
        while (await owner.get(key.path))[1]["data"]["last_used_at"] is None:
            await asyncio.sleep(0.05)


async def test_what_was_refused_was_no_use(owner: Person) -> None:
    key = await make_key(owner)
    await key.revoke()
    witness = await make_key(owner)
    assert (await key.machine.get("provisioning/jobs"))[0] == 401
    assert (await witness.machine.get("provisioning/jobs"))[0] == 200
    async with asyncio.timeout(10):
        while (await owner.get(witness.path))[1]["data"]["last_used_at"] is None:
            await asyncio.sleep(0.05)
    assert (await owner.get(key.path))[1]["data"]["last_used_at"] is None


async def test_it_is_written_once_a_minute(own: UnitOfWorkFactory, clock: MovableClock, owner: Person) -> None:
    key = await make_key(owner)
    one, other = Uses(own, clock), Uses(own, clock)

    async def use(uses: Uses) -> bool:
        before = (await row_of(own, key)).last_used_at
        uses.note(UUID(key.id))
        await uses.write()
        return (await row_of(own, key)).last_used_at != before

    assert [await use(uses) for uses in (one, one, other)] == [True, False, False]
    clock.offset += timedelta(seconds=61)
    assert [await use(uses) for uses in (other, one, other)] == [True, False, False]


async def test_many_instances_write_side_by_side(own: UnitOfWorkFactory, clock: MovableClock, owner: Person) -> None:
    keys = [await make_key(owner) for _ in range(10)]
    writers = [Uses(own, clock) for _ in range(4)]
    for number, uses in enumerate(writers):
        for key in keys[:: -1 if number % 2 else 1]:
            uses.note(UUID(key.id))
    await asyncio.gather(*(uses.write() for uses in writers))
    assert all([(await row_of(own, key)).last_used_at for key in keys])


async def test_a_fault_ends_nothing(
    own: UnitOfWorkFactory, clock: MovableClock, owner: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await make_key(owner)
    uses = Uses(own, clock)
    monkeypatch.setattr("services.api_keys.uses._PAUSE_S", 0.0)
    failures = [ConnectionError("away")]
    write = uses.write

    async def fail_once() -> None:
        if failures:
            raise failures.pop()
        await write()

    monkeypatch.setattr(uses, "write", fail_once)
    running = asyncio.create_task(uses.run())
    async with asyncio.timeout(10):
        while (await row_of(own, key)).last_used_at is None:
            uses.note(UUID(key.id))
            await asyncio.sleep(0.01)
    running.cancel()
    assert failures == []
