"""Whole deployments made of real processes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.processes import Fleet, cluster_environment, fleet
from tests.support.stores import Stores, own_database


@asynccontextmanager
async def own_fleet(stores: Stores, folder: Path) -> AsyncIterator[Fleet]:
    """Yield a fleet on PostgreSQL, Redis and RabbitMQ, with a database and queues of its own; nothing runs yet."""
    with own_database(stores.database_url, "fleet") as database_url:
        environment = cluster_environment(stores, database_url, folder)
        async with fleet(environment, folder) as ships:
            yield ships


@pytest.fixture
async def cluster(stores: Stores, tmp_path: Path) -> AsyncIterator[Fleet]:
    """A fleet for one test."""
    async with own_fleet(stores, tmp_path) as ships:
        yield ships
