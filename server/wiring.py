"""The wiring: settings become stores, providers, services and doors, each noun in a file of its own beside this one.

Only this floor names an adapter.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta

from aiohttp import ClientSession, ClientTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from taskiq import AsyncBroker

from core.clock import Clock, SystemClock
from core.errors import Unavailable
from handlers.context import GUARDING
from jobs.broker import create_broker
from jobs.ringer import BrokerRinger
from jobs.tasks import register
from namespaces.server import SocketServer
from providers.limiter import WindowRateLimiter
from realtime.bus import Bus, RedisBus
from realtime.exchange import Bell, Exchange
from realtime.follower import Follower
from realtime.log import EventLog
from realtime.meter import Meter
from realtime.presence import PresenceBoard
from realtime.redis_board import RedisBoard
from server.database import check_schema
from server.readiness import StoreReadiness, store_readiness
from server.realtime import build_sockets, follow_platform, head_check_s, open_board, open_bus
from server.services import open_services
from server.settings import Settings
from server.stores import open_redis, start_broker
from services.auth.recognition import Recognition
from services.registry import Services
from services.standing import Standing
from services.unit_of_work import UnitOfWorkFactory, guard_tenants

Work = Callable[[], Coroutine[object, object, None]]


@dataclass(frozen=True, slots=True)
class Part:
    """Which parts of the orchestrator a process plays."""

    web: bool = False
    worker: bool = False
    scheduler: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """Everything one process is made of; `background` runs for as long as the process does."""

    settings: Settings
    engine: AsyncEngine
    units: UnitOfWorkFactory
    services: Services
    recognition: Recognition
    broker: AsyncBroker
    ringer: BrokerRinger
    follower: Follower
    sockets: SocketServer
    meter: Meter
    bus: Bus
    exchange: Exchange
    limiter: WindowRateLimiter
    readiness: StoreReadiness
    http: ClientSession
    background: list[Work] = field(default_factory=list)


@asynccontextmanager
async def build(
    settings: Settings, engine: AsyncEngine, part: Part, *, clock: Clock | None = None
) -> AsyncIterator[House]:
    """Build one process on an open database and take it down again; raises StoreAway."""
    await check_schema(engine)
    async with AsyncExitStack() as stack:
        redis = await open_redis(stack, settings)
        queues = {
            "provisioning_queue": settings.provisioning_queue_name,
            "tasks_queue": settings.tasks_queue_name,
        }
        broker = create_broker(settings.rabbitmq_url.get_secret_value(), **queues)
        http = await stack.enter_async_context(ClientSession(timeout=ClientTimeout(total=30)))
        clock, meter = clock or SystemClock(), Meter()
        log = EventLog(engine)
        follower = Follower(log, meter=meter)
        stack.push_async_callback(follower.close)
        bus = open_bus(settings, redis, follower, listens=part.web, meter=meter)
        exchange = Exchange(bus, follower)
        ringer = BrokerRinger(broker)
        units = _units(engine, clock, exchange, ringer)
        services = open_services(settings, engine, units, http=http, log=log, clock=clock, stack=stack)
        register(broker, services, **queues)
        await start_broker(stack, broker, settings, worker=part.worker)
        limiter = WindowRateLimiter(
            settings.redis_url.get_secret_value(), backstop=services.attempts, guarding=GUARDING
        )
        stack.push_async_callback(limiter.aclose)
        standing = Standing(memory=timedelta(minutes=settings.access_token_expire_minutes))
        recognition = Recognition(units=units, auth=services.auth, standing=standing, follower=follower, clock=clock)
        presence = open_board(settings, redis, exchange, listens=part.web)
        sockets = build_sockets(
            settings,
            units=units,
            services=services,
            recognition=recognition,
            limiter=limiter,
            follower=follower,
            bus=bus,
            exchange=exchange,
            presence=presence,
            log=log,
            standing=standing,
            clock=clock,
            meter=meter,
        )
        if part.web:
            await follow_platform(follower, log, standing, clock)
        house = House(
            settings=settings,
            engine=engine,
            units=units,
            services=services,
            recognition=recognition,
            broker=broker,
            ringer=ringer,
            follower=follower,
            sockets=sockets,
            meter=meter,
            bus=bus,
            exchange=exchange,
            limiter=limiter,
            readiness=store_readiness(engine, redis, broker, bus if part.web else None),
            http=http,
        )
        house.background.extend(_background(house, presence, part))
        if part.web:
            # What was counted last is told before the pool is gone, and is lost if the database is away.
            stack.push_async_callback(_tell_calls, services)
        yield house


def _background(house: House, presence: PresenceBoard, part: Part) -> Iterator[Work]:
    yield house.ringer.run
    if isinstance(house.bus, RedisBus):
        yield house.bus.run
    if isinstance(presence, RedisBoard):
        yield presence.run
    if part.web:
        yield house.services.entitlements.calls.run
        yield lambda: house.follower.run(lambda: head_check_s(house.bus))
        yield house.sockets.announcer.run
        yield house.recognition.uses.run


async def _tell_calls(services: Services) -> None:
    with suppress(Unavailable):
        await services.entitlements.calls.flush()


def _units(engine: AsyncEngine, clock: Clock, bell: Bell, ringer: BrokerRinger) -> UnitOfWorkFactory:
    sessions = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False, autoflush=False)
    guard_tenants(sessions)
    return UnitOfWorkFactory(sessions, clock=clock, bell=bell, ringer=ringer)


async def run_background(house: House) -> None:
    """Run everything that goes on beside the doors, until cancelled; the first fault ends the process."""
    async with asyncio.TaskGroup() as tasks:
        for work in house.background:
            tasks.create_task(work())
