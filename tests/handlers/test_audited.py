"""Whatever changes something is audited: every route, socket event and task, against one reviewed table.

The routes, events and tasks are the application's own, so that a new one fails here until `audited.yml` says what is
written of it, or why nothing is. Each one that writes is played, and what it wrote is compared.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
import yaml
from aiohttp import ClientSession
from sqlalchemy import ColumnElement, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from core.phones import mask_phone
from core.redaction import redacted
from handlers import messengers
from handlers.rest import Endpoint
from models.audit import AuditEntry
from models.billing import Subscription
from models.tenants import Tenant
from server.web import endpoints
from tests.handlers.deeds import business, people, tenants
from tests.handlers.deeds.stage import SCOPE, Deed, Play, Stage
from tests.handlers.frame import open_door
from tests.handlers.provisioned import with_site
from tests.handlers.test_sandbox import check_out
from tests.support.billing import eventually
from tests.support.people import request
from tests.support.phones import new_phone, phone_world
from tests.support.running import Orchestrator

# What is written here is written alike in the cluster.
pytestmark = pytest.mark.embedded

TABLE: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "audited.yml").read_text(encoding="utf-8"))
ROUTES: dict[str, dict[str, str] | str] = TABLE["routes"]
ELSEWHERE: dict[str, str] = TABLE["elsewhere"]
ROOT = Path(__file__).resolve().parents[2]
WRITING = {route: row for route, row in ROUTES.items() if isinstance(row, dict)}
DEEDS: dict[str, Play] = {**people.DEEDS, **tenants.DEEDS, **business.DEEDS}
SERVED = {f"{each.method} {each.path}": each for each in endpoints(development=True) if each.alias_of is None}
AGENT = "A test's own client/1.0"
# What opens something and bears no name by which it is known to.
CODES = ("code", "dev_code", "recovery_codes", "provisioning_uri", "sso_url")


@dataclass(frozen=True, slots=True)
class Done:
    """A deed that was done: what was sent, what was answered, and what the audit says of it."""

    sent: object
    answer: Any
    actor: UUID | None
    tenant: UUID | None
    request_id: str
    entries: list[AuditEntry]


@pytest.fixture
async def stage(
    http: ClientSession, orchestrator: Orchestrator, engine: AsyncEngine, tmp_path: Path
) -> AsyncIterator[Stage]:
    """The shared server, and beside it one that has bots."""
    async with phone_world(engine, orchestrator.services, tmp_path) as world:
        services: Any = _OnlyPhones(world.identity.phones)
        async with open_door(engine, routers=[messengers.router], services=services) as door:
            yield Stage(http, orchestrator, world=world, bots_url=str(door.make_url("")).rstrip("/"))


@dataclass(frozen=True, slots=True)
class _OnlyPhones:
    phones: object


async def play(stage: Stage, route: str) -> Done:
    """Do what a route is for, once, and look up by the request's own id what was written of it."""
    deed = await DEEDS[route](stage)
    request_id = f"deed-{uuid4().hex}"
    headers = {"X-Request-ID": request_id, "User-Agent": AGENT, **deed.headers}
    if deed.by is not None:
        headers["Authorization"] = f"Bearer {deed.by.token}"
    url = (deed.url or stage.orchestrator.url) + _path(SERVED[route], deed)
    options: dict[str, Any] = {"json": deed.json} if deed.json is not None else {}
    if deed.data is not None:
        options["data"] = deed.data
    status, answer = await request(stage.http, SERVED[route].method, url, headers=headers, **options)
    assert status < 300, f"{route}: {answer}"
    actor, tenant = _named(deed, answer)
    async with stage.orchestrator.units(SCOPE) as uow:
        found = await uow.session.scalars(select(AuditEntry).where(AuditEntry.request_id == request_id))
        return Done(deed.json, answer, actor, tenant, request_id, list(found))


def _path(endpoint: Endpoint, deed: Deed) -> str:
    path = endpoint.path
    for name, value in deed.path.items():
        path = path.replace(f"{{{name}}}", str(value))
    return f"{path}?{deed.query}" if deed.query else path


def _named(deed: Deed, answer: Any) -> tuple[UUID | None, UUID | None]:
    """Return whom and which tenant the entries shall name: as the deed says, else who was signed in, else who sent it.

    A tenant that was just founded is the one that the answer shows.
    """
    data = answer.get("data", answer) if isinstance(answer, dict) else {}
    token = data.get("access_token") or data.get("token") if isinstance(data, dict) else None
    claims = jwt.decode(token, options={"verify_signature": False}) if token and token.count(".") == 2 else {}
    actor = claims.get("sub") or (deed.by.user_id if deed.by else None)
    tenant = claims.get("tenant_id") or (deed.by.tenant_id if deed.by else None)
    if isinstance(data, dict) and data.get("slug") and "role" in data:
        tenant = data["id"]
    return deed.actor or _uuid(actor), deed.tenant or _uuid(tenant)


def _uuid(value: object) -> UUID | None:
    return None if value is None else UUID(str(value))


def faults(done: Done, expected: dict[str, str]) -> Iterator[str]:
    """Say what is missing, what is too much, and what an entry tells wrongly."""
    written = {entry.action for entry in done.entries}
    if written != set(expected):
        yield f"wrote {sorted(written)} and not {sorted(expected)}"
    for entry in done.entries:
        actor, tenant = expected.get(entry.action, "- -").split()
        told = (entry.source, entry.actor_id, entry.tenant_id, entry.ip, entry.user_agent)
        whose = (done.actor if actor == "they" else None, done.tenant if tenant == "theirs" else None)
        if told != ("rest", *whose, "127.0.0.1", AGENT):
            yield f"{entry.action} tells {told} and not {whose}"


def test_every_changing_route_has_a_row_and_every_writing_row_a_deed() -> None:
    changing = {route for route, endpoint in SERVED.items() if endpoint.method != "GET"}
    assert changing <= set(ROUTES) <= set(SERVED)
    assert set(WRITING) - set(ELSEWHERE) == set(DEEDS)


def test_what_is_played_elsewhere_is_looked_at_there() -> None:
    for name, path in ELSEWHERE.items():
        text = (ROOT / path).read_text(encoding="utf-8")
        for action in WRITING.get(name) or TABLE["tasks"][name]:
            assert f'"{action}"' in text, f"{path} says nothing of {action}"


@pytest.mark.parametrize("route", sorted(DEEDS))
async def test_a_route_is_audited_as_the_table_says_and_tells_no_secret(route: str, stage: Stage) -> None:
    done = await play(stage, route)

    assert not (wrong := list(faults(done, WRITING[route]))), "\n".join(wrong)
    told = json.dumps([[entry.subject_id, entry.details] for entry in done.entries], default=str)
    for secret in (*secrets_in(done.sent), *secrets_in(done.answer)):
        assert secret not in told, f"{secret} stands in {told}"


def secrets_in(body: object) -> Iterator[str]:
    """Find whatever in a request or an answer bears the name of a secret, or is a code or what one is made of."""
    if isinstance(body, list):
        for item in body:
            yield from secrets_in(item)
    if isinstance(body, dict):
        for key, value in body.items():
            if key in CODES or redacted({key: None}) != {key: None} or (key == "key" and "prefix" in body):
                yield from _texts(value)
            else:
                yield from secrets_in(value)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str) and value not in ("bearer", ""):
        yield value
    for item in value if isinstance(value, list) else value.values() if isinstance(value, dict) else ():
        yield from _texts(item)


async def test_every_event_that_clients_may_send_has_a_row(orchestrator: Orchestrator) -> None:
    for namespace in orchestrator.house.sockets.sio.namespace_handlers.values():
        assert set(TABLE["events"]) == namespace.client_events


async def test_every_task_has_a_row_and_those_that_write_a_test(orchestrator: Orchestrator) -> None:
    assert set(TABLE["tasks"]) == {str(name) for name in orchestrator.house.broker.get_all_tasks()}
    writing = {task for task, row in TABLE["tasks"].items() if isinstance(row, dict)}
    assert writing - set(ELSEWHERE) == set(TASKS)


async def run_job(stage: Stage) -> ColumnElement[bool]:
    """A company signs up; its site is made."""
    return AuditEntry.tenant_id == (await with_site(stage.company)).tenant_id


async def pay(stage: Stage) -> ColumnElement[bool]:
    """Somebody pays; the provider's event is applied."""
    owner = await stage.company()
    page = await check_out(owner)
    async with stage.http.post(page, data={"action": "pay"}, allow_redirects=False) as response:
        assert response.status == 303
    return AuditEntry.tenant_id == owner.tenant_id


async def end_trial(stage: Stage) -> ColumnElement[bool]:
    """A trial is over."""
    owner = await stage.company()
    mine = Subscription.tenant_id == owner.tenant_id
    async with stage.orchestrator.units(SCOPE) as uow:
        over = uow.now - timedelta(days=60)
        await uow.session.execute(update(Subscription).where(mine).values(trial_ends_at=over, current_period_end=over))
    await stage.orchestrator.services.billing.sweep()
    return AuditEntry.tenant_id == owner.tenant_id


async def end_tenant(stage: Stage) -> ColumnElement[bool]:
    """The time in which a tenant could be restored is over."""
    owner = await with_site(stage.company)
    mine = Tenant.id == owner.tenant_id
    async with stage.orchestrator.units(SCOPE) as uow:
        await uow.session.execute(update(Tenant).where(mine).values(deletion_due_at=uow.now - timedelta(seconds=1)))
    async with asyncio.timeout(20):
        while await stage.orchestrator.services.tenants.deletion.sweep() or await _exists(stage, owner.tenant_id):
            await asyncio.sleep(0.05)
    return AuditEntry.subject_id == str(owner.tenant_id)


async def _exists(stage: Stage, tenant_id: UUID) -> bool:
    async with stage.orchestrator.units(SCOPE) as uow:
        return await uow.session.get(Tenant, tenant_id) is not None


async def send_to_a_closed_chat(stage: Stage) -> ColumnElement[bool]:
    """A code is sent to a chat whose owner has stopped the bot meanwhile."""
    world, phone = stage.world, new_phone()
    user = world.telegram.person(phone)
    await world.update("telegram", world.telegram.write(user, "/start"))
    await world.update("telegram", world.telegram.share_own_contact(user))
    world.telegram.block(user)
    await world.request(phone)
    await world.deliver()
    return AuditEntry.subject_id == mask_phone(phone)


TASKS: dict[str, Callable[[Stage], Awaitable[ColumnElement[bool]]]] = {
    "provisioning.run": run_job,
    "billing.apply": pay,
    "billing.sweep": end_trial,
    "tenants.sweep": end_tenant,
    "phones.send": send_to_a_closed_chat,
}


@pytest.mark.parametrize("task", sorted(TASKS))
async def test_a_task_is_audited_as_the_table_says(task: str, stage: Stage) -> None:
    row: dict[str, str] = TABLE["tasks"][task]
    about = await TASKS[task](stage)

    async def written() -> dict[str, set[str]]:
        async with stage.orchestrator.units(SCOPE) as uow:
            entries = await uow.session.scalars(select(AuditEntry).where(about, AuditEntry.action.in_(row)))
            found: dict[str, set[str]] = {}
            for entry in entries:
                who = "system" if entry.source == "system" and entry.actor_id is None else "somebody"
                found.setdefault(entry.action, set()).add(f"{who} {'none' if entry.tenant_id is None else 'theirs'}")
            return found

    expected = {action: {named} for action, named in row.items()}
    assert await eventually(written, lambda found: set(found) == set(expected)) == expected


REPLACING = (
    "PATCH /api/v1/tenants/{tenant_id}",
    "POST /api/auth/set-profile",
    "POST /api/v1/billing/plans/{plan_id}/prices",
    "PUT /api/v1/super-admin/tariffs/{tariff_id}",
    "PATCH /api/v1/super-admin/plans/{plan_id}",
    "PUT /api/v1/platform/content/{key}",
)


@pytest.mark.parametrize("route", REPLACING)
async def test_what_is_replaced_is_told_with_what_was_there(route: str, stage: Stage) -> None:
    (entry,) = (await play(stage, route)).entries

    assert {"before", "after"} <= set(entry.details)
    assert set(entry.details["before"] or entry.details["after"]) <= set(entry.details["after"])
