"""The provider inbox: signatures, duplicates, poison, patience, and rings that were lost."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import ErrorKind
from models.audit import AuditEntry
from models.billing import CheckoutState, SubscriptionStatus
from models.inbox import InboxState, ProviderEvent
from models.mail import OutboundMail
from models.users import User
from providers.payments import BadPayload, BadSignature
from realtime import log
from realtime.log import NumberedEvent, PendingEvent
from services.billing.errors import WebhookUnknown
from services.billing.inbox import MAX_ATTEMPTS, PATIENCE
from services.unit_of_work import RequestTrace
from tests.fakes.server import Fault
from tests.fakes.stripe_objects import Obj
from tests.support.billing import PLATFORM, Shop, Till


async def completed(till: Till, shop: Shop) -> Obj:
    """Let somebody pay; returns `checkout.session.completed`."""
    view = await till.checkout(shop.owner)
    return till.stripe.pay_checkout(view.session_id)[-1]


async def dead_reason(till: Till, event: Obj) -> str:
    """Return why an event is dead, as the audit tells it."""
    row = await till.event_row(event["id"])
    assert row.state is InboxState.DEAD
    async with till.units(PLATFORM) as uow:
        entry = (await uow.session.scalars(select(AuditEntry).where(AuditEntry.subject_id == str(row.id)))).one()
    assert entry.action == "provider_event.dead"
    assert entry.details["event_id"] == event["id"]
    reason: str = entry.details["reason"]
    assert row.last_error == reason
    return reason


async def test_a_stored_event_rings_the_worker_once(till: Till, shop: Shop) -> None:
    event = await completed(till, shop)
    assert await till.receive(event) is True
    assert await till.receive(event) is False
    row = await till.event_row(event["id"])
    assert [task.row_id for task in till.ears.tasks if task.name == "billing.apply"] == [row.id]
    assert (row.provider, row.account, row.type) == ("stripe", "", "checkout.session.completed")
    assert row.payload["data"]["object"]["id"] == event["data"]["object"]["id"]


@pytest.mark.parametrize(
    ("signature", "text"),
    [
        ({"secret": "whsec_other"}, "Invalid Stripe webhook signature"),
        ({"at": -301}, "Stripe webhook timestamp is outside the tolerance"),
        # The clock goes on until it is received.
        ({"at": 330}, "Stripe webhook timestamp is outside the tolerance"),
        ("nonsense", "Invalid Stripe-Signature header"),
    ],
    ids=["forged", "stale", "future", "nonsense"],
)
async def test_unproven_events_are_not_stored(till: Till, shop: Shop, signature: Any, text: str) -> None:
    event = await completed(till, shop)
    if isinstance(signature, dict):
        options = {**signature}
        if "at" in options:
            options["at"] += till.stripe.now()
        signature = till.stripe.sign(till.stripe.encode(event), **options)
    with pytest.raises(BadSignature) as refusal:
        await till.receive(event, signature=signature)
    assert (refusal.value.text, refusal.value.kind) == (text, ErrorKind.BAD_REQUEST)
    assert await stored(till, event) == []


async def stored(till: Till, event: Obj) -> list[ProviderEvent]:
    async with till.units(PLATFORM) as uow:
        return list(await uow.session.scalars(select(ProviderEvent).where(ProviderEvent.event_id == event["id"])))


async def test_a_signed_body_that_is_no_event_is_refused(till: Till) -> None:
    with pytest.raises(BadPayload, match="missing required fields"):
        await till.receive({"object": "event", "type": "invoice.paid"})


async def test_webhooks_of_strangers(till: Till) -> None:
    with pytest.raises(WebhookUnknown):
        await till.billing.receive("nobody", body=b"{}", headers={}, trace=RequestTrace())
    del till.providers["stripe"]
    with pytest.raises(WebhookUnknown, match="Stripe webhook secret is not configured"):
        await till.billing.receive("Stripe", body=b"{}", headers={}, trace=RequestTrace())


async def test_another_accounts_event_has_no_effect(till: Till, shop: Shop) -> None:
    event = {**await completed(till, shop), "account": "acct_somebody_else"}
    await till.take(event)
    assert (await till.event_row(event["id"])).state is InboxState.HANDLED
    assert (await till.subscription(shop)).status is SubscriptionStatus.TRIAL


async def test_an_event_that_is_none_of_our_business(till: Till) -> None:
    event = till.stripe._event("customer.created", {"id": "cus_1", "object": "customer", "livemode": False})
    await till.take(event)
    row = await till.event_row(event["id"])
    assert (row.state, row.handled_at is not None) == (InboxState.HANDLED, True)


@pytest.mark.parametrize("field", ["amount_total", "currency"])
async def test_another_price_than_the_one_asked_activates_nothing(till: Till, shop: Shop, field: str) -> None:
    event = await completed(till, shop)
    event["data"]["object"][field] = {"amount_total": 1, "currency": "uah"}[field]
    await till.take(event)
    assert "asked 49.99 USD" in await dead_reason(till, event)
    subscription = await till.subscription(shop)
    assert (subscription.status, subscription.checkout_id) == (SubscriptionStatus.TRIAL, None)
    assert await till.payments(shop) == []
    assert [row.state for row in await till.checkouts(shop)] == [CheckoutState.PENDING]
    assert "provider_event.dead" in await till.audit(shop)


async def test_an_invoice_of_another_price_activates_nothing_either(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner)
    paid = next(event for event in till.stripe.pay_checkout(view.session_id) if event["type"] == "invoice.paid")
    paid["data"]["object"]["amount_paid"] = 1
    await till.take(paid)
    assert "paid 0.01 USD" in await dead_reason(till, paid)
    assert (await till.subscription(shop)).status is SubscriptionStatus.TRIAL


@pytest.mark.parametrize("field", ["tenant_id", "plan_id", "billing_period"])
async def test_metadata_that_contradicts_the_checkout_is_refused(till: Till, shop: Shop, field: str) -> None:
    other = await till.shop()
    event = await completed(till, shop)
    foreign = {"tenant_id": str(other.tenant_id), "plan_id": str(uuid4()), "billing_period": "yearly"}
    event["data"]["object"]["metadata"][field] = foreign[field]
    await till.take(event)
    assert await dead_reason(till, event) == "another purchase than the checkout's"
    for tenant in (shop, other):
        assert (await till.subscription(tenant)).status is SubscriptionStatus.TRIAL
        assert await till.payments(tenant) == []


async def test_another_session_than_the_checkouts_is_refused(till: Till, shop: Shop) -> None:
    event = await completed(till, shop)
    event["data"]["object"]["id"] = "cs_test_of_somebody_else"
    await till.take(event)
    assert await dead_reason(till, event) == "another session than the checkout's"


async def test_a_garbled_object_is_dead_at_once(till: Till, shop: Shop) -> None:
    event = await completed(till, shop)
    del event["data"]["object"]["amount_total"]
    await till.take(event)
    assert "amount_total" in await dead_reason(till, event)


async def test_what_is_not_there_yet_waits_and_then_dies(till: Till, shop: Shop) -> None:
    event = await completed(till, shop)
    event["data"]["object"]["metadata"]["checkout_id"] = str(uuid4())
    await till.take(event)
    row = await till.event_row(event["id"])
    assert (row.state, row.last_error) == (InboxState.RECEIVED, "unknown checkout")
    # However often it is tried, time alone ends the patience.
    for _ in range(MAX_ATTEMPTS + 1):
        await till.retry(event)
    assert (await till.event_row(event["id"])).state is InboxState.RECEIVED
    till.clock.offset += PATIENCE + timedelta(seconds=1)
    await till.retry(event)
    assert await dead_reason(till, event) == "unknown checkout"
    # Dead is dead: nothing is done for an event that an operator has to look at.
    await till.retry(event)
    assert (await till.event_row(event["id"])).attempts == row.attempts + MAX_ATTEMPTS + 2


@pytest.mark.parametrize(("asked_s", "waited_s"), [(None, 60), (300, 300), (5000, 900)])
async def test_what_waits_for_a_provider_is_tried_every_minute_for_an_hour(
    till: Till, shop: Shop, monkeypatch: pytest.MonkeyPatch, asked_s: int | None, waited_s: int
) -> None:
    monkeypatch.setattr("core.backoff.random.uniform", lambda _, longest: longest)
    event = await completed(till, shop)
    await till.receive(event)
    headers = {} if asked_s is None else {"Retry-After": str(asked_s)}
    body = '{"error": {"type": "invalid_request_error", "code": "rate_limit"}}'
    till.stripe.always = Fault(status=429, body=body, headers=headers)
    # What a payment kept is asked for, so its link cannot be read while Stripe is away.
    link = next(row for row in till.stripe.events if row["type"] == "invoice_payment.paid")
    await till.receive(link)
    for _ in range(10):
        await till.retry(link)
    row = await till.event_row(link["id"])
    assert row.state is InboxState.RECEIVED
    assert (row.next_attempt_at - till.now).total_seconds() == pytest.approx(waited_s, abs=10)
    till.travel(hours=1)
    await till.retry(link)
    row = await till.event_row(link["id"])
    assert (row.next_attempt_at - till.now).total_seconds() == pytest.approx(900, abs=10)


async def test_superusers_without_a_tenant_hear_of_a_dead_event_by_letter(till: Till, shop: Shop) -> None:
    people = {f"{name}-{uuid4().hex}@example.org": name for name in ("active", "inactive", "somebody")}
    async with till.units(PLATFORM) as uow:
        for email, name in people.items():
            uow.session.add(
                User(
                    id=uuid4(),
                    email=email,
                    hashed_password="-",
                    full_name="Operator",
                    is_active=name != "inactive",
                    is_superuser=name != "somebody",
                    locale="ru",
                )
            )
        uow.session.add(
            User(
                id=uuid4(),
                email=None,
                phone=f"+7{uuid4().int % 10**10:010}",
                hashed_password="-",
                full_name="Without an address",
                is_active=True,
                is_superuser=True,
                locale="en",
            )
        )
    event = await completed(till, shop)
    del event["data"]["object"]["amount_total"]
    await till.take(event)
    assert (await till.event_row(event["id"])).state is InboxState.DEAD
    async with till.units(PLATFORM) as uow:
        written = await uow.session.scalars(select(OutboundMail).where(OutboundMail.recipient.in_(people)))
        (mail,) = written.all()
    assert people[mail.recipient] == "active"
    assert mail.subject == "Событие платёжной системы не обработано"
    assert event["id"] in mail.body
    assert "4999" not in mail.body


async def test_poison_is_tried_with_growing_pauses_and_then_buried(
    till: Till, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = await completed(till, shop)
    await till.receive(event)

    async def broken(*_: object) -> None:
        raise RuntimeError("the payload says 4242 4242 4242 4242")

    monkeypatch.setattr(till.billing._inbox._applier, "_checkout_paid", broken)
    # Of the jitter only the upper end grows for certain.
    monkeypatch.setattr("core.backoff.random.uniform", lambda _, longest: longest)
    waits = []
    for attempt in range(1, MAX_ATTEMPTS):
        await till.retry(event)
        row = await till.event_row(event["id"])
        assert (row.state, row.attempts) == (InboxState.RECEIVED, attempt)
        waits.append(row.next_attempt_at - till.now)
    assert waits == sorted(waits)
    assert waits[-1] > timedelta(minutes=3)
    await till.retry(event)
    reason = await dead_reason(till, event)
    assert reason.startswith("RuntimeError at ")
    assert "4242" not in reason


async def test_waiting_uses_up_no_attempts(till: Till, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    event = await completed(till, shop)
    await till.receive(event)
    row_id = (await till.event_row(event["id"])).id
    provider = till.providers.pop("stripe")
    for _ in range(MAX_ATTEMPTS):
        await till.billing.apply(row_id)
    till.providers["stripe"] = provider

    async def broken(*_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as breaking:
        breaking.setattr(till.billing._inbox._applier, "_checkout_paid", broken)
        await till.billing.apply(row_id)
    row = await till.event_row(event["id"])
    assert (row.state, row.attempts, row.faults) == (InboxState.RECEIVED, MAX_ATTEMPTS + 1, 1)
    await till.billing.apply(row_id)
    assert (await till.event_row(event["id"])).state is InboxState.HANDLED


async def test_a_fault_after_the_facts_leaves_nothing_behind(
    till: Till, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = await completed(till, shop)
    await till.receive(event)
    before = await till.state(shop)
    whole = log.append

    async def torn(session: AsyncSession, events: Sequence[PendingEvent]) -> list[NumberedEvent]:
        numbered = await whole(session, events)
        if numbered:
            raise ConnectionError("the line broke just before the commit")
        return numbered

    monkeypatch.setattr(log, "append", torn)
    await till.retry(event)
    monkeypatch.undo()
    row = await till.event_row(event["id"])
    assert (row.state, row.handled_at) == (InboxState.RECEIVED, None)
    assert await till.state(shop) == before
    assert till.heard(shop, "subscription:updated") == []
    await till.retry(event)
    assert (await till.subscription(shop)).status is SubscriptionStatus.ACTIVE


async def test_a_lost_ring_is_repeated_until_the_event_is_settled(till: Till, shop: Shop) -> None:
    event = await completed(till, shop)
    await till.receive(event)
    row = await till.event_row(event["id"])

    def rings() -> int:
        return sum(task.row_id == row.id for task in till.ears.tasks)

    await till.billing.sweep()
    assert rings() == 1
    till.travel(minutes=1)
    await till.billing.sweep()
    await till.billing.sweep()
    assert rings() == 2
    await till.billing.apply(row.id)
    till.travel(minutes=1)
    await till.billing.sweep()
    assert rings() == 2


async def test_however_many_rings_were_lost_all_are_made_up_for_in_time(till: Till) -> None:
    events = [
        till.stripe._event("mandate.updated", {"id": "m", "object": "mandate", "livemode": False}) for _ in range(250)
    ]
    for event in events:
        await till.receive(event)
    rows = {task.row_id for task in till.ears.tasks}
    assert len(rows) == len(events)
    heard = len(till.ears.tasks)
    till.travel(seconds=31)
    await till.billing.sweep()
    assert rows <= {task.row_id for task in till.ears.tasks[heard:]}
    # Whoever is too slow for so many is not rung for all of them again and again.
    heard = len(till.ears.tasks)
    till.travel(seconds=31)
    await till.billing.sweep()
    assert 0 < len(rows & {task.row_id for task in till.ears.tasks[heard:]}) <= 200
    for row_id in rows:
        await till.billing.apply(row_id)


async def test_an_event_whose_provider_was_taken_away_waits(till: Till, shop: Shop) -> None:
    event = await completed(till, shop)
    await till.receive(event)
    stripe = till.providers.pop("stripe")
    await till.retry(event)
    assert (await till.event_row(event["id"])).last_error == "unknown provider"
    till.providers["stripe"] = stripe
    await till.retry(event)
    assert (await till.event_row(event["id"])).state is InboxState.HANDLED


async def test_an_event_in_another_workers_hands_is_left_alone(till: Till, shop: Shop) -> None:
    event = await completed(till, shop)
    await till.receive(event)
    row = await till.event_row(event["id"])
    async with till.units(PLATFORM) as uow:
        await uow.session.execute(select(ProviderEvent).where(ProviderEvent.id == row.id).with_for_update())
        async with asyncio.timeout(5):
            await till.billing.apply(row.id)
    assert (await till.event_row(event["id"])).state is InboxState.RECEIVED


async def test_an_unknown_row_is_no_work(till: Till) -> None:
    await till.billing.apply(uuid4())
