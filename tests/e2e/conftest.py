"""Whole deployments made of real processes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.processes import Fleet, cluster_environment, fleet
from tests.support.stores import Stores, own_database


@pytest.fixture
async def cluster(stores: Stores, tmp_path: Path) -> AsyncIterator[Fleet]:
    """A fleet on PostgreSQL, Redis and RabbitMQ, with a database and queues of its own; nothing runs yet."""
    with own_database(stores.database_url, "fleet") as database_url:
        environment = cluster_environment(stores, database_url, tmp_path)
        async with fleet(environment, tmp_path) as ships:
            yield ships
