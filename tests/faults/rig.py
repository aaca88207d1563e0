"""The rig: two web instances and a worker that writes, as processes on servers of the test's own, and the crowd."""

import asyncio
import json
import secrets
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from uuid import UUID, uuid4

import aio_pika
import asyncpg
from aiohttp import ClientSession

from tests.faults.crowd import Crowd, Member, Place, crowd
from tests.faults.gateway import Gateway, gateway
from tests.faults.oracle import Logged, Verdict, judge, owed
from tests.faults.posts import Post
from tests.faults.servers import PrivatePostgres, PrivateRedis, private_servers
from tests.support.identity import letter_in, token_in
from tests.support.node import Node
from tests.support.people import Person, address, company_factory, request
from tests.support.processes import fleet
from tests.support.waiting import until

_HERE = Path(__file__).parent
# A job of two moments in place of one that makes a database for each company.
_RECIPE = _HERE.parent / "e2e" / "slow_recipe.yml"
_WEBSOCKET, _UPGRADE, _POLLING = ("websocket",), ("polling", "websocket"), ("polling",)
# What each user of a tenant has open: the client, its connection, the namespace and the transports.
_SOCKETS = (
    ("node", "a", "/", _WEBSOCKET),
    ("node", "a", "/notifications", _WEBSOCKET),
    ("node", "a", "/ws/billing", _WEBSOCKET),
    ("node", "b", "/", _UPGRADE),
    ("node", "b", "/provisioning", _UPGRADE),
    ("node", "c", "/ws", _POLLING),
    ("py", "a", "/", _WEBSOCKET),
    ("py", "b", "/ws", _UPGRADE),
    ("py", "c", "/billing", _WEBSOCKET),
    ("py", "d", "/ws/notifications", _POLLING),
)
# How long clients may take to hear everything once all is well again: what issue 3 promises after a crash.
_SETTLE_S = 15.0
# What a doubled event would come in, after everybody has everything.
_AFTERMATH_S = 1.0


@dataclass(slots=True)
class Rig:
    """A running deployment; `webs` and `worker` may be ended and started, `postgres` and `redis` as well."""

    webs: tuple[Post, Post]
    worker: Post
    postgres: PrivatePostgres
    redis: PrivateRedis
    gateway: Gateway
    members: Sequence[Member]
    crowd: Crowd
    folder: Path

    async def logs(self) -> dict[UUID, list[Logged]]:
        """Return what the log holds, by tenant."""
        rows = await self._ask("SELECT tenant_id, seq, namespace, room FROM events ORDER BY seq")
        logs: dict[UUID, list[Logged]] = defaultdict(list)
        for row in rows:
            logs[row["tenant_id"]].append(Logged(row["seq"], row["namespace"], row["room"]))
        return logs

    async def grow(self, count: int) -> None:
        """Wait until the log holds so many events more."""
        await self.grow_to(await self.written() + count)

    async def grow_to(self, wanted: float) -> None:
        """Wait until the log holds so many events."""
        while await self.written() < wanted:
            await asyncio.sleep(0.1)

    async def written(self) -> int:
        """Return how many events the log holds."""
        return int((await self._ask("SELECT count(*) AS written FROM events"))[0]["written"])

    async def catch_up(self, patience_s: float) -> None:
        """Wait until everybody has heard all that is in the log by now; raises TimeoutError."""
        logs = await self.logs()
        dues = [(record, set(owed(record, logs[record.tenant_id]))) for record in self.crowd.records]
        await until(lambda: all(due <= set(record.heard) for record, due in dues), patience_s)

    async def settle(self, patience_s: float = _SETTLE_S) -> Verdict:
        """Have the writing end, give everybody the time to hear what they are owed, and judge.

        Every server and instance must be running again.
        """
        for web in self.webs:
            await web.ready()
        assert await self.worker.terminate() == 0
        # What is missing when patience ends, the verdict tells.
        with suppress(TimeoutError):
            await self.catch_up(patience_s)
        await asyncio.sleep(_AFTERMATH_S)
        verdict = judge(self.crowd.records, await self.logs())
        (self.folder / "story.txt").write_text(f"{verdict}\n\n{self.crowd.story()}\n")
        return verdict

    async def _ask(self, statement: str) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.postgres.url)
        try:
            return list(await connection.fetch(statement))
        finally:
            await connection.close()

    @property
    def deaths(self) -> list[str]:
        """Of processes that ended though nobody ended them."""
        return [death for post in (*self.webs, self.worker) for death in post.deaths]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How big a rig is: `rate` is that of events each second, of all tenants together; `web` replaces the program."""

    tenants: int = 4
    users: int = 3
    copies: int = 1
    rate: float = 130.0
    web: tuple[str, ...] = ()


@asynccontextmanager
async def rig(node: Node, folder: Path, rabbitmq_url: str, plan: Plan) -> AsyncIterator[Rig]:
    """Start everything below `folder`, let the crowd in, and have the worker write; end it all afterwards."""
    async with AsyncExitStack() as stack:
        postgres, redis = await stack.enter_async_context(private_servers(folder))
        writing = folder / "writing.json"
        environment = _environment(folder, rabbitmq_url, postgres, redis, writing)
        stack.push_async_callback(_delete_queues, environment)
        ships = await stack.enter_async_context(fleet(environment, folder))
        migration = await ships.run("migrate")
        assert await migration.ended() == 0, migration.log

        def post(name: str, *arguments: str, program: tuple[str, ...] = (), says: str = "") -> Post:
            made = Post(name, environment, folder, arguments, program=program, says=says)
            stack.push_async_callback(made.close)
            return made

        serve = () if plan.web else ("serve",)
        webs = (post("one", *serve, program=plan.web), post("two", *serve, program=plan.web))
        worker = post("worker", program=(sys.executable, str(_HERE / "writing_worker.py")), says="writing")
        await asyncio.gather(*(web.start() for web in webs))
        writing.write_text(json.dumps({"rate": 1, "tenants": {}}))
        await worker.start()
        members = await _population(webs[0].url, folder, plan)
        await worker.terminate()
        door = await stack.enter_async_context(gateway([web.port for web in webs]))
        people = await stack.enter_async_context(crowd(node, door.url, folder, _places(members, plan.copies)))
        await until(lambda: all(record.start is not None for record in people.records), 60)
        writing.write_text(json.dumps({"rate": plan.rate / plan.tenants, "tenants": _users_by_tenant(members)}))
        await worker.start()
        yield Rig(webs, worker, postgres, redis, door, members, people, folder)


def _environment(
    folder: Path, rabbitmq_url: str, postgres: PrivatePostgres, redis: PrivateRedis, writing: Path
) -> dict[str, str]:
    unique = secrets.token_hex(4)
    return {
        "ENVIRONMENT": "test",
        "DATABASE_URL": postgres.url,
        "REDIS_URL": redis.url,
        "RABBITMQ_URL": rabbitmq_url,
        "SECRET_KEY": secrets.token_hex(32),
        "DATA_DIR": str(folder / "data"),
        "PROVISIONING_QUEUE_NAME": f"test.faults.{unique}",
        "TASKS_QUEUE_NAME": f"test.faults.tasks.{unique}",
        "PROVISIONING_RECIPE": str(_RECIPE),
        # Nobody's token shall expire during a long run.
        "ACCESS_TOKEN_EXPIRE_MINUTES": "600",
        "RATE_AUTH_PER_IP": "off",
        "RATE_USER_TOTAL": "off",
        # Hundreds of people are registered first.
        "PASSWORD_HASH_MEMORY_KIB": "64",
        "PASSWORD_HASH_ROUNDS": "1",
        "LOG_LEVEL": "INFO",
        "WRITING": str(writing),
    }


async def _delete_queues(environment: Mapping[str, str]) -> None:
    # They bear names of this test's own, and RabbitMQ would keep them for ever.
    tasks, provisioning = environment["TASKS_QUEUE_NAME"], environment["PROVISIONING_QUEUE_NAME"]
    async with await aio_pika.connect(environment["RABBITMQ_URL"]) as connection:
        channel = await connection.channel()
        for queue in (tasks, provisioning, f"{provisioning}.dead"):
            await channel.queue_delete(queue)


async def _population(url: str, folder: Path, plan: Plan) -> list[Member]:
    """Register companies, each with its owner, one admin and users."""
    async with ClientSession() as http:
        register = company_factory(http, url)
        members = []
        for _ in range(plan.tenants):
            owner = await register()
            members.append(Member(owner.tenant_id, owner.user_id, manages=True, token=owner.token))
            roles = ["admin", *["user"] * plan.users][: plan.users - 1]
            members += [await _join(owner, folder, role=role) for role in roles]
    return members


async def _join(owner: Person, folder: Path, *, role: str) -> Member:
    email = f"member-{uuid4().hex[:12]}@example.org"
    invitation = {"email": email, "role": role}
    status, answer = await owner.post(f"tenants/{owner.tenant_id}/users/invite", invitation)
    assert status == 201, answer
    token = token_in(await letter_in(folder / "data" / "outbox", email))
    newcomer = {"full_name": "Nina Newcomer", "password": "correct horse"}
    status, answer = await request(owner.http, "POST", address(owner.url, f"invitations/{token}/accept"), json=newcomer)
    assert status == 200, answer
    data = answer["data"]
    return Member(owner.tenant_id, UUID(data["user"]["id"]), manages=role == "admin", token=data["access_token"])


def _places(members: Sequence[Member], copies: int) -> list[Place]:
    processes = cycle(f"node{number}" for number in range(4))
    places = []
    for number, member in enumerate(members):
        process = next(processes)
        for copy in range(copies):
            for client, connection, namespace, transports in _SOCKETS:
                owner = process if client == "node" else client
                name = f"{owner}.{number}-{copy}{connection}"
                places.append(Place(member=member, namespace=namespace, transports=transports, connection=name))
    return places


def _users_by_tenant(members: Sequence[Member]) -> dict[str, list[str]]:
    users: dict[str, list[str]] = defaultdict(list)
    for member in members:
        users[str(member.tenant_id)].append(str(member.user_id))
    return users
