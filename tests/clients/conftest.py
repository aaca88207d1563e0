"""What the clients of both languages are measured against: people with tenants, and the log as the oracle."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from uuid import UUID, uuid4

import jwt
import pyotp
import pytest
from aiohttp import ClientSession
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from models.events import LoggedEvent
from realtime.log import EventLog
from realtime.rooms import member_room, tenant_room
from server.keys import secret_key
from server.settings import Settings
from services.events import NotificationCreated, PaymentReceived
from services.unit_of_work import TenantScope
from tests.clients.node_process import Node, build
from tests.support.listeners import Listener
from tests.support.people import Person, address, company_factory, request
from tests.support.relay import Relay, relay_to
from tests.support.running import Orchestrator, Running, start
from tests.support.spine import everything
from tests.support.stores import free_port


class Log:
    """The log of one person's tenant: what is owed to that person, and new facts to be told."""

    def __init__(self, orchestrator: Orchestrator, engine: AsyncEngine, person: Person) -> None:
        self._orchestrator = orchestrator
        self._engine = engine
        self.person = person

    async def head(self) -> tuple[str, int]:
        """Return the epoch as clients know it, and the newest number."""
        states = await EventLog(self._engine).states([self.person.tenant_id])
        state = states[self.person.tenant_id]
        return state.epoch, state.head

    async def owed(self, after_seq: int) -> list[tuple[int, str]]:
        """Return (seq, name) of every event after a number that this person may hear at the root."""
        rooms = [tenant_room(self.person.tenant_id), member_room(self.person.tenant_id, self.person.user_id)]
        chosen = (
            select(LoggedEvent.seq, LoggedEvent.name)
            .where(
                LoggedEvent.tenant_id == self.person.tenant_id,
                LoggedEvent.seq > after_seq,
                LoggedEvent.room.in_(rooms),
            )
            .order_by(LoggedEvent.seq)
        )
        async with everything(self._engine) as connection:
            return [(row.seq, row.name) for row in await connection.execute(chosen)]

    async def write(self, count: int, *, batch: int = 500) -> int:
        """Commit facts and return the last number.

        The third of each four is a notification, in turn of somebody else, which is not heard, and of this person,
        which some clients are told under two names.
        """
        tenant_id = self.person.tenant_id
        for first in range(0, count, batch):
            async with self._orchestrator.units(TenantScope(tenant_id)) as uow:
                for number in range(first, min(first + batch, count)):
                    told = uuid4() if number % 8 == 2 else self.person.user_id
                    uow.record(self._notification(told) if number % 4 == 2 else self._payment())
        return (await self.head())[1]

    def _payment(self) -> PaymentReceived:
        return PaymentReceived(
            tenant_id=self.person.tenant_id,
            payment_id=uuid4(),
            amount=Decimal("49.90"),
            currency="USD",
            created_at=datetime(2025, 11, 20, 12, 0, tzinfo=UTC),
        )

    def _notification(self, user_id: UUID) -> NotificationCreated:
        return NotificationCreated(
            tenant_id=self.person.tenant_id,
            user_id=user_id,
            id=uuid4(),
            type="info",
            title="Paid",
            message="Оплачено",
            data={},
            link=None,
            created_at=datetime(2025, 11, 20, 12, 0, tzinfo=UTC),
        )


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[ClientSession]:
    """An HTTP client for the people below."""
    async with ClientSession() as session:
        yield session


@pytest.fixture(scope="session")
async def owner(orchestrator: Orchestrator, browser: ClientSession) -> Person:
    """The owner of a company whose first provisioning job is over, so that only tests write to its log."""
    person = await company_factory(browser, orchestrator.url)()
    listener = await Listener().connect(orchestrator.url, person.token)
    _, tenant = await person.get("tenants/current")
    if tenant["data"]["status"] == "provisioning":
        await listener.until(lambda: listener.of("notification:new"), seconds=90)
    await listener.close()
    return person


@pytest.fixture(scope="session")
def log(orchestrator: Orchestrator, engine: AsyncEngine, owner: Person) -> Log:
    """The log of the owner's tenant."""
    return Log(orchestrator, engine, owner)


@dataclass(frozen=True, slots=True)
class Guarded:
    """Somebody with a second factor; each recovery code is good once, also in the place of the app's."""

    person: Person
    recovery_codes: tuple[str, ...]


@pytest.fixture
async def guarded(orchestrator: Orchestrator, browser: ClientSession) -> Guarded:
    """Somebody who has just switched a second factor on."""
    person = await company_factory(browser, orchestrator.url)()
    secret = (await person.post("auth/2fa/enrol"))[1]["data"]["secret"]
    code = pyotp.TOTP(secret).at(orchestrator.clock.now())
    _, answer = await person.post("auth/2fa/confirm", {"code": code})
    return Guarded(person, tuple(answer["data"]["recovery_codes"]))


@dataclass(frozen=True, slots=True)
class Wire:
    """A relay before the server, and the address at which it is reached."""

    relay: Relay
    url: str
    others: list[Relay] = field(default_factory=list)

    async def drop(self) -> None:
        """Break every connection, as a network does, and take new ones at once."""
        await self.relay.cut()
        await self.relay.restore()

    async def move(self, url: str) -> None:
        """Break every connection, and lead new ones to another instance."""
        await self.relay.cut()
        other = Relay("127.0.0.1", int(url.rpartition(":")[2]))
        other.port = self.relay.port
        self.others.append(other)
        await other.restore()


@pytest.fixture
async def wire(orchestrator: Orchestrator) -> AsyncIterator[Wire]:
    """A way to the shared server that a test can break."""
    async with relay_to(orchestrator.url) as (relay, url):
        wire = Wire(relay, url)
        yield wire
        for other in wire.others:
            await other.cut()


@pytest.fixture(scope="module")
async def strict(settings: Settings, engine: AsyncEngine, orchestrator: Orchestrator) -> AsyncIterator[Orchestrator]:
    """Another instance on the same stores, which lets one socket of a tenant in per second."""
    own = settings.model_copy(update={"port": free_port(), "socket_connects_per_s": 1})
    running = Running(partial(start, settings=own, engine=engine))
    yield await running.started()
    await running.stop()


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    """The built TypeScript client."""
    return build(tmp_path_factory.mktemp("typescript"))


def short_lived(orchestrator: Orchestrator, token: str, seconds: float) -> str:
    """Return a token like the given one that expires soon, or has expired."""
    claims = jwt.decode(token, options={"verify_signature": False})
    claims["exp"] = datetime.now(UTC) + timedelta(seconds=seconds)
    return jwt.encode(claims, secret_key(orchestrator.settings), algorithm="HS256")


def expiry_of(token: str) -> datetime:
    """Return when a token expires."""
    claims = jwt.decode(token, options={"verify_signature": False})
    return datetime.fromtimestamp(claims["exp"], UTC)


@dataclass(frozen=True, slots=True)
class Session:
    """The tokens of one sign-in."""

    access: str
    refresh: str


async def sign_in(person: Person) -> Session:
    """Begin one more session of a person."""
    body = {"email": person.email, "password": person.password}
    status, answer = await request(person.http, "POST", address(person.url, "auth/login"), json=body)
    assert status == 200, answer
    return Session(access=answer["data"]["access_token"], refresh=answer["data"]["refresh_token"])


async def sign_out(person: Person, session: Session) -> None:
    """End a session over REST."""
    headers = {"Authorization": f"Bearer {session.access}"}
    status, _ = await request(person.http, "POST", address(person.url, "auth/logout"), headers=headers)
    assert status == 200
