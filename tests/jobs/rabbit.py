"""Queues of a test's own on the real RabbitMQ, and what works on them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from taskiq import AsyncBroker
from taskiq.api import run_receiver_task

from jobs.broker import create_broker
from jobs.ringer import BrokerRinger


@dataclass(frozen=True, slots=True)
class Queues:
    """The queues of one test, with names of their own."""

    url: str
    provisioning: str
    tasks: str

    @property
    def dead(self) -> str:
        return f"{self.provisioning}.dead"

    def broker(self, url: str | None = None) -> AsyncBroker:
        return create_broker(url or self.url, provisioning_queue=self.provisioning, tasks_queue=self.tasks)


@dataclass(slots=True)
class Work:
    """What a worker was given to do, and a door that keeps it from finishing."""

    begun: list[UUID] = field(default_factory=list)
    done: list[UUID] = field(default_factory=list)
    door: asyncio.Event = field(default_factory=asyncio.Event)

    async def do(self, row_id: str) -> None:
        self.begun.append(UUID(row_id))
        await self.door.wait()
        self.done.append(UUID(row_id))


def teach(broker: AsyncBroker, queues: Queues, work: Work) -> None:
    async def run(row_id: str) -> None:
        await work.do(row_id)

    broker.register_task(run, task_name="provisioning.run", queue_name=queues.provisioning)
    broker.register_task(run, task_name="mail.send", queue_name=queues.tasks)


@asynccontextmanager
async def worker(queues: Queues, work: Work, *, url: str | None = None) -> AsyncIterator[AsyncBroker]:
    """Run a worker as `orchestrator worker` does."""
    broker = queues.broker(url)
    broker.is_worker_process = True
    teach(broker, queues, work)
    await broker.startup()
    running = asyncio.create_task(run_receiver_task(broker, max_async_tasks=10))
    try:
        yield broker
        assert not running.done(), "the worker must outlive whatever happened"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await broker.shutdown()


@asynccontextmanager
async def ringing(queues: Queues, *, url: str | None = None) -> AsyncIterator[BrokerRinger]:
    """Run a ringer on a broker of its own, as a web process does."""
    broker = queues.broker(url)
    teach(broker, queues, Work())
    await broker.startup()
    ringer = BrokerRinger(broker)
    running = asyncio.create_task(ringer.run())
    try:
        yield ringer
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await broker.shutdown()


async def until(true: Callable[[], object], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)


async def next_of(channel: AbstractChannel, queue: str) -> AbstractIncomingMessage:
    """Take the next message of a queue, waiting for it."""
    source = await channel.get_queue(queue, ensure=False)
    async with asyncio.timeout(10):
        while True:
            message = await source.get(fail=False)
            if message is not None:
                return message
            await asyncio.sleep(0.02)


async def is_empty(channel: AbstractChannel, queue: str) -> bool:
    """Take a message, if there is one, and tell whether there was none."""
    source = await channel.get_queue(queue, ensure=False)
    return await source.get(fail=False) is None


async def publish(channel: AbstractChannel, queue: str, body: bytes) -> None:
    await channel.default_exchange.publish(aio_pika.Message(body), routing_key=queue)


def patient(url: str) -> str:
    """Have the library try again soon; its own patience of five seconds is no matter of these tests."""
    return f"{url}?reconnect_interval=0.1"
