"""The wiring of the realtime side: the bus, what follows the log, and the sockets that it is delivered to."""

from uuid import UUID

from redis.asyncio import Redis

from core.clock import Clock
from core.errors import RateLimited
from handlers.context import CLIENT_IP
from models.events import PLATFORM
from namespaces.authority import LimitLooks
from namespaces.quotas import LoadLimits
from namespaces.server import Parts, SocketServer
from providers.limiter import WindowRateLimiter
from realtime.bus import Bus, NoBus, RedisBus
from realtime.emitters import BusBroadcaster
from realtime.engine.manager import Broadcaster
from realtime.exchange import Exchange
from realtime.follower import Follower
from realtime.limits import SocketLimits
from realtime.log import EventLog
from realtime.meter import Meter
from realtime.position import PidDesk
from realtime.presence import LocalBoard, PresenceBoard
from realtime.redis_board import RedisBoard
from server.keys import derived_key, secret_key
from server.settings import Settings
from services.auth.recognition import Recognition
from services.registry import Services
from services.standing import Standing
from services.unit_of_work import TenantScope, UnitOfWorkFactory

# How often followers look at the heads, in seconds: rarely while bells reach them, often while none does.
_HEAD_CHECK_S = 0.4
_HEAD_CHECK_WITHOUT_BELL_S = 0.1


def head_check_s(bus: Bus) -> float:
    """Return how long to wait between two looks at the heads."""
    return _HEAD_CHECK_S if bus.healthy else _HEAD_CHECK_WITHOUT_BELL_S


async def follow_platform(follower: Follower, log: EventLog, standing: Standing, clock: Clock) -> None:
    """Learn what has changed since the oldest token that may still come, and hear of every change from now on."""
    await follower.join(PLATFORM)
    for event in await log.read_since(PLATFORM, clock.now() - standing.memory):
        standing.note(dict(event.payload), event.created_at)


def open_bus(settings: Settings, redis: Redis | None, follower: Follower, *, listens: bool, meter: Meter) -> Bus:
    """Return the bus of this process; without Redis it reaches nobody."""
    if redis is None:
        return NoBus(alone=not settings.rabbitmq_url.get_secret_value())
    bus = RedisBus(redis, derived_key(secret_key(settings), "bus"), listens=listens, meter=meter)
    # What was said before a channel began to be heard was missed.
    bus.on_heard = follower.look_now
    return bus


def open_board(settings: Settings, redis: Redis | None, exchange: Exchange, *, listens: bool) -> PresenceBoard:
    """Return the board on which it stands who is connected; a process without sockets needs none that is shared."""
    if redis is None or not listens:
        return LocalBoard()
    return RedisBoard(redis, exchange, realm=derived_key(secret_key(settings), "presence").hex()[:12])


def build_sockets(
    settings: Settings,
    *,
    units: UnitOfWorkFactory,
    services: Services,
    recognition: Recognition,
    limiter: WindowRateLimiter,
    follower: Follower,
    bus: Bus,
    exchange: Exchange,
    presence: PresenceBoard,
    log: EventLog,
    standing: Standing,
    clock: Clock,
    meter: Meter,
) -> SocketServer:
    """Build the sockets and have the log and the exchange deliver to them."""
    parts = Parts(
        units=units,
        services=services,
        recognition=recognition,
        follower=follower,
        log=log,
        presence=presence,
        standing=standing,
        pids=PidDesk(derived_key(secret_key(settings), "pid")),
        clock=clock,
        load_limits=_load_limits(settings, units, services),
        limit_looks=_limit_looks(settings, limiter),
        address_of=lambda request: request[CLIENT_IP],
        meter=meter,
    )
    channel = settings.emitter_channel
    if isinstance(bus, RedisBus) and channel != "off":
        manager: Broadcaster = BusBroadcaster(bus, channel=channel)
    else:
        manager = Broadcaster()
    sockets = SocketServer(parts, manager=manager, origins=settings.allowed_origins)
    exchange.deliver = sockets.whisper
    return sockets


def _limit_looks(settings: Settings, limiter: WindowRateLimiter) -> LimitLooks:
    rule = settings.rate_key_looks_per_ip

    async def limit(asker: str) -> None:
        # The same count as that of the other door.
        wait_s = None if rule == "off" else await limiter.hit(rule, "key_looks_per_ip", asker)
        if wait_s is not None:
            raise RateLimited(retry_after_s=wait_s)

    return limit


def _load_limits(settings: Settings, units: UnitOfWorkFactory, services: Services) -> LoadLimits:
    defaults = SocketLimits(
        connections=settings.sockets_per_tenant,
        connects_per_s=settings.socket_connects_per_s,
        events_per_s=settings.socket_events_per_s,
        socket_events_per_s=settings.events_per_socket_per_s,
        payload_bytes=settings.socket_payload_bytes,
    )

    async def load(tenant_id: UUID) -> SocketLimits:
        async with units(TenantScope(tenant_id)) as uow:
            # A tenant that is closed has no sockets, however long ago that was, and whatever its people's tokens say.
            await services.auth.require_open_tenant(uow, tenant_id)
            return await services.entitlements.socket_limits(uow, tenant_id, defaults)

    return load
