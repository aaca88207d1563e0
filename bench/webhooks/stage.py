"""The stage: stores, the slow provider, and the two servers that take its webhooks."""

import asyncio
import json
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aio_pika
import asyncpg

from bench.realtime.machine import Cores
from bench.realtime.stage import Kind, Server, free_port, inherited, installed_peer
from bench.realtime.stores import own_database, own_redis
from bench.realtime.talk import Broken
from bench.webhooks.provider import SECRET, STORE
from server.database import migrate, plain_url
from server.settings import Settings, load_settings
from server.stores import open_database

_PEER = Path(__file__).resolve().parent / "peer"
_RABBITMQ = "amqp://guest:guest@127.0.0.1:5672/"
_STARTS_S = 60.0
_ENDS_S = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What all parts of a run have in common. `scale` makes every time smaller, to try the benchmark."""

    folder: Path
    peer: Path
    cores: Cores
    environment: Mapping[str, str]
    rabbitmq_url: str
    provider: Server
    scale: float = 1.0

    def seconds(self, full: float) -> float:
        """Return a time for this run."""
        return max(1.0, full * self.scale)

    @contextmanager
    def server(self, kind: Kind, *, apart: bool) -> Iterator[Server]:
        """Start a server of one kind and wait until it serves; `apart` leaves the handling to another process."""
        with ExitStack() as stack:
            if kind == "node":
                yield stack.enter_context(self._node(handles=not apart))
                return
            if not apart:
                yield stack.enter_context(self._ours("web", "worker", "scheduler"))
                return
            queues = {"RABBITMQ_URL": self.rabbitmq_url, **stack.enter_context(self._own_queues())}
            server = stack.enter_context(self._ours("web", **queues))
            stack.enter_context(self._ours("worker", "scheduler", **queues))
            yield server

    def deliver(self, server: Server, *, rate: float, seconds: float) -> dict[str, Any]:
        """Have the provider deliver; raises Broken unless every event was acknowledged and stored once."""
        before = self._stored(server)
        url = f"{server.url}/api/v1/billing/webhook/btcpay"
        got = self.provider.order("deliver", _ENDS_S + seconds, url=url, rate=rate, seconds=seconds)
        stored = self._stored(server) - before
        if got["refused"] or stored != got["distinct"]:
            raise Broken(f"of {got['distinct']} events {stored} were stored, {got['refused']} deliveries were refused")
        return got

    def _stored(self, server: Server) -> int:
        table = "peer.provider_events" if server.name == "node" else "provider_events"
        return asyncio.run(_count(plain_url(self.environment["DATABASE_URL"]), table))

    @contextmanager
    def _ours(self, *parts: str, **extra: str) -> Iterator[Server]:
        command = [sys.executable, "-m", "bench.webhooks.host", *parts]
        environment = {**inherited(), **self.environment, **extra, "PORT": str(free_port())}
        with self._running("-".join(("ours", *parts)), command, environment) as server:
            yield server

    @contextmanager
    def _node(self, *, handles: bool) -> Iterator[Server]:
        config = {
            "port": free_port(),
            "database": plain_url(self.environment["DATABASE_URL"]),
            "secret": SECRET,
            "store": STORE,
            "provider": self.environment["BTCPAY_HOST"],
            "handles": handles,
        }
        environment = {**inherited(), "PEER_CONFIG": json.dumps(config)}
        with self._running("node", ["node", str(self.peer / "server.mjs")], environment) as server:
            yield server

    @contextmanager
    def _running(self, name: str, command: list[str], environment: Mapping[str, str]) -> Iterator[Server]:
        log = self.folder / f"{name}.log"
        with Server(command, environment=environment, folder=self.folder, core=self.cores.server, log=log) as server:
            server.port = server.hear(_STARTS_S)["port"]
            yield server

    @contextmanager
    def _own_queues(self) -> Iterator[dict[str, str]]:
        name = f"orchestrator.bench.{secrets.token_hex(4)}"
        queues = {"TASKS_QUEUE_NAME": f"{name}.tasks", "PROVISIONING_QUEUE_NAME": name}
        try:
            yield queues
        finally:
            asyncio.run(_delete_queues(self.rabbitmq_url, (*queues.values(), f"{name}.dead")))


@contextmanager
def stage(*, scale: float = 1.0) -> Iterator[Stage]:
    """Set everything up and take it down again; raises Broken when something that is needed is not there."""
    if sys.platform != "linux":
        raise Broken("the benchmark reads /proc and pins processes to cores: it runs on Linux only")
    given = load_settings()
    rabbitmq_url = given.rabbitmq_url.get_secret_value() or _RABBITMQ
    asyncio.run(_reach(rabbitmq_url))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orchestrator-bench-")))
        cores = Cores.choose()
        provider = stack.enter_context(
            Server(
                [sys.executable, "-m", "bench.webhooks.provider"],
                environment=inherited(),
                folder=folder,
                core=cores.load,
                log=folder / "provider.log",
            )
        )
        provider.port = provider.hear(_STARTS_S)["port"]
        environment = {
            "ENVIRONMENT": "test",
            "DATABASE_URL": stack.enter_context(own_database()),
            "REDIS_URL": stack.enter_context(own_redis()),
            "RABBITMQ_URL": "",
            "SECRET_KEY": secrets.token_hex(32),
            "DATA_DIR": str(folder / "data"),
            "EMITTER_CHANNEL": f"orchestrator.bench.{secrets.token_hex(4)}",
            "LOG_LEVEL": "WARNING",
            "BTCPAY_HOST": provider.url,
            "BTCPAY_API_KEY": "a key of the benchmark",
            "BTCPAY_STORE_ID": STORE,
            "BTCPAY_WEBHOOK_SECRET": SECRET,
        }
        asyncio.run(_migrate(load_settings(**{name.lower(): value for name, value in environment.items()})))
        yield Stage(
            folder=folder,
            peer=installed_peer(_PEER),
            cores=cores,
            environment=environment,
            rabbitmq_url=rabbitmq_url,
            provider=provider,
            scale=scale,
        )


async def _migrate(settings: Settings) -> None:
    async with open_database(settings) as engine:
        await migrate(engine)


async def _count(url: str, table: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))  # noqa: S608 - one of two names of ours
    finally:
        await connection.close()


async def _reach(url: str) -> None:
    try:
        async with await aio_pika.connect(url, timeout=5):
            pass
    except (OSError, TimeoutError, aio_pika.exceptions.AMQPError) as error:
        raise Broken(f"RabbitMQ cannot be reached: {error}. Start it, or name it by RABBITMQ_URL.") from error


async def _delete_queues(url: str, names: tuple[str, ...]) -> None:
    # RabbitMQ would keep them for ever.
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        for name in names:
            await channel.queue_delete(name)
