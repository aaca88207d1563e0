"""`kill -9` at every point between the arrival of a payment's event and its effect: none is lost, none is doubled.

A process is stopped at a point by what it cannot do without: a relay ends the conversation with a store at one message
of it, the provider does not answer, or somebody else holds a lock. Nothing in the product knows of it.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import aio_pika
import asyncpg
import pytest
from aiohttp import ClientError, ClientSession

from tests.fakes.server import Fault
from tests.support.billing import eventually
from tests.support.listeners import Listener
from tests.support.processes import Process
from tests.support.relay import Relay, relay_to
from tests.support.sellers import ONE_PAYMENT, Buyer, Sellers, open_sellers
from tests.support.stores import Stores, free_port

# A worker that is lost leaves some rings to the sweeps, which come half a minute later.
pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]

RE_DRIVEN_WITHIN_S = 60.0
# For whatever a process has to do before anything can be seen of it.
PATIENCE_S = 45.0
STORES = ("DATABASE_URL", "REDIS_URL", "RABBITMQ_URL")
# The head of AMQP's `basic.ack`: class 60, method 80.
ACK = b"\x00\x3c\x00\x50"


@dataclass(slots=True)
class Scene:
    """A payment that is told of while somebody waits with a knife; `row_id` is its event's in the inbox, once known."""

    sellers: Sellers
    relays: dict[str, Relay]
    buyer: Buyer
    row_id: UUID | None = None


Wait = Callable[[], Awaitable[object]]
Hold = Callable[[Scene], AbstractAsyncContextManager[Wait]]


@dataclass(frozen=True, slots=True)
class Point:
    """Where a process dies.

    `is_done` tells that the event is in effect by then; `is_outlived`, that what held the process back is still there
    when the next one tries.
    """

    name: str
    hold: Hold
    provider: str = "stripe"
    is_done: bool = False
    is_outlived: bool = False


@asynccontextmanager
async def snare(relay: Relay, *words: bytes, answered: bool = False) -> AsyncIterator[Wait]:
    laid = relay.lay_snare(*words, answered=answered)
    try:
        yield laid.caught.wait
    finally:
        relay.take_snare_away()


def statement(*words: bytes, answered: bool = False) -> Hold:
    """Stop where these words are to be said to the database, by a worker in its work on this event alone."""

    def hold(scene: Scene) -> AbstractAsyncContextManager[Wait]:
        mark = () if scene.row_id is None else (scene.row_id.bytes,)
        return snare(scene.relays["DATABASE_URL"], *mark, *words, answered=answered)

    return hold


def bell() -> Hold:
    """Stop where the instances are to be told of the tenant's events."""

    def hold(scene: Scene) -> AbstractAsyncContextManager[Wait]:
        return snare(scene.relays["REDIS_URL"], b"PUBLISH", str(scene.buyer.owner.tenant_id).encode())

    return hold


def queue(word: bytes) -> Hold:
    """Stop where this is to be said to the queue."""
    return lambda scene: snare(scene.relays["RABBITMQ_URL"], word)


@asynccontextmanager
async def silence(scene: Scene) -> AsyncIterator[Wait]:
    """Stop where the provider is asked: it does not answer."""
    fake = scene.sellers.harnesses[scene.buyer.provider].fake
    before = len(fake.requests)
    fake.always = Fault(delay_s=3600)

    async def asked() -> int:
        return len(fake.requests) - before

    try:
        yield lambda: eventually(asked, bool)
    finally:
        fake.always = None


@asynccontextmanager
async def capture(scene: Scene) -> AsyncIterator[Wait]:
    """Stop where the provider has taken the payer's money and is about to say so."""
    fake = scene.sellers.harnesses[scene.buyer.provider].fake
    # A token, the order, and then the money.
    fake.faults.extend([Fault(), Fault(), Fault(answer_delay_s=3600)])
    order = fake.orders[scene.buyer.purchase.session_id]

    async def status() -> str:
        return str(order["status"])

    try:
        yield lambda: eventually(status, lambda seen: seen == "COMPLETED")
    finally:
        fake.faults.clear()


@asynccontextmanager
async def failure(scene: Scene) -> AsyncIterator[Wait]:
    """Stop where it is to be noted that the provider could not be asked."""
    fake = scene.sellers.harnesses[scene.buyer.provider].fake
    fake.always = Fault(status=503)
    try:
        async with statement(b"UPDATE provider_events", b"COMMIT")(scene) as caught:
            yield caught
    finally:
        fake.always = None


@asynccontextmanager
async def lock(scene: Scene) -> AsyncIterator[Wait]:
    """Stop where the subscription is to be locked: somebody holds it, and the dead process's session still waits."""
    connection = await asyncpg.connect(scene.sellers.environment["DATABASE_URL"])
    waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    try:
        async with connection.transaction():
            held = "SELECT FROM subscriptions WHERE tenant_id = $1 FOR UPDATE"
            await connection.fetch(held, scene.buyer.owner.tenant_id)
            yield lambda: eventually(lambda: scene.sellers.ask(waiting), bool)
    finally:
        await connection.close()


WEB = (
    Point("before the signature could be checked", silence, provider="paypal"),
    Point("with a good signature, before the insert", statement(b"INSERT INTO provider_events")),
    Point("inserted, before the commit", statement(b"INSERT INTO provider_events", b"COMMIT")),
    Point("committed, which it does not hear", statement(b"INSERT INTO provider_events", b"COMMIT", answered=True)),
    Point("answered with 200, before the worker is rung", queue(b"billing.apply")),
)
WORKER = (
    Point("rung, before the row is read", statement(b"FROM provider_events")),
    Point("the provider is asked", silence, provider="btcpay"),
    Point("the provider has taken the money, which is not heard", capture, provider="paypal"),
    Point("the provider is away, before that is noted", failure, provider="btcpay"),
    Point("the provider has answered, before the row is held", statement(b"SKIP LOCKED"), provider="btcpay"),
    Point("before the subscription is changed", statement(b"UPDATE subscriptions")),
    Point("the money is booked, before the events are numbered", statement(b"journal_entries", b"event_streams")),
    Point("all is written, before the commit", statement(b"INSERT INTO journal_entries", b"COMMIT")),
    Point(
        "committed, which it does not hear",
        statement(b"INSERT INTO journal_entries", b"COMMIT", answered=True),
        is_done=True,
    ),
    Point("committed, before the instances are told", bell(), is_done=True),
    Point("all is done, before the message is acknowledged", queue(ACK), is_done=True),
    Point("the subscription is locked by somebody else", lock, is_outlived=True),
)


@dataclass(slots=True)
class Stage:
    """What stands through the whole play, and the road on which the victims go."""

    sellers: Sellers
    witness: Process
    relays: dict[str, Relay]
    road: dict[str, str]

    async def victim(self, part: str) -> Process:
        """Start a process that reaches the stores through the relays."""
        return await self.sellers.fleet.run(part, port=free_port(), program=(), **self.road)

    async def consumers(self) -> int:
        """Return how many workers take messages."""
        environment = self.sellers.environment
        async with await aio_pika.connect(environment["RABBITMQ_URL"]) as connection:
            channel = await connection.channel()
            declared = await channel.declare_queue(environment["TASKS_QUEUE_NAME"], passive=True)
            return declared.declaration_result.consumer_count or 0

    async def unhandled(self) -> list[Any]:
        """Return the events that are not in effect yet."""
        return await self.sellers.ask("SELECT type, state, last_error FROM provider_events WHERE state <> 'handled'")

    async def row_of(self, provider: str, before: datetime) -> UUID:
        """Return the one event of a provider that came since."""
        said = "SELECT id FROM provider_events WHERE provider = $1 AND received_at >= $2"
        (row,) = await eventually(lambda: self.sellers.ask(said, provider, before), bool)
        found: UUID = row["id"]
        return found

    async def event(self, row_id: UUID) -> asyncpg.Record:
        """Return how an event stands."""
        (row,) = await self.sellers.ask("SELECT state, handled_at FROM provider_events WHERE id = $1", row_id)
        return row


@asynccontextmanager
async def open_stage(stores: Stores, folder: Path) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        sellers = await stack.enter_async_context(open_sellers(stores, folder))
        relays, road = {}, {}
        for store in STORES:
            relays[store], road[store] = await stack.enter_async_context(relay_to(sellers.environment[store]))
        witness = await (await sellers.fleet.run("serve", "--migrate", "--seed")).ready()
        await sellers.fleet.run("scheduler")
        yield Stage(sellers, witness, relays, road)


@pytest.fixture
async def stage(stores: Stores, tmp_path: Path) -> AsyncIterator[Stage]:
    async with open_stage(stores, tmp_path) as opened:
        yield opened


@dataclass(frozen=True, slots=True)
class Death:
    """When a process died, and on which event."""

    row_id: UUID
    at: datetime


async def kill(process: Process) -> datetime:
    process.kill()
    await process.ended()
    return datetime.now(UTC)


async def kill_web(stage: Stage, http: ClientSession, buyer: Buyer, point: Point) -> Death:
    """Deliver to a web process that dies at a point; like every provider, again where there was no 2xx."""
    victim = await (await stage.victim("serve")).ready()
    delivery, before = stage.sellers.sign(buyer, stage.sellers.pay(buyer)[-1]), datetime.now(UTC)
    async with point.hold(Scene(stage.sellers, stage.relays, buyer)) as caught:
        sending = asyncio.create_task(stage.sellers.deliver(http, victim.url, buyer.provider, delivery))
        async with asyncio.timeout(PATIENCE_S):
            await caught()
        if point.name.startswith("answered"):
            assert await sending == 200
        died_at = await kill(victim)
    status = 0
    with suppress(ClientError):
        status = await sending
    if status != 200:
        assert await stage.sellers.deliver(http, stage.witness.url, buyer.provider, delivery) == 200
    return Death(await stage.row_of(buyer.provider, before), died_at)


async def kill_worker(stage: Stage, http: ClientSession, buyer: Buyer, point: Point) -> Death:
    """Deliver, and let the worker die at a point of its work on the event."""
    victim = await stage.victim("worker")
    await eventually(stage.consumers, lambda count: count == 1, seconds=PATIENCE_S)
    # Nobody dies twice over one event, for each death may take its minute.
    await eventually(stage.unhandled, lambda rows: not rows, seconds=RE_DRIVEN_WITHIN_S)
    # It shall not begin before it is known which event it is to die on.
    victim._process.send_signal(signal.SIGSTOP)
    delivery, before = stage.sellers.sign(buyer, stage.sellers.pay(buyer)[-1]), datetime.now(UTC)
    assert await stage.sellers.deliver(http, stage.witness.url, buyer.provider, delivery) == 200
    row_id = await stage.row_of(buyer.provider, before)
    async with point.hold(Scene(stage.sellers, stage.relays, buyer, row_id)) as caught:
        victim._process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(PATIENCE_S):
            await caught()
        if point.is_done:
            await eventually(lambda: stage.event(row_id), lambda event: event["state"] == "handled", seconds=PATIENCE_S)
        death = Death(row_id, await kill(victim))
        if point.is_outlived:
            await stage.sellers.fleet.run("worker")
            await eventually(stage.consumers, lambda count: count == 1, seconds=PATIENCE_S)
            # It has nothing to show for its trying.
            await asyncio.sleep(1)
    return death


# How one point is played, and all of them.
Play = tuple[Callable[[Stage, ClientSession, Buyer, Point], Awaitable[Death]], Sequence[Point]]


async def die(stage: Stage, http: ClientSession, part: str, plays: Play, buyers: Sequence[Buyer]) -> None:
    """Kill a `part` at each point, each with a buyer of its own; everything is applied in time all the same."""
    play, points = plays
    if part != "worker":
        await stage.sellers.fleet.run("worker")
    deaths = []
    for point, buyer in zip(points, buyers, strict=True):
        try:
            deaths.append(await play(stage, http, buyer, point))
        except (TimeoutError, AssertionError) as error:
            raise AssertionError(f"{point.name}: {error!r}") from error
    if part == "worker":
        await stage.sellers.fleet.run("worker")
    await eventually(stage.unhandled, lambda rows: not rows, seconds=RE_DRIVEN_WITHIN_S + 30)
    for point, death in zip(points, deaths, strict=True):
        late_s = ((await stage.event(death.row_id))["handled_at"] - death.at).total_seconds()
        print(f"{late_s:6.1f} s  {part}: {point.name}")
        assert late_s < 0 if point.is_done else 0 < late_s <= RE_DRIVEN_WITHIN_S, point.name


PLAYS = {"web": (kill_web, WEB), "worker": (kill_worker, WORKER)}


@pytest.mark.parametrize("part", PLAYS)
async def test_no_payment_is_lost_or_doubled_wherever_a_process_dies(
    stage: Stage, http: ClientSession, part: str
) -> None:
    _, points = PLAYS[part]
    buyers = [await stage.sellers.buyer(http, stage.witness.url, point.provider) for point in points]
    ears = [await Listener().connect(stage.witness.url, buyer.owner.token, "/billing", "/") for buyer in buyers]
    await die(stage, http, part, PLAYS[part], buyers)
    for point, buyer, ear in zip(points, buyers, ears, strict=True):
        books = await stage.sellers.books(buyer.owner.tenant_id)
        assert {**books, **ONE_PAYMENT} == books, point.name
        for place in ("/billing", "/"):
            await ear.until(partial(ear.of, "payment:received", place))
            assert len(ear.of("payment:received", place)) == 1, point.name
        await ear.close()
