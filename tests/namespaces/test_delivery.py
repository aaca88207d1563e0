"""The delivery rule of contract.md 7.3: where each event is heard, by whom, how often, and in which order."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from namespaces.names import ALL
from services.events import (
    CATALOGUE,
    AccountChanged,
    DomainEvent,
    InvoiceIssued,
    NotificationCreated,
    OrderPaid,
    OrderUpdated,
    PaymentFailed,
    PaymentReceived,
    StatusCompleted,
    StatusFailed,
    StatusUpdate,
    SubscriptionExpiring,
    SubscriptionUpdated,
)
from services.unit_of_work import TenantScope
from tests.support.listeners import Listener
from tests.support.people import Person
from tests.support.running import Orchestrator

NOON = datetime(2025, 11, 20, 12, 0, tzinfo=UTC)
ID = UUID("11111111-2222-3333-4444-555555555555")

# Each event with the places it is heard in and the payload besides tenant_id, event_id and seq, field by field.
ROOTS = ("/", "/ws")
EXPECTED: dict[str, tuple[str, dict[str, Any]]] = {
    "status:update": (
        "/provisioning",
        {
            "job_id": str(ID),
            "job_type": "create_site",
            "status": "running",
            "state": "running",
            "progress": 40,
            "message": "Installing apps",
        },
    ),
    "status:completed": (
        "/provisioning",
        {
            "job_id": str(ID),
            "job_type": "create_site",
            "status": "completed",
            "state": "succeeded",
            "progress": 100,
            "erpnext_url": "https://acme.example.org",
            "result": {"apps": ["erpnext"]},
        },
    ),
    "status:failed": (
        "/provisioning",
        {"job_id": str(ID), "job_type": "create_site", "status": "failed", "state": "failed", "error": "Out of disk"},
    ),
    "subscription:updated": (
        "/billing",
        {
            "subscription_id": str(ID),
            "status": "active",
            "plan": "starter",
            "updated_at": "2025-11-20T12:00:00Z",
            "subscription": {"amount": 49.99, "plan": {"slug": "starter"}},
            "entitlements": {"plan": "starter", "limits": {"users": 5}},
        },
    ),
    "subscription:expiring": (
        "/billing",
        {"subscription_id": str(ID), "days_left": 3, "ends_at": "2025-11-20T12:00:00Z"},
    ),
    "payment:received": (
        "/billing",
        {
            "payment_id": str(ID),
            "amount": 49.9,
            "currency": "USD",
            "status": "succeeded",
            "created_at": "2025-11-20T12:00:00Z",
        },
    ),
    "payment:failed": (
        "/billing",
        {
            "payment_id": str(ID),
            "amount": 49.9,
            "currency": "USD",
            "status": "failed",
            "invoice_url": None,
            "created_at": "2025-11-20T12:00:00Z",
        },
    ),
    "invoice:issued": (
        "/billing",
        {
            "document_id": str(ID),
            "number": "INV-2025-000007",
            "kind": "credit_note",
            "payment_id": str(ID),
            "amount": -49.9,
            "currency": "USD",
            "issued_at": "2025-11-20T12:00:00Z",
        },
    ),
    "order:updated": (
        "/billing",
        {"order_id": str(ID), "status": "paid", "order": {"amount": "0.00123000", "currency": "BTC"}},
    ),
    "order:paid": (
        "/billing",
        {
            "order_id": str(ID),
            "amount": "0.00123000",
            "currency": "BTC",
            "external_reference": None,
            "paid_at": "2025-11-20T12:00:00Z",
        },
    ),
    "notification:new": (
        "/notifications",
        {
            "id": str(ID),
            "type": "success",
            "title": "Paid",
            "message": "Спасибо",
            "data": {"n": 1},
            "link": "/billing",
            "read": False,
            "created_at": "2025-11-20T12:00:00Z",
        },
    ),
    "account:changed": (
        "/notifications",
        {"change": "session_reused", "session_id": str(ID), "at": "2025-11-20T12:00:00Z"},
    ),
}
# What only one user of the tenant hears.
PRIVATE = {"notification:new", "account:changed"}


def every_event(tenant_id: UUID, user_id: UUID) -> list[DomainEvent]:
    job = "create_site"
    return [
        StatusUpdate(
            tenant_id=tenant_id,
            job_id=ID,
            job_type=job,
            status="running",
            state="running",
            progress=40,
            message="Installing apps",
        ),
        StatusCompleted(
            tenant_id=tenant_id,
            job_id=ID,
            job_type=job,
            erpnext_url="https://acme.example.org",
            result={"apps": ["erpnext"]},
        ),
        StatusFailed(tenant_id=tenant_id, job_id=ID, job_type=job, state="failed", error="Out of disk"),
        SubscriptionUpdated(
            tenant_id=tenant_id,
            subscription_id=ID,
            status="active",
            plan="starter",
            updated_at=NOON,
            subscription={"amount": Decimal("49.99"), "plan": {"slug": "starter"}},
            entitlements={"plan": "starter", "limits": {"users": 5}},
        ),
        SubscriptionExpiring(tenant_id=tenant_id, subscription_id=ID, days_left=3, ends_at=NOON),
        PaymentReceived(tenant_id=tenant_id, payment_id=ID, amount=Decimal("49.90"), currency="USD", created_at=NOON),
        PaymentFailed(
            tenant_id=tenant_id,
            payment_id=ID,
            amount=Decimal("49.90"),
            currency="USD",
            invoice_url=None,
            created_at=NOON,
        ),
        InvoiceIssued(
            tenant_id=tenant_id,
            document_id=ID,
            number="INV-2025-000007",
            kind="credit_note",
            payment_id=ID,
            amount=Decimal("-49.90"),
            currency="USD",
            issued_at=NOON,
        ),
        OrderUpdated(
            tenant_id=tenant_id, order_id=ID, status="paid", order={"amount": "0.00123000", "currency": "BTC"}
        ),
        OrderPaid(
            tenant_id=tenant_id,
            order_id=ID,
            amount="0.00123000",
            currency="BTC",
            external_reference=None,
            paid_at=NOON,
        ),
        NotificationCreated(
            tenant_id=tenant_id,
            user_id=user_id,
            id=ID,
            type="success",
            title="Paid",
            message="Спасибо",
            data={"n": 1},
            link="/billing",
            created_at=NOON,
        ),
        AccountChanged(tenant_id=tenant_id, user_id=user_id, change="session_reused", session_id=ID, at=NOON),
    ]


def payment(tenant_id: UUID, payment_id: UUID) -> PaymentReceived:
    return PaymentReceived(
        tenant_id=tenant_id, payment_id=payment_id, amount=Decimal(1), currency="USD", created_at=NOON
    )


async def record(orchestrator: Orchestrator, *facts: DomainEvent) -> None:
    """Commit facts in one unit of work, as a use case would."""
    async with orchestrator.units(TenantScope(facts[0].tenant_id)) as uow:
        for fact in facts:
            uow.record(fact)


def heard_of(listener: Listener, what: UUID) -> list[tuple[str, str]]:
    """Return where and under which names a fact with this id was heard."""
    keys = ("payment_id", "order_id", "id", "job_id", "subscription_id", "session_id")
    return [
        (place, name)
        for place, name, body in listener.heard
        if isinstance(body, dict) and str(what) in [body.get(key) for key in keys]
    ]


async def hears(listener: Listener, what: UUID) -> None:
    """Wait until a fact with this id was heard."""
    await listener.until(lambda: heard_of(listener, what))


def test_the_whole_catalogue_is_proved_here() -> None:
    assert {event.event for event in CATALOGUE} == set(EXPECTED)


async def test_every_event_is_heard_once_in_each_place_with_every_field(
    orchestrator: Orchestrator, owner: Person
) -> None:
    listener = await Listener().connect(orchestrator.url, owner.token, *ALL)
    facts = every_event(owner.tenant_id, owner.user_id)
    await record(orchestrator, *facts)
    await listener.until(lambda: len(heard_of(listener, ID)) >= 4 * len(facts) + 2)

    heard = [(place, name, body) for place, name, body in listener.heard if (place, name) in heard_of(listener, ID)]
    expected_places: list[tuple[str, str]] = []
    for name, (namespace, fields) in EXPECTED.items():
        places = [(place, name) for place in (namespace, f"/ws{namespace}", *ROOTS)]
        if name == "notification:new":
            # The second name, for the documented sample client, exists on the roots only.
            places += [(place, "notification") for place in ROOTS]
        expected_places += places
        for place, heard_name in places:
            (body,) = [body for *at, body in heard if at == [place, heard_name]]
            extra = {key: body.pop(key) for key in ("event_id", "seq", "tenant_id")}
            if namespace == "/notifications":
                assert body.pop("user_id") == str(owner.user_id)
            assert body == fields, (place, heard_name)
            assert extra["tenant_id"] == str(owner.tenant_id)
            assert UUID(extra["event_id"]).version == 4
            assert extra["seq"] >= 1
    assert sorted(heard_of(listener, ID)) == sorted(expected_places), "nowhere else and nothing twice"
    await listener.close()


async def test_places_agree_on_numbers_and_order(orchestrator: Orchestrator, owner: Person) -> None:
    listener = await Listener().connect(orchestrator.url, owner.token, *ALL)
    for _ in range(5):
        await record(orchestrator, *every_event(owner.tenant_id, owner.user_id))
    await listener.until(lambda: len(listener.of("notification", "/ws")) >= 5)
    root = [event for event in listener.logged("/") if event[1] != "notification"]
    numbers = [seq for seq, _ in root]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "in order, without a hole, each once"
    assert [event for event in listener.logged("/ws") if event[1] != "notification"] == root
    for subject, prefixes in (
        ("/billing", ("subscription", "payment", "invoice", "order")),
        ("/provisioning", ("status",)),
        ("/notifications", ("notification", "account")),
    ):
        own = [event for event in root if event[1].startswith(prefixes)]
        assert listener.logged(subject) == own
        assert listener.logged(f"/ws{subject}") == own
    ids = {(body["seq"], body["event_id"]) for _, _, body in listener.heard if "event_id" in (body or {})}
    assert len({event_id for _, event_id in ids}) == len(ids), "one event has one id, wherever it is heard"
    await listener.close()


async def test_a_rolled_back_fact_is_heard_by_nobody(orchestrator: Orchestrator, owner: Person) -> None:
    listener = await Listener().connect(orchestrator.url, owner.token, *ALL)
    never, then = uuid4(), uuid4()
    with pytest.raises(RuntimeError):
        async with orchestrator.units(TenantScope(owner.tenant_id)) as uow:
            uow.record(payment(owner.tenant_id, never))
            raise RuntimeError
    await record(orchestrator, payment(owner.tenant_id, then))
    await listener.until(lambda: len(heard_of(listener, then)) == 4)
    assert heard_of(listener, never) == []
    await listener.close()


class TestEntitlement:
    async def test_another_tenant_hears_nothing(
        self, orchestrator: Orchestrator, owner: Person, stranger: Person
    ) -> None:
        mine = await Listener().connect(orchestrator.url, owner.token, *ALL)
        theirs = await Listener().connect(orchestrator.url, stranger.token, *ALL)
        await record(orchestrator, *every_event(owner.tenant_id, owner.user_id))
        await mine.until(lambda: heard_of(mine, ID))
        after = uuid4()
        await record(orchestrator, payment(stranger.tenant_id, after))
        await theirs.until(lambda: len(heard_of(theirs, after)) == 4)
        assert heard_of(theirs, ID) == []
        assert heard_of(mine, after) == []
        told = [body for _, _, body in theirs.heard if body and "tenant_id" in body]
        assert {body["tenant_id"] for body in told} == {str(stranger.tenant_id)}
        await mine.close()
        await theirs.close()

    async def test_a_colleague_hears_the_tenant_but_not_my_notifications(
        self, orchestrator: Orchestrator, owner: Person, colleague: Person
    ) -> None:
        listener = await Listener().connect(orchestrator.url, colleague.token, *ALL)
        await record(orchestrator, *reversed(every_event(owner.tenant_id, owner.user_id)))
        after = uuid4()
        await record(orchestrator, payment(owner.tenant_id, after))
        await listener.until(lambda: len(heard_of(listener, after)) == 4)
        names = {name for _, name in heard_of(listener, ID)}
        assert names == set(EXPECTED) - PRIVATE
        await listener.close()

    async def test_my_sockets_in_another_tenant_do_not_hear_of_this_one(
        self, orchestrator: Orchestrator, owner: Person, colleague: Person, stranger: Person
    ) -> None:
        here = await Listener().connect(orchestrator.url, colleague.token, "/")
        elsewhere = await Listener().connect(orchestrator.url, stranger.token, *ALL)
        await record(orchestrator, *every_event(owner.tenant_id, colleague.user_id))
        await here.until(lambda: ("/", "notification") in heard_of(here, ID))
        after = uuid4()
        await record(orchestrator, payment(stranger.tenant_id, after))
        await elsewhere.until(lambda: len(heard_of(elsewhere, after)) == 4)
        assert heard_of(elsewhere, ID) == []
        await here.close()
        await elsewhere.close()

    async def test_all_my_devices_hear(self, orchestrator: Orchestrator, owner: Person) -> None:
        devices = [await Listener().connect(orchestrator.url, owner.token, "/") for _ in range(3)]
        what = uuid4()
        await record(orchestrator, payment(owner.tenant_id, what))
        for device in devices:
            await hears(device, what)
            assert heard_of(device, what) == [("/", "payment:received")]
        await devices[0].close()
        after = uuid4()
        await record(orchestrator, payment(owner.tenant_id, after))
        await devices[1].until(lambda: heard_of(devices[1], after))
        assert heard_of(devices[0], after) == []
        for device in devices[1:]:
            await device.close()

    async def test_nothing_precedes_connected(self, orchestrator: Orchestrator, owner: Person) -> None:
        """Facts that are committed while sockets connect reach them after `connected` or not at all."""
        for _ in range(5):
            listener = Listener()
            connecting = listener.connect(orchestrator.url, owner.token, "/", "/billing")
            what = uuid4()
            await record(orchestrator, *(payment(owner.tenant_id, what) for _ in range(3)))
            await connecting
            for place in ("/", "/billing"):
                assert next(name for at, name, _ in listener.heard if at == place) == "connected"
            await listener.close()
