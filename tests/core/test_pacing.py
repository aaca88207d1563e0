"""Pacing: the quick and the refused leave no sooner than the slow."""

import asyncio

import pytest

from core.pacing import no_sooner_than


class Trouble(Exception):
    """Something went wrong inside."""


async def test_nobody_leaves_before_the_time() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with no_sooner_than(0.05):
        pass
    with pytest.raises(Trouble):
        async with no_sooner_than(0.05):
            raise Trouble
    assert loop.time() >= began + 0.1
