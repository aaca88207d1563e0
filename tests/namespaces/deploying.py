"""An address that leads to one instance or another, and streams put into any state."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from realtime.log import EventLog, StreamState
from realtime.rooms import tenant_room
from tests.namespaces.test_delivery import payment, record
from tests.support.relay import Relay
from tests.support.running import Orchestrator
from tests.support.spine import everything


class Door(Relay):
    """An address that clients keep, while the instance behind it changes."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def lead_to(self, url: str) -> None:
        """Let clients connect to this instance."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._target = (parts.hostname, parts.port)
        await self.restore()


@asynccontextmanager
async def door_to(url: str) -> AsyncIterator[Door]:
    door = Door("127.0.0.1", 1)
    await door.lead_to(url)
    try:
        yield door
    finally:
        await door.cut()


async def state_of(orchestrator: Orchestrator, tenant_id: UUID) -> StreamState:
    """Return where a tenant's stream stands in the log."""
    return (await EventLog(orchestrator.house.engine).states([tenant_id]))[tenant_id]


async def pay(orchestrator: Orchestrator, tenant_id: UUID, count: int) -> list[int]:
    """Commit events one by one and return their numbers."""
    head = (await state_of(orchestrator, tenant_id)).head
    for _ in range(count):
        await record(orchestrator, payment(tenant_id, uuid4()))
    return list(range(head + 1, head + count + 1))


@asynccontextmanager
async def paying(orchestrator: Orchestrator, tenant_id: UUID) -> AsyncIterator[None]:
    """Commit events all the time."""

    async def go_on() -> None:
        while True:
            await record(orchestrator, payment(tenant_id, uuid4()))
            await asyncio.sleep(0.003)

    writing = asyncio.create_task(go_on())
    try:
        yield
    finally:
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing


async def fill(
    orchestrator: Orchestrator,
    tenant_id: UUID,
    count: int,
    *,
    room: str = "",
    namespace: str = "/billing",
    size: int = 10,
) -> None:
    """Write many events into a tenant's stream at once, and wait until the server has delivered them."""
    async with everything(orchestrator.house.engine) as connection:
        head = await connection.scalar(
            text("UPDATE event_streams SET head = head + :count WHERE tenant_id = :tenant_id RETURNING head"),
            {"count": count, "tenant_id": tenant_id},
        )
        await connection.execute(
            text(
                "INSERT INTO events (tenant_id, seq, id, namespace, room, name, payload, created_at) "
                "SELECT :tenant_id, number, gen_random_uuid(), :namespace, :room, 'filled', "
                "       jsonb_build_object('text', repeat('x', :size)), now() "
                "FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) number"
            ),
            {
                "tenant_id": tenant_id,
                "namespace": namespace,
                "room": room or tenant_room(tenant_id),
                "size": size,
                "first": head - count + 1,
                "last": head,
            },
        )
    await orchestrator.house.follower.catch_up(tenant_id, head)


async def forget(engine: AsyncEngine, tenant_id: UUID, upto: int) -> None:
    """Prune one tenant's stream."""
    async with everything(engine) as connection:
        values = {"tenant_id": tenant_id, "upto": upto}
        await connection.execute(text("UPDATE event_streams SET floor = :upto WHERE tenant_id = :tenant_id"), values)
        await connection.execute(text("DELETE FROM events WHERE tenant_id = :tenant_id AND seq <= :upto"), values)


async def rename_epoch(engine: AsyncEngine, tenant_id: UUID) -> None:
    """Make a stream look as if it came from a backup."""
    async with everything(engine) as connection:
        await connection.execute(
            text("UPDATE event_streams SET epoch = :epoch WHERE tenant_id = :tenant_id"),
            {"epoch": uuid4().hex[:8], "tenant_id": tenant_id},
        )
