"""What providers list of late, when their webhooks are lost: the same facts, once, however often it is listed."""

import dataclasses
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from core import json
from providers.payments import (
    CheckoutPaid,
    Fact,
    ProviderRejected,
    SubscriptionChanged,
    VerifiedEvent,
    read_event,
    saw_subscription,
)
from tests.providers.payments.harness import NOW, Harness, NetworkHarness, SandboxHarness, StripeHarness, request
from tests.providers.payments.receiving import facts, receive

HOUR = timedelta(hours=1)
# These keep their events, so those that are listed are those that webhooks bring.
KEEPS_EVENTS = {"stripe", "paypal", "coinbase_commerce"}


async def listed(harness: Harness, since: timedelta = HOUR) -> list[VerifiedEvent]:
    """List all pages, and read the events from the inbox again."""
    found: list[VerifiedEvent] = []
    cursor = None
    for _ in range(50):
        page = await harness.provider.list_events(since=NOW - since, until=NOW, cursor=cursor)
        found += page.events
        cursor = page.next_cursor
        if cursor is None:
            break
    assert cursor is None
    return [dataclasses.replace(event, payload=json.loads(json.dumps(event.payload))) for event in found]


async def meant(harness: Harness, events: list[VerifiedEvent]) -> list[Fact]:
    return [fact for event in events for fact in (await read_event(harness.provider, event)).facts]


async def test_a_payment_is_listed_as_its_webhooks_tell_it(network: NetworkHarness) -> None:
    created = await network.provider.create_checkout(request())
    contents = network.paid(created)
    seen = await listed(network)
    by_webhooks = [await receive(network, content) for content in contents]
    told = await facts(network, contents)

    found = await meant(network, seen)

    (paid,) = {fact for fact in found if isinstance(fact, CheckoutPaid)}
    assert paid in told
    assert (paid.session_id, paid.amount) == (created.session_id, Decimal("49.99"))
    assert paid.purchase.checkout_id is not None
    if network.provider.name in KEEPS_EVENTS:
        assert {event.event_id for event in seen} <= {event.event_id for event in by_webhooks}
        assert {event.type for event in seen} <= {event.type for event in by_webhooks}


async def test_it_is_the_same_however_often_it_is_listed(network: NetworkHarness) -> None:
    network.paid(await network.provider.create_checkout(request()))
    first = await listed(network)

    again = await listed(network)

    assert {event.event_id for event in first} == {event.event_id for event in again}
    assert len({event.event_id for event in first}) == len(first) > 0


async def test_a_change_is_another_event(network: NetworkHarness) -> None:
    created = await network.provider.create_checkout(request())
    assert await meant(network, await listed(network)) == []
    network.declined(created)
    before = {event.event_id for event in await listed(network)}
    network.paid(await network.provider.create_checkout(request()))

    assert {event.event_id for event in await listed(network)} > before


async def test_what_happened_before_is_not_listed_again(network: NetworkHarness) -> None:
    if network.provider.name not in KEEPS_EVENTS:
        return
    network.paid(await network.provider.create_checkout(request()))
    network.clock.at = NOW + timedelta(hours=2)

    assert await listed(network, since=timedelta(minutes=-1)) == []


async def test_many_are_listed_page_by_page(network: NetworkHarness) -> None:
    paid = set()
    for _ in range(103):
        created = await network.provider.create_checkout(request(customer_email=None))
        network.paid(created)
        paid.add(created.session_id)

    events = await listed(network)

    assert len({event.event_id for event in events}) == len(events)
    told = "\n".join(json.dumps_text(event.payload) for event in events)
    assert [session_id for session_id in paid if session_id not in told] == []


async def test_the_sandbox_remembers_nothing(sandbox: SandboxHarness) -> None:
    assert not sandbox.provider.capabilities.list_events
    with pytest.raises(ProviderRejected):
        await sandbox.provider.list_events(since=NOW - HOUR, until=NOW)


async def test_a_subscription_that_was_seen_is_fetched(stripe: StripeHarness) -> None:
    created = await stripe.provider.create_checkout(request())
    stripe.paid(created)
    (subscription_ref,) = stripe.fake.subscriptions
    state = await stripe.provider.fetch_subscription(subscription_ref)
    assert state is not None
    event = saw_subscription(state, by=UUID(int=1), at=NOW)
    stripe.fake.subscriptions[subscription_ref]["cancel_at_period_end"] = True

    (fact,) = (await read_event(stripe.provider, event)).facts

    assert isinstance(fact, SubscriptionChanged)
    assert (fact.occurred_at, fact.state.cancel_at_period_end) == (NOW, True)
    assert saw_subscription(state, by=UUID(int=2), at=NOW).event_id != event.event_id
    stripe.fake.subscriptions.clear()
    assert (await read_event(stripe.provider, event)).is_missing
