"""The ringer: hands committed doorbells to the broker without making anybody wait for it."""

import asyncio
from contextlib import suppress

import structlog
from taskiq import AsyncBroker
from taskiq.kicker import AsyncKicker

from services.unit_of_work import Task

_QUEUE_LIMIT = 10_000
_TIMEOUT_S = 5.0
_DRAIN_S = 2.0

logger = structlog.get_logger(__name__)


class BrokerRinger:
    """Rings in the background; what cannot be rung is found by the sweeps."""

    def __init__(self, broker: AsyncBroker) -> None:
        self._broker = broker
        self._waiting: asyncio.Queue[Task] = asyncio.Queue(_QUEUE_LIMIT)

    def ring(self, task: Task) -> None:
        with suppress(asyncio.QueueFull):
            self._waiting.put_nowait(task)

    async def run(self) -> None:
        """Send doorbells until cancelled."""
        while True:
            task = await self._waiting.get()
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    await self._send(task)
            except Exception as error:  # noqa: BLE001
                # A broker that is away in whatever manner must not end the ringing: the sweeps repair what was lost.
                logger.warning("doorbell not rung", task=task.name, row_id=str(task.row_id), error=repr(error))
            finally:
                self._waiting.task_done()

    async def drain(self) -> None:
        """Wait, but not for long, until what was rung has been sent."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                await self._waiting.join()

    async def _send(self, task: Task) -> None:
        known = self._broker.find_task(task.name)
        if known is None:
            raise LookupError(f"no task is called {task.name}")
        kicker: AsyncKicker[..., object] = known.kicker()
        await kicker.kiq(row_id=str(task.row_id))
