"""The spine alone: units of work on a real database, with ears instead of doors."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import ClassVar, Literal
from uuid import UUID, uuid4

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker

from core.clock import Clock
from models.base import Base
from models.isolation import enter
from realtime.exchange import EphemeralEvent
from realtime.log import NumberedEvent
from services.events import DomainEvent
from services.unit_of_work import Task, UnitOfWorkFactory, guard_tenants
from tests.support.clock import MovableClock


class Said(DomainEvent):
    """An event for tests."""

    event: ClassVar[str] = "test:said"
    namespace: ClassVar[Literal["/notifications"]] = "/notifications"

    text: str
    amount: Decimal | None = None


@dataclass(slots=True)
class Ears:
    """A bell and a ringer that remember what they were told."""

    events: list[NumberedEvent] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    whispers: list[EphemeralEvent] = field(default_factory=list)

    def whisper(self, event: EphemeralEvent) -> None:
        self.whispers.append(event)

    def ring(self, what: Sequence[NumberedEvent] | Task) -> None:
        if isinstance(what, Task):
            self.tasks.append(what)
        else:
            self.events.extend(what)


def spine(engine: AsyncEngine, ears: Ears, *, clock: Clock | None = None) -> UnitOfWorkFactory:
    """Return units of work that ring `ears`."""
    sessions = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False, autoflush=False)
    guard_tenants(sessions)
    return UnitOfWorkFactory(sessions, clock=clock or MovableClock(), bell=ears, ringer=ears)


@asynccontextmanager
async def everything(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Yield a connection in a transaction to which no tenant's rows are hidden."""
    async with engine.connect() as connection:
        assert connection.sync_connection is not None
        enter(connection.sync_connection, None)
        async with connection.begin():
            yield connection


async def new_tenant(engine: AsyncEngine) -> UUID:
    """Insert a bare tenant."""
    tenant_id = uuid4()
    async with everything(engine) as connection:
        tenants = Base.metadata.tables["tenants"]
        await connection.execute(
            insert(tenants).values(id=tenant_id, name="T", slug=f"t-{tenant_id.hex}", status="active", settings={})
        )
    return tenant_id
