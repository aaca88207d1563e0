"""Attempts counted by the database: exact in a crowd, over a moving window, and forgotten when it is over."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from core.tokens import token_hash
from core.windows import Window
from models.attempts import AttemptWindow
from services.attempts import AttemptCounts
from tests.support.identity import Identity, build_identity
from tests.support.running import Orchestrator


@pytest.fixture
def identity(engine: AsyncEngine, orchestrator: Orchestrator, tmp_path: Path) -> Iterator[Identity]:
    """For its units of work and its clock."""
    built = build_identity(engine, orchestrator.services, tmp_path)
    yield built
    built.hasher.close()


async def crowd(identity: Identity, key: str, *, hits: int) -> list[int | None]:
    counts = AttemptCounts(identity.units)
    return await asyncio.gather(*(counts.hit(Window(key, 5, 60)) for _ in range(hits)))


async def test_of_a_crowd_no_more_than_are_allowed_pass(identity: Identity) -> None:
    key, other = uuid4().hex, uuid4().hex

    assert (await crowd(identity, key, hits=30)).count(None) == 5
    assert (await crowd(identity, key, hits=3)).count(None) == 0
    assert (await crowd(identity, other, hits=3)).count(None) == 3


async def test_the_window_moves_and_refused_attempts_do_not_prolong_it(identity: Identity) -> None:
    key = uuid4().hex
    await crowd(identity, key, hits=3)
    identity.clock.offset = timedelta(seconds=40)
    await crowd(identity, key, hits=2)

    (wait_s,) = await crowd(identity, key, hits=1)
    assert wait_s is not None
    assert 18 <= wait_s <= 21, "until the first three are a minute old"
    identity.clock.offset = timedelta(seconds=61)
    assert (await crowd(identity, key, hits=5)).count(None) == 3
    moments = await identity.one(select(AttemptWindow.moments).where(AttemptWindow.key == token_hash(key)))
    assert len(moments) == 5, "what is over is not kept"


async def test_several_windows_hold_together_and_a_refused_attempt_counts_in_none(identity: Identity) -> None:
    counts, key = AttemptCounts(identity.units), uuid4().hex
    windows = Window(f"{key} minute", 5, 60), Window(f"{key} hour", 8, 3600)

    async def attempt(times: int) -> list[int | None]:
        return await asyncio.gather(*(counts.hit(*windows) for _ in range(times)))

    assert (await attempt(30)).count(None) == 5
    identity.clock.offset = timedelta(seconds=61)
    assert (await attempt(30)).count(None) == 3, "the hour was used up by nothing but what passed"

    (wait_s,) = await attempt(1)

    assert wait_s is not None
    assert 3600 - 61 - 3 <= wait_s <= 3600 - 61 + 1
    minute = await identity.one(select(AttemptWindow.moments).where(AttemptWindow.key == token_hash(windows[0].key)))
    assert sum(moment > identity.clock.now() - timedelta(seconds=60) for moment in minute) == 3
    (wait_s,) = await asyncio.gather(counts.hit(windows[0]))
    assert wait_s is None, "the minute has room for what the hour refused"


async def test_windows_that_are_over_are_forgotten_and_no_key_is_kept_in_clear(identity: Identity) -> None:
    key = uuid4().hex
    await crowd(identity, key, hits=1)
    mine = select(func.count()).where(AttemptWindow.key == token_hash(key))
    assert await identity.one(mine) == 1

    await AttemptCounts(identity.units).prune()
    assert await identity.one(mine) == 1
    identity.clock.offset = timedelta(seconds=61)
    await AttemptCounts(identity.units).prune()
    assert await identity.one(mine) == 0
