"""The broker: taskiq in this process, or RabbitMQ when it is configured.

On RabbitMQ both queues are durable quorum queues, messages are persistent and confirmed, acknowledged after the work
is done, and sent to the dead-letter queue when they are malformed or have killed their worker too often.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

import structlog
from aio_pika.abc import AbstractIncomingMessage
from taskiq import AckableMessage, AsyncBroker, InMemoryBroker
from taskiq_aio_pika import AioPikaBroker
from taskiq_aio_pika.exchange import Exchange
from taskiq_aio_pika.queue import Queue

from jobs.doorbell import DoorbellFormatter, PoisonedMessage, read_doorbell

# How often RabbitMQ hands out a message whose worker died over it before it is dead-lettered.
_DELIVERY_LIMIT = 5
_PREFETCH = 10

logger = structlog.get_logger(__name__)


class DoorbellBroker(AioPikaBroker):
    """taskiq's RabbitMQ broker, but poisoned messages go to the dead-letter queue where taskiq would drop them."""

    def __init__(self, url: str, *, provisioning_queue: str, tasks_queue: str) -> None:
        limit = {"x-delivery-limit": _DELIVERY_LIMIT}
        super().__init__(
            url,
            qos=_PREFETCH,
            exchange=Exchange(name="erpmax"),
            task_queues=[
                Queue(name=provisioning_queue, arguments=dict(limit)),
                Queue(name=tasks_queue, arguments=dict(limit)),
            ],
            dead_letter_queue=Queue(name=f"{provisioning_queue}.dead"),
            heartbeat=15,
        )

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Yield the messages of both queues until cancelled."""
        if self.read_channel is None:
            raise RuntimeError("the broker has not been started")
        await self.read_channel.set_qos(prefetch_count=_PREFETCH)
        inbox: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        # The robust channel declares the queues and consumes again by itself when RabbitMQ returns.
        queues = await self._declare_queues(self.read_channel)
        consumers = [(queue, await queue.consume(inbox.put, **arguments)) for queue, arguments in queues]
        try:
            while True:
                message = await inbox.get()
                if not await self._put_aside(message):
                    yield AckableMessage(data=message.body, ack=message.ack)
        finally:
            # A channel that is gone has no consumers left to end, and a robust one would wait for its return.
            with suppress(Exception):
                async with asyncio.timeout(1):
                    for queue, tag in consumers:
                        await queue.cancel(tag)

    async def _put_aside(self, message: AbstractIncomingMessage) -> bool:
        """Reject a message that names nothing this worker could run; tell whether it was one."""
        try:
            name, arguments = read_doorbell(message.body)
            task = self.find_task(name)
            # Periodic tasks go over all rows, every other one is about the row it names.
            if task is None or ("schedule" in task.labels) == bool(arguments):
                raise PoisonedMessage("no such task, or not with these arguments")
        except PoisonedMessage:
            logger.warning("poisoned message dead-lettered", queue=message.routing_key, size=len(message.body))
            await message.reject(requeue=False)
            return True
        return False


def create_broker(url: str, *, provisioning_queue: str, tasks_queue: str) -> AsyncBroker:
    """Return the broker for `url`, or one that runs tasks in this process when `url` is empty."""
    broker: AsyncBroker = (
        DoorbellBroker(url, provisioning_queue=provisioning_queue, tasks_queue=tasks_queue)
        if url
        else InMemoryBroker(max_async_tasks=_PREFETCH)
    )
    return broker.with_formatter(DoorbellFormatter())
