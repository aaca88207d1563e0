"""What the tests of several doors share."""

from collections.abc import AsyncIterator
from functools import partial

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from server.settings import Settings
from tests.support.market import Market, open_market
from tests.support.running import Running


@pytest.fixture(scope="session")
async def market(
    settings: Settings, engine: AsyncEngine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Market]:
    """Two servers that sell by a fake of every provider; one pair, for they share the database's inbox."""
    folder = tmp_path_factory.mktemp("market")
    running = Running(partial(open_market, settings=settings, engine=engine, folder=folder))
    yield await running.started()
    await running.stop()
