"""Servers and clients that the tests of a protocol share: `eio` and `poller` of Engine.IO, `served` and its talkers."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession

from tests.realtime.engine.serving import QUICK, Bare, Poller, bare
from tests.realtime.engine.talking import Served, Talker, talking


@pytest.fixture(scope="module")
async def eio() -> AsyncIterator[Bare]:
    """With times in which no ping disturbs."""
    async with bare() as running:
        yield running


@pytest.fixture
async def quick() -> AsyncIterator[Bare]:
    """With times in which whole sessions end."""
    async with bare(QUICK) as running:
        yield running


@pytest.fixture
async def poller(http: ClientSession, eio: Bare) -> Poller:
    return await Poller(http, eio.url).open()


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[Served]:
    async with talking() as running:
        yield running


@pytest.fixture
async def talker(served: Served) -> AsyncIterator[Talker]:
    talker = await Talker.enter(served)
    yield talker
    await talker.drop()


@pytest.fixture
async def stranger(served: Served) -> AsyncIterator[Talker]:
    """A connection in no namespace."""
    talker = await Talker.enter(served, "")
    yield talker
    await talker.drop()
