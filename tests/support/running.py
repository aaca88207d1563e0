"""A whole orchestrator inside the test process, on real stores."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from jobs.broker import DoorbellBroker
from server.database import migrate
from server.isolation import as_owner
from server.processes import background, listening
from server.seed import seed
from server.settings import Settings
from server.stores import open_database
from server.wiring import House, Part, build
from services.registry import Services
from services.unit_of_work import UnitOfWorkFactory
from tests.support.clock import MovableClock


@dataclass(slots=True)
class Orchestrator:
    """A running server: its address and its inside."""

    url: str
    house: House
    clock: MovableClock

    @property
    def services(self) -> Services:
        return self.house.services

    @property
    def units(self) -> UnitOfWorkFactory:
        return self.house.units

    @property
    def settings(self) -> Settings:
        return self.house.settings


class Running:
    """Holds a context open in a task of its own, because a fixture's two halves run in different tasks."""

    def __init__(self, body: Callable[[AsyncExitStack], Awaitable[Any]]) -> None:
        self._body = body
        self._stop = asyncio.Event()
        self._ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._hold())

    async def started(self) -> Any:
        """Wait until the body has returned and give its value."""
        await asyncio.wait({self._task, self._ready}, return_when=asyncio.FIRST_COMPLETED)
        if not self._ready.done():
            await self._task
        return self._ready.result()

    async def stop(self) -> None:
        """Leave the context and wait until all is down."""
        self._stop.set()
        await self._task

    async def _hold(self) -> None:
        async with AsyncExitStack() as stack:
            self._ready.set_result(await self._body(stack))
            await self._stop.wait()


async def open_migrated(stack: AsyncExitStack, settings: Settings) -> AsyncEngine:
    """Open the database that the settings name and bring it to the newest revision."""
    engine = await stack.enter_async_context(open_database(settings))
    async with as_owner(engine) as connection:
        # Nothing that these tests kill is the database, so that no commit need wait for the disk.
        name = await connection.scalar(text("SELECT quote_ident(current_database())"))
        await connection.execute(text(f"ALTER DATABASE {name} SET synchronous_commit = off"))
        await connection.commit()
    await migrate(engine)
    return engine


async def start(stack: AsyncExitStack, settings: Settings, engine: AsyncEngine) -> Orchestrator:
    """Start a server as `orchestrator serve` does, and with RabbitMQ a worker beside it as the cluster has one."""
    clock = MovableClock()
    alone = not settings.rabbitmq_url.get_secret_value()
    if not alone:
        part = Part(worker=True, scheduler=True)
        worker = await stack.enter_async_context(build(settings, engine, part, clock=clock))
        stack.push_async_callback(_delete_queues, worker)
        await stack.enter_async_context(background(worker, part))
    part = Part(web=True, worker=alone, scheduler=alone)
    house = await stack.enter_async_context(build(settings, engine, part, clock=clock))
    await seed(house.units, house.services, demo=True)
    await stack.enter_async_context(background(house, part))
    await stack.enter_async_context(listening(house, settings.host, settings.port))
    return Orchestrator(url=settings.public_base, house=house, clock=clock)


async def _delete_queues(house: House) -> None:
    # The queues bear names of this test process, and RabbitMQ would keep them for ever.
    channel = house.broker.write_channel if isinstance(house.broker, DoorbellBroker) else None
    if channel is not None:
        name = house.settings.provisioning_queue_name
        for queue in (name, f"{name}.dead", house.settings.tasks_queue_name):
            await channel.queue_delete(queue)
