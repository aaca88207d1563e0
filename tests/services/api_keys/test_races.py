"""Two who make the last key at once, who lose their place meanwhile, and keys that ended long ago."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from aiohttp import ClientSession
from sqlalchemy import func, select

from core.tokens import token_hash
from models.api_keys import ApiKey
from services.api_keys import ApiKeyService
from services.api_keys.errors import TooManyApiKeys
from services.permissions import KeyScope
from services.unit_of_work import PlatformScope, TenantScope
from services.verification import NOT_REQUIRED
from tests.namespaces.instances import beside
from tests.namespaces.newcomers import found_company
from tests.support.keys import keys_of, make_key
from tests.support.people import Person
from tests.support.running import Orchestrator

PLATFORM = PlatformScope("a test looks at everything")


@pytest.fixture
async def owner(orchestrator: Orchestrator, http: ClientSession) -> Person:
    return await found_company(orchestrator, http)


async def test_of_those_who_make_the_last_key_at_once_one_does(orchestrator: Orchestrator, owner: Person) -> None:
    """On two instances, as two admins would."""
    limit = {"api_keys_per_tenant": 3}
    async with beside(orchestrator, **limit) as one, beside(orchestrator, **limit) as other:
        asking = [replace(owner, url=server.url) for server in (one, other)]
        await make_key(asking[0])
        await make_key(asking[1])
        body = {"name": "1C", "scopes": [KeyScope.JOBS_READ]}
        answers = await asyncio.gather(*(asking[turn % 2].post(keys_of(owner), body) for turn in range(10)))
    assert sorted(status for status, _ in answers) == [201, *[409] * 9]
    async with orchestrator.units(TenantScope(owner.tenant_id)) as uow:
        assert await uow.session.scalar(select(func.count()).select_from(ApiKey)) == 3


async def test_where_none_is_allowed_none_is_made(orchestrator: Orchestrator, owner: Person) -> None:
    service = orchestrator.services.api_keys
    none = ApiKeyService(
        units=orchestrator.units,
        notices=service._notices,
        notifications=service._notifications,
        verification=NOT_REQUIRED,
        max_keys=0,
    )
    actor = await orchestrator.house.recognition.recognise(owner.token)
    with pytest.raises(TooManyApiKeys):
        async with orchestrator.units(TenantScope(owner.tenant_id)) as uow:
            await none.create(
                uow,
                actor,
                tenant_id=owner.tenant_id,
                name="1C",
                scopes=[KeyScope.JOBS_READ],
                expires_at=None,
            )


async def test_ten_revocations_at_once_are_one(orchestrator: Orchestrator, owner: Person) -> None:
    key = await make_key(owner)
    answers = await asyncio.gather(*(owner.delete(key.path) for _ in range(10)))
    assert {status for status, _ in answers} == {200}
    _, audit = await owner.get("audit?action=api_key.revoked")
    assert [entry["subject_id"] for entry in audit["data"]] == [key.id]


async def test_what_ended_long_ago_is_forgotten(orchestrator: Orchestrator, owner: Person) -> None:
    now = orchestrator.clock.now()
    long_ago, lately = now - timedelta(days=91), now - timedelta(days=89)
    kept, gone = [(None, None), (lately, None), (None, lately)], [(long_ago, None), (None, long_ago)]
    rows = [_row(owner, revoked_at=revoked, expires_at=expires) for revoked, expires in (*kept, *gone)]
    async with orchestrator.units(PLATFORM) as uow:
        uow.session.add_all(rows)
    # The server's own sweep may have been faster.
    await orchestrator.services.api_keys.prune()
    async with orchestrator.units(TenantScope(owner.tenant_id)) as uow:
        left = set(await uow.session.scalars(select(ApiKey.id)))
    assert left == {row.id for row in rows[: len(kept)]}


def _row(owner: Person, **times: object) -> ApiKey:
    key_id: UUID = uuid4()
    return ApiKey(
        id=key_id,
        tenant_id=owner.tenant_id,
        name="1C",
        prefix=f"erpmax_{key_id.hex[:8]}",
        secret_hash=token_hash(key_id.hex),
        scopes=["jobs:read"],
        **times,
    )
