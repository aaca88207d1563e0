"""A worker that also writes, as fast as it is told to, what workers write: facts recorded in units of work.

It is the real worker process with one more thing to do. WRITING names a file with {rate, tenants: {id: [user ids]}},
where `rate` is that of events of each tenant, each second.
"""

import asyncio
import json
import os
import random
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID, uuid4

from core.errors import Unavailable
from core.logging import configure_logging
from realtime.rooms import managers_room
from server.cli import new_event_loop
from server.processes import background, stop_signal
from server.settings import load_settings
from server.stores import open_database
from server.wiring import House, Part, build
from services.events import DomainEvent, NotificationCreated, PaymentReceived, StatusUpdate
from services.unit_of_work import TenantScope

_AT = datetime(2025, 11, 20, 12, 0, tzinfo=UTC)
# How many events one unit of work records.
_BATCHES = (1, 1, 1, 2, 5)


class ManagersTold(PaymentReceived):
    """A payment of which owners and admins alone are told."""

    def room(self) -> str:
        return managers_room(self.tenant_id)


def _payment(kind: type[PaymentReceived], tenant_id: UUID) -> PaymentReceived:
    return kind(tenant_id=tenant_id, payment_id=uuid4(), amount=Decimal("49.90"), currency="USD", created_at=_AT)


def _fact(tenant_id: UUID, users: list[UUID]) -> DomainEvent:
    kind = random.choices(("payment", "status", "notification", "managers"), (45, 25, 20, 10))[0]
    if kind == "payment":
        return _payment(PaymentReceived, tenant_id)
    if kind == "managers":
        return _payment(ManagersTold, tenant_id)
    if kind == "status":
        return StatusUpdate(
            tenant_id=tenant_id,
            job_id=uuid4(),
            job_type="create_site",
            status="in_progress",
            state="running",
            progress=random.randrange(100),
            message="Создание базы",
        )
    return NotificationCreated(
        tenant_id=tenant_id,
        user_id=random.choice(users),
        id=uuid4(),
        type="info",
        title="For you alone",
        message="Только вам",
        data={},
        link=None,
        created_at=_AT,
    )


async def _write(house: House, tenant_id: UUID, users: list[UUID], rate: float) -> None:
    """Write for ever; what could not be written during an outage is made up for."""
    loop = asyncio.get_running_loop()
    began, written = loop.time(), 0
    while True:
        batch = random.choice(_BATCHES)
        ahead_s = (written + batch) / rate - (loop.time() - began)
        if ahead_s > 0:
            await asyncio.sleep(ahead_s)
        try:
            async with house.units(TenantScope(tenant_id)) as uow:
                for _ in range(batch):
                    uow.record(_fact(tenant_id, users))
        except Unavailable:
            await asyncio.sleep(0.1)
        else:
            written += batch


async def _work() -> None:
    settings = load_settings()
    configure_logging(level=settings.log_level, as_json=True)
    plan = json.loads(Path(os.environ["WRITING"]).read_text())
    part = Part(worker=True)
    async with open_database(settings) as engine, build(settings, engine, part) as house, background(house, part):
        writing = [
            asyncio.create_task(_write(house, UUID(tenant_id), list(map(UUID, users)), plan["rate"]))
            for tenant_id, users in plan["tenants"].items()
        ]
        print("writing", flush=True)
        stopped = asyncio.create_task(stop_signal())
        # A writer never ends by itself: one that does has failed, and the process with it.
        done, _ = await asyncio.wait([stopped, *writing], return_when=asyncio.FIRST_COMPLETED)
        for task in writing:
            task.cancel()
        await asyncio.gather(*writing, return_exceptions=True)
        for task in done:
            task.result()


with asyncio.Runner(loop_factory=new_event_loop) as runner:
    runner.run(_work())
