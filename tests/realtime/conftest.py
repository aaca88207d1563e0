"""What the tests of followers start from."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from realtime.log import EventLog
from tests.realtime.following import Instance


@pytest.fixture
async def instance(engine: AsyncEngine) -> AsyncIterator[Instance]:
    instance = Instance(EventLog(engine))
    yield instance
    await instance.follower.close()
