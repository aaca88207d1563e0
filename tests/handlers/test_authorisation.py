"""The authorisation matrix: every route and every socket event by everybody, against one reviewed table.

The routes are the application's own, so that a new one fails here until `authorisation.yml` says who may use it.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pyotp
import pytest
import yaml
from aiohttp import ClientSession
from sqlalchemy import select

from handlers.rest import Endpoint
from models.billing import CheckoutSession
from models.credits import Credit, CreditReason
from models.entitlements import Limit
from models.inbox import InboxState, ProviderEvent
from models.notifications import Notification, NotificationType
from models.overrides import EntitlementOverride
from models.provisioning import JobType, ProvisioningJob
from models.reconciliations import Reconciliation, ReconciliationStage, ReconciliationState
from namespaces.names import ALL
from server.web import endpoints
from services.permissions import KeyScope
from services.unit_of_work import PlatformScope, TenantScope
from tests.handlers.buying import paid
from tests.handlers.test_super_admin_plans import forget
from tests.namespaces.wire import Wire
from tests.support.keys import make_key
from tests.support.listeners import Listener
from tests.support.people import Person, RegisterCompany, address, company_factory, request
from tests.support.running import Orchestrator

# What is decided here is decided alike in the cluster.
pytestmark = pytest.mark.embedded

TABLE: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "authorisation.yml").read_text(encoding="utf-8"))
CALLERS: list[str] = TABLE["callers"]
# Strangers first: whatever somebody of the tenant may take away is there for them to reach for.
ASKING = ("anonymous", "stranger", "superuser", "api_key", "member", "admin", "owner")
PASSWORD = "correct horse"
EVERY = endpoints(development=True)


def named(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


CANONICAL = {named(endpoint): endpoint for endpoint in EVERY if endpoint.alias_of is None}


@dataclass(slots=True)
class Cast:
    """Who asks, and what they ask about: a tenant, what is its or its owner's, and things that nobody has."""

    http: ClientSession
    url: str
    people: Mapping[str, Person]
    things: Mapping[str, str]

    async def ask(self, route: str, row: Mapping[str, Any], caller: str) -> int:
        """Send one request and return its status."""
        endpoint = CANONICAL[route]
        names = {**dict.fromkeys(endpoint.path_params, "unknown"), **row.get("path", {})}
        path = endpoint.path
        for name, value in names.items():
            known = self.filled(f"${name}" if value == "unknown" else value)
            path = path.replace(f"{{{name}}}", str(known))
        if "query" in row:
            path = f"{path}?{row['query']}"
        options: dict[str, Any] = {"allow_redirects": False}
        if endpoint.body is not None:
            options["json"] = {key: self.filled(value) for key, value in row.get("body", {}).items()}
        if caller != "anonymous":
            options["headers"] = {"Authorization": f"Bearer {await self._token(caller, fresh=row.get('fresh', False))}"}
        async with self.http.request(endpoint.method, address(self.url, path), **options) as response:
            # Not every answer is text.
            await response.read()
            return response.status

    def filled(self, value: object) -> object:
        """Return what a value of the table stands for: after a `$`, a thing that is known or an id that nobody has."""
        return self.things.get(value[1:], str(uuid4())) if isinstance(value, str) and value[:1] == "$" else value

    async def _token(self, caller: str, *, fresh: bool) -> str:
        person = self.people[caller]
        # A key is not signed in, and so cannot be signed in anew.
        return await sign_in(self.http, self.url, person.email) if fresh and caller != "api_key" else person.token


async def sign_in(http: ClientSession, url: str, email: str) -> str:
    body = {"email": email, "password": PASSWORD}
    status, answer = await request(http, "POST", address(url, "auth/login"), json=body)
    assert status == 200, answer
    return str(answer["data"]["access_token"])


async def joined(company: RegisterCompany, host: Person, role: str) -> Person:
    guest = await company()
    await host.post(f"tenants/{host.tenant_id}/users/invite", {"email": guest.email, "role": role})
    _, answer = await guest.post("auth/switch-tenant", {"tenant_id": str(host.tenant_id)})
    guest.token = answer["data"]["access_token"]
    return guest


@pytest.fixture(scope="module")
async def cast(orchestrator: Orchestrator) -> AsyncIterator[Cast]:
    """Registered once, for every one of them costs the hashing of a password."""
    async with ClientSession() as http:
        yield await _cast(http, orchestrator)
    # The tariffs of the public pages are everybody's.
    await forget(orchestrator, "pricing")


async def _cast(http: ClientSession, orchestrator: Orchestrator) -> Cast:
    company = company_factory(http, orchestrator.url)
    owner, stranger = await company(), await company()
    people = {"owner": owner, "stranger": stranger}
    await _make_room(orchestrator, owner.tenant_id)
    for role in ("member", "admin"):
        people[role] = await joined(company, owner, role)
    email = f"root-{uuid4().hex}@example.org"
    async with orchestrator.units(PlatformScope("a test needs somebody of the platform")) as uow:
        await orchestrator.services.auth.create_superuser(uow, email=email, password=PASSWORD, full_name="Root")
    token = await sign_in(http, orchestrator.url, email)
    people["superuser"] = Person(http, orchestrator.url, email, PASSWORD, token, "", uuid4(), uuid4(), {})
    people["api_key"] = (await make_key(owner, *KeyScope)).machine
    things = await _things(company, orchestrator, owner)
    things |= await _second_tenant(company, orchestrator, people)
    things |= await _platform_things(company, orchestrator, people["superuser"], owner)
    return Cast(http=http, url=orchestrator.url, people=people, things=things)


async def _things(company: RegisterCompany, orchestrator: Orchestrator, owner: Person) -> dict[str, str]:
    """Make one of each thing that is asked about by its id."""
    guest = await joined(company, owner, "member")
    await sign_in(owner.http, owner.url, owner.email)
    _, sessions = await owner.get("auth/sessions")
    _, jobs = await owner.get("provisioning/jobs")
    invited = f"invited-{uuid4().hex}@example.org"
    _, invitation = await owner.post(f"tenants/{owner.tenant_id}/users/invite", {"email": invited})
    _, order = await owner.post("/api/tenant/orders", {"amount": "49.90", "currency": "USD"})
    notification_id, waiting_job_id = uuid4(), uuid4()
    async with orchestrator.units(TenantScope(owner.tenant_id)) as uow:
        kind = NotificationType.INFO
        told = {"user_id": owner.user_id, "tenant_id": owner.tenant_id, "type": kind, "title": "A", "message": "test"}
        uow.session.add(Notification(id=notification_id, **told))
        # What waits for its time is not tried again, however often one asks.
        waiting = {"job_type": JobType.BACKUP_SITE, "next_run_at": uow.now + timedelta(days=1), "rung_at": uow.now}
        uow.session.add(ProvisioningJob(id=waiting_job_id, tenant_id=owner.tenant_id, **waiting))
    await paid(owner)
    _, documents = await owner.get("billing/documents")
    return {
        "tenant_id": str(owner.tenant_id),
        "guest_id": str(guest.user_id),
        "session_id": next(item["id"] for item in sessions["data"] if not item["current"]),
        "job_id": jobs["data"][0]["id"],
        "waiting_job_id": str(waiting_job_id),
        "invitation_id": invitation["data"]["invitation_id"],
        "key_id": (await make_key(owner)).id,
        "order_id": order["id"],
        "notification_id": str(notification_id),
        "document_id": documents["data"][0]["id"],
        "owner_token": owner.token,
        "new_email": f"new-{uuid4().hex}@example.org",
    }


async def _make_room(orchestrator: Orchestrator, tenant_id: UUID) -> None:
    """Let many people in: who may invite is not to depend on how many are there already."""
    async with orchestrator.units(PlatformScope("a test looks at who may, not at how many")) as uow:
        uow.session.add(EntitlementOverride(tenant_id=tenant_id, name=Limit.USERS, value=9, reason="a test"))


async def _second_tenant(
    company: RegisterCompany, orchestrator: Orchestrator, people: Mapping[str, Person]
) -> dict[str, str]:
    """Make a tenant with the same owner, admin and member that can be handed on without anybody losing the first."""
    owner, heir = people["owner"], await company()
    _, answer = await owner.post("tenants", {"name": f"Second {uuid4().hex}"})
    second_id = answer["data"]["id"]
    await _make_room(orchestrator, UUID(second_id))
    for person, role in ((people["admin"], "admin"), (people["member"], "member"), (heir, "member")):
        status, answer = await owner.post(f"tenants/{second_id}/users/invite", {"email": person.email, "role": role})
        assert status == 201, answer
    return {"second_tenant_id": second_id, "heir_id": str(heir.user_id)}


async def _platform_things(
    company: RegisterCompany, orchestrator: Orchestrator, superuser: Person, owner: Person
) -> dict[str, str]:
    """Make one of each thing that the platform's people ask about by its id."""
    bystander = await company()
    _, enrolled = await bystander.post("auth/2fa/enrol")
    app = pyotp.TOTP(enrolled["data"]["secret"])
    await bystander.post("auth/2fa/confirm", {"code": app.at(orchestrator.clock.now())})
    slug = f"plan-{uuid4().hex[:12]}"
    _, plan = await superuser.post(
        "super-admin/plans", {"slug": slug, "name": "A test", "price_monthly": 1, "price_yearly": 10}
    )
    scope = PlatformScope("a test needs what the platform keeps")
    async with orchestrator.units(scope) as uow:
        bought = await uow.session.scalar(
            select(CheckoutSession.id).where(CheckoutSession.tenant_id == owner.tenant_id)
        )
        money = {"provider": "sandbox", "amount": Decimal(1), "currency": "USD", "occurred_at": uow.now}
        kept: dict[str, Any] = {
            "credit_id": Credit(
                id=uuid4(),
                tenant_id=owner.tenant_id,
                checkout_id=bought,
                payment_key=slug,
                reason=CreditReason.OVERPAID,
                **money,
            ),
            # One that is in effect is not tried again.
            "event_id": ProviderEvent(
                id=uuid4(),
                provider="sandbox",
                event_id=slug,
                type="a.test",
                payload={"id": "evt_1"},
                occurred_at=uow.now,
                state=InboxState.HANDLED,
                next_attempt_at=uow.now,
            ),
            "reconciliation_id": Reconciliation(
                id=uuid4(),
                provider="sandbox",
                state=ReconciliationState.DONE,
                stage=ReconciliationStage.SUBSCRIPTIONS,
                started_at=uow.now,
                next_attempt_at=uow.now,
            ),
        }
        uow.session.add_all(kept.values())
    return {
        "bystander_id": str(bystander.user_id),
        "bystanders_tenant_id": str(bystander.tenant_id),
        "plan_id": plan["data"]["id"],
        **{name: str(row.id) for name, row in kept.items()},
    }


def cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what each caller is to get; a single answer is everybody's."""
    answers = row["answers"]
    return dict(zip(CALLERS, answers if isinstance(answers, list) else [answers] * len(CALLERS), strict=True))


def test_every_route_has_a_row_and_no_row_is_left_over() -> None:
    assert set(TABLE["routes"]) == set(CANONICAL)


def test_an_alias_is_the_route_it_stands_for() -> None:
    for alias in EVERY:
        if alias.alias_of is not None:
            original = CANONICAL[f"{alias.method} {alias.alias_of}"]
            assert (alias.handler, alias.access, alias.rule) == (original.handler, original.access, original.rule)


async def test_every_event_has_a_row_and_no_row_is_left_over(orchestrator: Orchestrator) -> None:
    served = orchestrator.house.sockets.sio.namespace_handlers
    assert set(TABLE["namespaces"]) == set(served) == set(ALL)
    for namespace in served.values():
        assert set(TABLE["events"]) == namespace.client_events


async def test_every_namespace_lets_in_whom_the_table_says(cast: Cast) -> None:
    async def entered(namespace: str, caller: str) -> str:
        token = "" if caller == "anonymous" else cast.people[caller].token
        wire = await Wire.enter(cast.http, cast.url, token, namespace)
        answer = "ok" if wire.answer is not None else str(wire.refusal["data"]["code"])
        await wire.drop()
        return answer

    wrong = []
    for namespace, answers in TABLE["namespaces"].items():
        expected = cells({"answers": answers})
        found = {caller: await entered(namespace, caller) for caller in CALLERS}
        if found != expected:
            wrong.append(f"{namespace}: {found} and not {expected}")
    assert not wrong, "\n".join(wrong)


@pytest.fixture
async def listeners(cast: Cast) -> AsyncIterator[dict[str, Listener]]:
    """Everybody who gets in, on the root namespace."""
    inside = {}
    for caller, answer in cells({"answers": TABLE["namespaces"]["/"]}).items():
        if answer == "ok":
            inside[caller] = await Listener().connect(cast.url, cast.people[caller].token, "/")
    yield inside
    for listener in inside.values():
        await listener.close()


async def test_every_event_answers_everybody_as_the_table_says(cast: Cast, listeners: dict[str, Listener]) -> None:
    wrong = []
    for event, row in TABLE["events"].items():
        expected = {caller: answer for caller, answer in cells(row).items() if caller in listeners}
        found = {}
        for caller, listener in listeners.items():
            payload = {key: cast.filled(value) for key, value in row.get("payload", {}).items()}
            answer = await listener.client.call(event, payload or None, timeout=10)
            found[caller] = "ok" if answer["ok"] else answer["error"]["code"]
            if "tells" in row and answer["ok"]:
                found[caller] = "ok, all" if row["tells"] in answer else "ok"
        if found != expected:
            wrong.append(f"{event}: {found} and not {expected}")
    assert not wrong, "\n".join(wrong)


# The last one, for in its course people leave the tenant and sign out.
async def test_every_route_answers_everybody_as_the_table_says(cast: Cast) -> None:
    wrong = []
    for route, row in TABLE["routes"].items():
        expected = cells(row)
        found = {caller: await cast.ask(route, row, caller) for caller in ASKING}
        if found != expected:
            wrong.append(f"{route}: {[found[caller] for caller in CALLERS]} and not {row['answers']}")
    assert not wrong, "\n".join(wrong)
