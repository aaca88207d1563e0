"""Pacing: what takes longer for some than for others takes as long for all, so that its time tells nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def no_sooner_than(seconds: float) -> AsyncIterator[None]:
    """Leave the block no sooner than so long after it was entered, also by an exception.

    It hides what takes less than that, and nothing of what takes more.
    """
    loop = asyncio.get_running_loop()
    due = loop.time() + seconds
    try:
        yield
    finally:
        await asyncio.sleep(due - loop.time())
