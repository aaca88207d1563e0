"""An instance without sockets: a follower on a real log, and what it delivered and gave up."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from realtime.follower import Follower
from realtime.log import EventLog, NumberedEvent
from realtime.meter import Meter
from services.unit_of_work import TenantScope
from tests.support.spine import Ears, Said, everything, spine
from tests.support.waiting import until


class Instance:
    """A follower with sockets of some tenants, and what it delivered and gave up."""

    def __init__(self, log: EventLog) -> None:
        self.delivered: list[NumberedEvent] = []
        self.epochs: set[str] = set()
        self.lost: list[tuple[UUID, str]] = []
        self.fail_once = False
        # How many packets each event makes.
        self.packets = 1
        self.meter = Meter()
        self.follower = Follower(log, meter=self.meter)
        self.follower.deliver = self._deliver
        self.follower.on_lost = lambda tenant_id, reason: self.lost.append((tenant_id, reason))

    def _deliver(self, event: NumberedEvent, epoch: str) -> int:
        if self.fail_once:
            self.fail_once = False
            raise ConnectionError("a socket broke in a way nobody foresaw")
        self.delivered.append(event)
        self.epochs.add(epoch)
        return self.packets

    @property
    def numbers(self) -> list[int]:
        return [event.seq for event in self.delivered]

    async def settles_at(self, head: int) -> None:
        await until(lambda: bool(self.numbers) and self.numbers[-1] >= head)


class SlowLog(EventLog):
    """A log that is read only when the test lets it."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        self.gate = asyncio.Event()
        self.asked = 0

    async def read_after(self, tenant_id: UUID, after: int, *, limit: int) -> Sequence[NumberedEvent]:
        self.asked += 1
        events = await super().read_after(tenant_id, after, limit=limit)
        await self.gate.wait()
        return events


async def write(engine: AsyncEngine, tenant_id: UUID, count: int) -> list[NumberedEvent]:
    ears = Ears()
    async with spine(engine, ears)(TenantScope(tenant_id)) as uow:
        for number in range(count):
            uow.record(Said(tenant_id=tenant_id, text=str(number)))
    return ears.events


async def restore(engine: AsyncEngine, tenant_id: UUID, head: int, *, same_epoch: bool = False) -> str:
    """Put the stream where a backup would have left it, under another epoch unless told otherwise; returns that."""
    async with everything(engine) as connection:
        values = {"tenant_id": tenant_id, "head": head}
        await connection.execute(text("DELETE FROM events WHERE tenant_id = :tenant_id AND seq > :head"), values)
        await connection.execute(text("UPDATE event_streams SET head = :head WHERE tenant_id = :tenant_id"), values)
        if not same_epoch:
            await connection.execute(
                text("UPDATE event_streams SET epoch = 'restored' WHERE tenant_id = :tenant_id"), values
            )
    return (await EventLog(engine).states([tenant_id]))[tenant_id].epoch
