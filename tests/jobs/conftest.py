"""Queues of a test's own, removed afterwards."""

from collections.abc import AsyncIterator
from uuid import uuid4

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractConnection

from server.settings import Settings
from tests.jobs.rabbit import Queues


@pytest.fixture
async def connection(settings: Settings) -> AsyncIterator[AbstractConnection]:
    connection = await aio_pika.connect(settings.rabbitmq_url.get_secret_value())
    yield connection
    await connection.close()


@pytest.fixture
async def channel(connection: AbstractConnection) -> AbstractChannel:
    return await connection.channel()


@pytest.fixture
async def queues(settings: Settings, connection: AbstractConnection) -> AsyncIterator[Queues]:
    name = f"test.{uuid4().hex}"
    queues = Queues(settings.rabbitmq_url.get_secret_value(), f"{name}.provisioning", f"{name}.tasks")
    yield queues
    channel = await connection.channel()
    for queue in (queues.provisioning, queues.tasks, queues.dead):
        await channel.queue_delete(queue)
