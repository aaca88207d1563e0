"""The ring: a key is looked up once a minute, and whatever has changed since is noticed all the same."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from aiohttp import ClientSession
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from services.api_keys.errors import ApiKeyRevoked
from services.api_keys.ring import KeyRing
from services.auth.errors import CredentialsRefused
from services.identity import ApiKeyRefused, Principal, ScopeRequired
from services.permissions import KeyScope, Permission
from tests.namespaces.instances import doors
from tests.namespaces.newcomers import found_company
from tests.support.clock import MovableClock
from tests.support.keys import MadeKey, make_key
from tests.support.people import Person
from tests.support.running import Orchestrator
from tests.support.spine import Ears, spine
from tests.support.waiting import until

PROMISE_S = 1.0


@pytest.fixture
async def owner(orchestrator: Orchestrator, http: ClientSession) -> Person:
    return await found_company(orchestrator, http)


@pytest.fixture
async def instances(orchestrator: Orchestrator, deployment: str) -> AsyncIterator[list[Orchestrator]]:
    async with doors(orchestrator, deployment) as found:
        yield found


@asynccontextmanager
async def looks(engine: AsyncEngine) -> AsyncIterator[list[str]]:
    """Collect the statements that read keys."""
    seen: list[str] = []

    def note(*arguments: Any) -> None:
        if arguments[2].startswith("SELECT api_keys"):
            seen.append(arguments[2])

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", note)


def ring_of(engine: AsyncEngine, clock: MovableClock | None = None) -> KeyRing:
    return KeyRing(spine(engine, Ears()), clock or MovableClock())


async def test_a_key_names_its_tenant_and_nobody(engine: AsyncEngine, owner: Person) -> None:
    key = await make_key(owner, KeyScope.JOBS_WRITE)
    principal, expires_at = await ring_of(engine).read(key.text)
    assert (str(principal.key_id), principal.person_id, expires_at) == (key.id, None, None)
    assert (principal.tenant_id, principal.role, principal.is_superuser) == (owner.tenant_id, None, False)
    assert principal.may(Permission.JOBS_MANAGE)
    assert not principal.may(Permission.INVOICES_READ)
    assert not principal.manages


async def test_it_is_looked_up_once_a_minute(engine: AsyncEngine, owner: Person) -> None:
    key, clock = await make_key(owner), MovableClock()
    ring = ring_of(engine, clock)
    async with looks(engine) as seen:
        for _ in range(10):
            await ring.read(key.text)
        assert len(seen) == 1
        clock.offset += timedelta(minutes=1)
        await ring.read(key.text)
        assert len(seen) == 2


async def test_who_come_at_once_with_one_key_look_once(engine: AsyncEngine, owner: Person) -> None:
    key = await make_key(owner)
    ring = ring_of(engine)
    async with looks(engine) as seen:
        await asyncio.gather(*(ring.read(key.text) for _ in range(50)))
    # Those whom the door lets look side by side may do so.
    assert len(seen) <= 4


async def test_however_many_make_keys_up_few_look_at_once(engine: AsyncEngine) -> None:
    ring = ring_of(engine)
    made_up = [f"erpmax_{number:08d}_{'A' * 43}" for number in range(100)]
    answers = await asyncio.gather(*map(ring.read, made_up), return_exceptions=True)
    assert {type(answer) for answer in answers} == {CredentialsRefused}
    async with looks(engine) as seen:
        for text in ("erpmax_no key at all", "erpmax_\udcff"):
            assert not ring.is_at_hand(text)
            with pytest.raises(CredentialsRefused):
                await ring.read(text)
    assert seen == [], "what has not the shape of a key is not looked up"


async def test_it_remembers_only_so_many(engine: AsyncEngine, owner: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.api_keys.ring._REMEMBERED", 2)
    keys = [await make_key(owner) for _ in range(3)]
    ring = ring_of(engine)
    for key in keys:
        await ring.read(key.text)
    assert [ring.is_at_hand(key.text) for key in keys] == [False, True, True]


class TestRecognition:
    async def test_a_request_with_a_known_key_reads_no_keys(self, orchestrator: Orchestrator, owner: Person) -> None:
        key = await make_key(owner)
        async with looks(orchestrator.house.engine) as seen:
            for _ in range(5):
                assert (await key.machine.get("provisioning/jobs"))[0] == 200
        assert len(seen) == 1

    async def test_a_token_is_read_without_the_database(self, orchestrator: Orchestrator, owner: Person) -> None:
        recognition = orchestrator.house.recognition
        assert not recognition.must_look(owner.token)
        assert recognition.must_look((await make_key(owner)).text)

    async def test_a_key_passes_only_where_its_scope_is_asked_for(
        self, orchestrator: Orchestrator, owner: Person
    ) -> None:
        key = await make_key(owner, KeyScope.JOBS_READ)
        recognition = orchestrator.house.recognition
        assert str((await recognition.recognise(key.text, scope=KeyScope.JOBS_READ)).key_id) == key.id
        with pytest.raises(ScopeRequired):
            await recognition.recognise(key.text, scope=KeyScope.JOBS_WRITE)
        with pytest.raises(ApiKeyRefused):
            await recognition.recognise(key.text)
        assert (await recognition.recognise(owner.token)).user_id == owner.user_id

    async def test_revoked_on_one_instance_it_is_refused_at_once_there_and_soon_everywhere(
        self, instances: list[Orchestrator], owner: Person
    ) -> None:
        key = await make_key(owner, KeyScope.JOBS_READ)
        for one in instances:
            await one.house.recognition.recognise(key.text, scope=KeyScope.JOBS_READ)
        await key.revoke()
        with pytest.raises(ApiKeyRevoked):
            await instances[0].house.recognition.recognise(key.text, scope=KeyScope.JOBS_READ)
        for one in instances:
            await until(lambda: one.house.sockets._authority._standing.doubts(_named(key)), PROMISE_S)  # noqa: B023
            with pytest.raises(ApiKeyRevoked):
                await one.house.recognition.recognise(key.text, scope=KeyScope.JOBS_READ)

    async def test_of_fifty_parallel_uses_none_begun_after_the_end_is_let_in(
        self, instances: list[Orchestrator], owner: Person
    ) -> None:
        key = await make_key(owner)
        ended = asyncio.Event()

        async def use(number: int) -> tuple[bool, int]:
            await asyncio.sleep(number * 0.001)
            began_after = ended.is_set()
            status, _ = await key.machine.get("provisioning/jobs")
            return began_after, status

        async def end() -> None:
            await asyncio.sleep(0.02)
            await key.revoke()
            ended.set()

        answers = await asyncio.gather(*map(use, range(50)), end())
        found = [answer for answer in answers if answer is not None]
        assert {status for _, status in found} <= {200, 401}
        assert {status for began_after, status in found if began_after} <= {401}
        assert (await key.machine.get("provisioning/jobs"))[0] == 401


def _named(key: MadeKey) -> Principal:
    key_id = UUID(key.id)
    tenant_id = key.owner.tenant_id
    return Principal(
        user_id=key_id, session_id=key_id, tenant_id=tenant_id, role=None, is_superuser=False, scopes=frozenset()
    )
