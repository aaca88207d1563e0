"""The pool's connections: replaced unnoticed when they have ended, and asked only when they have been idle."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from server import pool
from server.database import create_engine, normalise_url, plain_url
from server.isolation import BoundConnection
from tests.support.relay import Relay, relay_to

pytestmark = pytest.mark.embedded


@pytest.fixture
async def far(engine: AsyncEngine) -> AsyncIterator[tuple[AsyncEngine, Relay]]:
    """An engine with two connections, and what is between it and the database."""
    async with relay_to(plain_url(engine.url.render_as_string(hide_password=False))) as (relay, url):
        far = create_engine(normalise_url(url), pool_size=2)
        await together(far)
        yield far, relay
        await far.dispose()


@pytest.fixture
def pings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tells how often connections are asked whether they are there."""
    asked: list[str] = []
    execute = BoundConnection.execute

    async def counted(self: BoundConnection, query: str, **options: Any) -> str:
        if query == "SELECT":
            asked.append(query)
        return await execute(self, query, **options)

    monkeypatch.setattr(BoundConnection, "execute", counted)
    return asked


async def backend(engine: AsyncEngine) -> int:
    """Use a connection; returns which process of PostgreSQL serves it."""
    async with engine.connect() as connection:
        return int((await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one())


async def together(engine: AsyncEngine) -> set[int]:
    """Use both connections at once."""
    async with engine.connect() as one, engine.connect() as other:
        found = [await connection.execute(text("SELECT pg_backend_pid()")) for connection in (one, other)]
        return {int(result.scalar_one()) for result in found}


async def test_a_connection_in_use_is_not_asked(far: tuple[AsyncEngine, Relay], pings: list[str]) -> None:
    before = await together(far[0])
    one = {await backend(far[0]) for _ in range(3)}
    assert len(one) == 1
    assert one < before, "the pool takes the one that was used last"
    assert not pings


async def test_after_a_crash_of_the_database_nobody_meets_a_dead_connection(
    far: tuple[AsyncEngine, Relay], pings: list[str]
) -> None:
    engine, relay = far
    before = await together(engine)

    await relay.cut()
    await relay.restore()
    await asyncio.sleep(0.05)

    assert not await together(engine) & before
    assert not pings, "the driver knows without asking"


async def test_one_that_was_idle_is_asked(
    far: tuple[AsyncEngine, Relay], pings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await together(far[0])
    monkeypatch.setattr(pool, "_IDLE_S", 0.0)
    assert await backend(far[0]) in before
    assert len(pings) == 1


async def test_one_that_was_idle_and_does_not_answer_is_replaced(
    far: tuple[AsyncEngine, Relay], pings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, relay = far
    before = await together(engine)
    monkeypatch.setattr(pool, "_IDLE_S", 0.0)
    monkeypatch.setattr(pool, "_ANSWERS_S", 0.1)

    # The message of a question: its kind, its length and its text.
    relay.lay_snare(b"Q\x00\x00\x00\x0bSELECT\x00")

    assert not await together(engine) & before
    assert pings
