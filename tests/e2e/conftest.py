"""Whole deployments made of real processes."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.processes import Fleet, fleet
from tests.support.stores import Stores, own_database


@asynccontextmanager
async def own_fleet(stores: Stores, folder: Path) -> AsyncIterator[Fleet]:
    """Yield a fleet on PostgreSQL, Redis and RabbitMQ, with a database and queues of its own; nothing runs yet."""
    unique = secrets.token_hex(4)
    with own_database(stores.database_url, "fleet") as database_url:
        environment = {
            "ENVIRONMENT": "test",
            "DATABASE_URL": database_url,
            "REDIS_URL": stores.redis_url,
            "RABBITMQ_URL": stores.rabbitmq_url,
            "SECRET_KEY": secrets.token_hex(32),
            "DATA_DIR": str(folder / "data"),
            "PROVISIONING_QUEUE_NAME": f"test.fleet.{unique}",
            "TASKS_QUEUE_NAME": f"test.fleet.tasks.{unique}",
            "RATE_AUTH_PER_IP": "off",
            "RATE_USER_TOTAL": "off",
            "LOG_LEVEL": "INFO",
        }
        async with fleet(environment, folder) as ships:
            yield ships


@pytest.fixture
async def cluster(stores: Stores, tmp_path: Path) -> AsyncIterator[Fleet]:
    """A fleet for one test."""
    async with own_fleet(stores, tmp_path) as ships:
        yield ships
