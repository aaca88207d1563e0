"""The wiring: settings become stores, providers, services and doors. The only place that names an adapter."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta

from aiohttp import ClientSession, ClientTimeout
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from taskiq import AsyncBroker

from core.clock import Clock, SystemClock
from core.errors import Unavailable
from core.otp import CodeHasher
from core.passwords import PasswordHasher
from core.sealing import Sealer
from handlers.context import GUARDING
from jobs.broker import DoorbellBroker, create_broker
from jobs.ringer import BrokerRinger
from jobs.tasks import register
from namespaces.server import SocketServer
from providers.breaches import RangeRegister
from providers.http import HttpClient, HttpPolicy
from providers.limiter import WindowRateLimiter
from providers.mail.contract import MailTransport
from providers.mail.outbox import OutboxTransport
from providers.mail.smtp import SmtpTransport
from providers.provisioning.driver import RecipeDriver
from providers.provisioning.recipe import load_recipe
from providers.uploads import UploadFolder
from realtime.bus import Bus, Deaf, RedisBus
from realtime.cancellation import keep_cancellations
from realtime.exchange import Bell, Exchange
from realtime.follower import Follower
from realtime.log import EventLog
from realtime.meter import Meter
from realtime.redis_board import RedisBoard
from server.database import check_schema, create_engine, embedded_postgres, normalise_url, ping, plain_url
from server.keys import token_signer
from server.merchants import open_merchants
from server.messengers import open_roads, phone_paces
from server.payments import open_payments
from server.readiness import StoreReadiness
from server.realtime import build_sockets, follow_platform, head_check_s, open_board, open_bus
from server.settings import Settings, all_secrets, derived_key
from services.api_keys import ApiKeyService
from services.attempts import AttemptCounts
from services.audit import AuditService
from services.auth import AuthService
from services.auth.new_passwords import NewPasswords
from services.auth.notices import SecurityNotices
from services.auth.recognition import Recognition
from services.auth.tokens import TokenDesk
from services.billing import BillingService
from services.documents import DocumentLinks, DocumentService, Issuer
from services.entitlements import EntitlementDesk, EntitlementService
from services.history import HistoryService
from services.mail import MailService
from services.merchants import MerchantService
from services.notifications import NotificationService
from services.phones import PhoneService
from services.platform import PlatformService
from services.provisioning import ProvisioningService
from services.registry import Services
from services.reports import ReportService
from services.sso import SsoService
from services.standing import Standing
from services.tenants import TenantService
from services.unit_of_work import UnitOfWorkFactory, guard_tenants
from services.verification import Verification

# How long a store may take to answer at start, in seconds.
_PATIENCE_S = 6.0


class StoreAway(Exception):
    """A store cannot be reached at start; the message says which and how to mend it."""


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
    background: list[Callable[[], Coroutine[object, object, None]]] = field(default_factory=list)


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[AsyncEngine]:
    """Open the database that `settings` name, starting the embedded one if they name none; raises StoreAway."""
    async with AsyncExitStack() as stack:
        if settings.embedded:
            url = await stack.enter_async_context(embedded_postgres(settings.data_dir))
        else:
            try:
                url = normalise_url(settings.database_url.get_secret_value())
            except (ValueError, ArgumentError) as error:
                raise _no_address("PostgreSQL", "DATABASE_URL") from error
        engine = create_engine(url, pool_size=settings.database_pool_size)
        stack.push_async_callback(engine.dispose)
        await _reach("PostgreSQL", "DATABASE_URL", engine.url.render_as_string(), lambda: ping(engine))
        yield engine


@asynccontextmanager
async def build(
    settings: Settings, engine: AsyncEngine, part: Part, *, clock: Clock | None = None
) -> AsyncIterator[House]:
    """Build one process on an open database and take it down again; raises StoreAway."""
    await check_schema(engine)
    async with AsyncExitStack() as stack:
        redis = await _open_redis(stack, settings)
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
        services = _services(settings, engine, units, http=http, log=log, clock=clock, stack=stack)
        register(broker, services, **queues)
        await _start_broker(stack, broker, settings, part)
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
            readiness=_readiness(engine, redis, broker, bus if part.web else None),
            http=http,
        )
        house.background.append(ringer.run)
        if isinstance(bus, RedisBus):
            house.background.append(bus.run)
        if isinstance(presence, RedisBoard):
            house.background.append(presence.run)
        if part.web:
            house.background.append(services.entitlements.calls.run)
            # What was counted last is told before the pool is gone, and is lost if the database is away.
            stack.push_async_callback(_tell_calls, services)
            house.background.append(lambda: follower.run(lambda: head_check_s(bus)))
            house.background.append(sockets.announcer.run)
            house.background.append(recognition.uses.run)
        yield house


async def _tell_calls(services: Services) -> None:
    with suppress(Unavailable):
        await services.entitlements.calls.flush()


async def _reach(store: str, setting: str, address: str, probe: Callable[[], Awaitable[object]]) -> None:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await probe()
    except Exception as error:
        # Drivers raise dozens of kinds here; every one of them means the same to whoever starts the server.
        raise StoreAway(
            f"{store} cannot be reached at {address} ({type(error).__name__}: {error}). "
            f"Start it, or correct {setting}; see docs/configuration.md."
        ) from error


def _no_address(store: str, setting: str) -> StoreAway:
    return StoreAway(f"{setting} is not the address of a {store} server. Correct it; see docs/configuration.md.")


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


async def _open_redis(stack: AsyncExitStack, settings: Settings) -> Redis | None:
    url = settings.redis_url.get_secret_value()
    if not url:
        return None
    # No retries inside the client: the bell has its own, and readiness must tell the truth at once.
    try:
        redis = Redis.from_url(
            url, socket_keepalive=True, socket_connect_timeout=2, socket_timeout=2, retry=Retry(NoBackoff(), 0)
        )
    except ValueError as error:
        raise _no_address("Redis", "REDIS_URL") from error
    keep_cancellations(redis)
    stack.push_async_callback(redis.aclose)
    await _reach("Redis", "REDIS_URL", _without_password(url), redis.ping)
    return redis


async def _start_broker(stack: AsyncExitStack, broker: AsyncBroker, settings: Settings, part: Part) -> None:
    broker.is_worker_process = part.worker
    address = _without_password(settings.rabbitmq_url.get_secret_value())
    await _reach("RabbitMQ", "RABBITMQ_URL", address, broker.startup)
    stack.push_async_callback(broker.shutdown)


def _units(engine: AsyncEngine, clock: Clock, bell: Bell, ringer: BrokerRinger) -> UnitOfWorkFactory:
    sessions = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False, autoflush=False)
    guard_tenants(sessions)
    return UnitOfWorkFactory(sessions, clock=clock, bell=bell, ringer=ringer)


def _services(
    settings: Settings,
    engine: AsyncEngine,
    units: UnitOfWorkFactory,
    *,
    http: ClientSession,
    log: EventLog,
    clock: Clock,
    stack: AsyncExitStack,
) -> Services:
    hasher = PasswordHasher(memory_kib=settings.password_hash_memory_kib, rounds=settings.password_hash_rounds)
    stack.callback(hasher.close)
    notifications = NotificationService()
    mail = MailService(units=units, transport=_mail_transport(settings))
    documents = _documents(settings, units, mail, notifications)
    merchants = open_merchants(settings, units, notifications, clock=clock, stack=stack)
    billing = _billing(
        settings, units, notifications, documents=documents, mail=mail, merchants=merchants, clock=clock, stack=stack
    )
    desk = EntitlementDesk(grace=_entitlement_grace(settings))
    provisioning = ProvisioningService(
        units=units,
        driver=_driver(settings, engine),
        notifications=notifications,
        entitlements=desk,
        site_url_template=settings.site_template,
        max_waiting=settings.waiting_jobs_per_tenant,
    )
    phones = PhoneService(
        units=units,
        roads=open_roads(settings, stack),
        sealer=Sealer([derived_key(secret, "phone codes") for secret in all_secrets(settings)]),
        hashers=[CodeHasher(secret) for secret in all_secrets(settings)],
        paces=phone_paces(settings),
    )
    tenants = TenantService(
        units=units,
        billing=billing,
        provisioning=provisioning,
        entitlements=desk,
        mail=mail,
        public_url=settings.public_base,
        max_owned=settings.tenants_per_owner,
        deletion_grace=timedelta(days=settings.tenant_deletion_grace_days),
        verification=Verification(required=settings.require_verified_email),
    )
    signer, breaches = token_signer(settings), _breaches(settings, http)
    access_lifetime = timedelta(minutes=settings.access_token_expire_minutes)
    refresh_lifetime = timedelta(days=settings.refresh_token_expire_days)
    auth = AuthService(
        units=units,
        signer=signer,
        hasher=hasher,
        tenants=tenants,
        mail=mail,
        notifications=notifications,
        phones=phones,
        breaches=breaches,
        sealer=Sealer([derived_key(secret, "second factors") for secret in all_secrets(settings)]),
        code_hashers=[CodeHasher(secret) for secret in all_secrets(settings)],
        access_lifetime=access_lifetime,
        refresh_lifetime=refresh_lifetime,
        public_url=settings.public_base,
    )
    sso = SsoService(
        units=units,
        sso_url_template=settings.sso_url_template,
        lifetime=timedelta(seconds=settings.sso_token_lifetime_s),
        development=settings.development,
    )
    platform = PlatformService(
        units=units,
        new_passwords=NewPasswords(hasher=hasher, breaches=breaches),
        desk=TokenDesk(signer, access_lifetime=access_lifetime, refresh_lifetime=refresh_lifetime),
        notices=SecurityNotices(mail=mail, notifications=notifications),
        factors=auth.second_factors,
        suspension=tenants.suspension,
        folder=UploadFolder(settings.data_dir / "uploads"),
    )
    return Services(
        api_keys=ApiKeyService(
            units=units,
            notices=SecurityNotices(mail=mail, notifications=notifications),
            notifications=notifications,
            verification=Verification(required=settings.require_verified_email),
            max_keys=settings.api_keys_per_tenant,
        ),
        attempts=AttemptCounts(units),
        audit=AuditService(),
        auth=auth,
        tenants=tenants,
        billing=billing,
        reconciling=billing.reconciling,
        documents=documents,
        entitlements=EntitlementService(
            units=units, desk=desk, announcer=billing.announcer, clock=clock, grace=_entitlement_grace(settings)
        ),
        merchants=merchants,
        provisioning=provisioning,
        sso=sso,
        notifications=notifications,
        mail=mail,
        phones=phones,
        platform=platform,
        reports=ReportService(),
        history=HistoryService(
            log, clock=clock, keep=timedelta(hours=settings.events_keep_hours), keep_count=settings.events_keep_count
        ),
    )


def _billing(
    settings: Settings,
    units: UnitOfWorkFactory,
    notifications: NotificationService,
    *,
    documents: DocumentService,
    mail: MailService,
    clock: Clock,
    stack: AsyncExitStack,
    merchants: MerchantService,
) -> BillingService:
    http = HttpClient(HttpPolicy(retry_enabled=settings.http_retry_enabled), clock=clock)
    stack.push_async_callback(http.aclose)
    payments = open_payments(settings, http, clock=clock)
    for provider in payments.providers.values():
        stack.push_async_callback(provider.aclose)
    return BillingService(
        units=units,
        providers=payments.providers,
        default_provider=payments.default,
        aliases=payments.aliases,
        notifications=notifications,
        dunning=[timedelta(days=days) for days in settings.dunning_retry_days],
        verification=Verification(required=settings.require_verified_email),
        reconcile_hour=settings.reconcile_hour,
        documents=documents,
        mail=mail,
        grace=_entitlement_grace(settings),
        merchants=merchants.inbox,
        return_url=f"{settings.public_base}/dashboard",
    )


def _documents(
    settings: Settings, units: UnitOfWorkFactory, mail: MailService, notifications: NotificationService
) -> DocumentService:
    keys = [derived_key(secret, "document links") for secret in all_secrets(settings)]
    return DocumentService(
        units=units,
        issuer=Issuer(
            name=settings.invoice_issuer_name,
            # One line of the environment holds several of the address.
            address=settings.invoice_issuer_address.replace("\\n", "\n"),
            tax_id=settings.invoice_issuer_tax_id,
            series=settings.invoice_number_prefix,
            tax_rate=settings.invoice_tax_rate,
        ),
        links=DocumentLinks(keys, public_url=settings.public_base),
        mail=mail,
        notifications=notifications,
    )


def _entitlement_grace(settings: Settings) -> timedelta:
    return timedelta(days=settings.entitlement_grace_days)


def _driver(settings: Settings, engine: AsyncEngine) -> RecipeDriver:
    database_url = settings.provisioning_database_url.get_secret_value() or plain_url(
        engine.url.render_as_string(hide_password=False)
    )
    return RecipeDriver(
        load_recipe(settings.provisioning_recipe),
        data_dir=settings.data_dir,
        # The recipe itself says which of these its commands may see.
        environment={**os.environ, "PROVISIONING_DATABASE_URL": database_url},
    )


def _breaches(settings: Settings, http: ClientSession) -> RangeRegister | None:
    if not settings.breached_passwords_url:
        return None
    return RangeRegister(http, base_url=settings.breached_passwords_url)


def _mail_transport(settings: Settings) -> MailTransport:
    if not settings.smtp_host:
        return OutboxTransport(settings.data_dir / "outbox", sender=settings.mail_from)
    return SmtpTransport(
        host=settings.smtp_host,
        port=settings.smtp_port,
        user=settings.smtp_user,
        password=settings.smtp_password.get_secret_value(),
        starttls=settings.smtp_starttls,
        sender=settings.mail_from,
    )


def _readiness(engine: AsyncEngine, redis: Redis | None, broker: AsyncBroker, bus: Bus | None) -> StoreReadiness:
    async def look_at_redis() -> None:
        if redis is not None:
            await redis.ping()
        if isinstance(bus, RedisBus) and not bus.healthy:
            raise Deaf("the subscription is silent")

    async def look_at_broker() -> None:
        connection = broker.write_conn if isinstance(broker, DoorbellBroker) else None
        if connection is None or not connection.connected.is_set():
            raise ConnectionError("not connected")

    return StoreReadiness(
        {
            "database": lambda: ping(engine),
            "redis": look_at_redis if redis is not None else None,
            "rabbitmq": look_at_broker if isinstance(broker, DoorbellBroker) else None,
        }
    )


async def run_background(house: House) -> None:
    """Run everything that goes on beside the doors, until cancelled; the first fault ends the process."""
    async with asyncio.TaskGroup() as tasks:
        for work in house.background:
            tasks.create_task(work())
