"""Events overtake each other and come twice; whatever the order, they end in one and the same state."""

import asyncio
import itertools
from typing import Any

import pytest

from models.billing import CheckoutState, PaymentEventType, SubscriptionStatus
from models.inbox import InboxState
from tests.fakes.stripe_objects import Obj
from tests.support.billing import Shop, Till, moment, money

STORY = ("checkout.session.completed", "invoice.paid", "customer.subscription.updated")


def of_kind(events: list[Obj], kind: str) -> Obj:
    return next(event for event in events if event["type"] == kind)


async def story(till: Till, shop: Shop) -> dict[str, Obj]:
    """Let somebody pay; returns the three events that tell of it, each a second after the other."""
    view = await till.checkout(shop.owner)
    events = till.stripe.pay_checkout(view.session_id)
    updated = of_kind(events, "customer.subscription.created")
    told = {
        "invoice.paid": of_kind(events, "invoice.paid"),
        "checkout.session.completed": of_kind(events, "checkout.session.completed"),
        "customer.subscription.updated": {**updated, "type": "customer.subscription.updated"},
    }
    # Whether or not a second ended while they were told.
    began = updated["created"]
    for second, event in enumerate(told.values()):
        event["created"] = began + second
    return told


def without_ids(state: Any) -> Any:
    """Replace Stripe's random ids by their kind, so that two tenants' stories can be compared."""
    if isinstance(state, dict):
        return {key: without_ids(value) for key, value in state.items()}
    if isinstance(state, list):
        return [without_ids(value) for value in state]
    if isinstance(state, str) and state.split("_")[0] in {"cs", "sub", "cus", "in", "evt", "pi"}:
        return state.split("_")[0]
    return "url" if isinstance(state, str) and state.startswith("https://") else state


@pytest.mark.parametrize("order", list(itertools.permutations(STORY)), ids="-".join)
async def test_every_order_ends_in_one_state(till: Till, shop: Shop, order: tuple[str, ...]) -> None:
    told = await story(till, shop)
    for kind in order:
        await till.take(told[kind])
    # What had to wait for another event is tried again, and finds what it waited for.
    await till.retry(*told.values())
    for event in told.values():
        assert (await till.event_row(event["id"])).state is InboxState.HANDLED

    subscription = await till.subscription(shop)
    item = told["customer.subscription.updated"]["data"]["object"]["items"]["data"][0]
    invoice = told["invoice.paid"]["data"]["object"]
    session = told["checkout.session.completed"]["data"]["object"]
    plan = await till.plan()
    assert subscription.status is SubscriptionStatus.ACTIVE
    assert subscription.plan_id == plan.id
    assert subscription.trial_ends_at is None
    assert subscription.current_period_start == moment(item["current_period_start"])
    assert subscription.current_period_end == moment(item["current_period_end"])
    assert subscription.payment_provider == "stripe"
    assert subscription.external_subscription_id == session["subscription"]
    assert subscription.external_customer_id == session["customer"]
    assert subscription.facts_until == moment(told["customer.subscription.updated"]["created"])
    assert subscription.period_facts_until == moment(told["customer.subscription.updated"]["created"])
    assert subscription.cancel_facts_until == moment(told["customer.subscription.updated"]["created"])

    (checkout,) = await till.checkouts(shop)
    assert checkout.state is CheckoutState.PAID
    assert checkout.completed_at == moment(told["invoice.paid"]["created"])
    assert checkout.subscription_ref == session["subscription"]

    (payment,) = await till.payments(shop)
    assert payment.event_type is PaymentEventType.PAYMENT_SUCCESS
    assert (payment.amount, payment.currency) == (money("49.99"), "USD")
    # The event that happened first names the payment, whichever arrived first.
    assert payment.provider_event_id == told["invoice.paid"]["id"]
    assert payment.created_at == moment(told["invoice.paid"]["created"])
    assert payment.invoice_url == invoice["hosted_invoice_url"]

    (bill,) = await till.bills(shop)
    assert bill.provider_invoice_id == invoice["id"]
    assert (bill.amount, bill.paid_at) == (money("49.99"), moment(told["invoice.paid"]["created"]))
    assert bill.period_end == moment(item["current_period_end"])

    assert [event.payload["amount"] for event in till.heard(shop, "payment:received")] == [money("49.99")]
    assert await till.orders(shop) == []


async def test_all_orders_agree_on_every_column(till: Till) -> None:
    states = []
    frozen = int(till.now.timestamp())
    # Stripe's clock stands still, so that only the order differs between the tenants.
    till.stripe._clock = lambda: frozen
    for order in itertools.permutations(STORY):
        shop = await till.shop()
        told = await story(till, shop)
        for kind in order:
            await till.take(told[kind])
        await till.retry(*told.values())
        state = without_ids(await till.state(shop))
        for checkout in state["checkouts"]:
            del checkout["expires_at"]
        states.append(state)
    assert all(state == states[0] for state in states), states


async def test_duplicates_change_nothing(till: Till, shop: Shop) -> None:
    told = await story(till, shop)
    await till.take(*told.values())
    before = await till.state(shop)
    heard = len(till.ears.events)
    for event in told.values():
        assert await till.receive(event) is False
    await till.work()
    await till.retry(*told.values())
    assert await till.state(shop) == before
    assert len(till.ears.events) == heard


async def test_ten_deliveries_at_once_are_one_payment(till: Till, shop: Shop) -> None:
    told = await story(till, shop)
    completed = told["checkout.session.completed"]
    created = await asyncio.gather(*(till.receive(completed) for _ in range(10)))
    assert sorted(created) == [False] * 9 + [True]
    row = await till.event_row(completed["id"])
    await asyncio.gather(*(till.billing.apply(row.id) for _ in range(10)))
    assert len(await till.payments(shop)) == 1
    assert len(till.heard(shop, "payment:received")) == 1
    assert (await till.event_row(completed["id"])).attempts == 0


async def test_the_three_events_at_once_are_one_payment(till: Till, shop: Shop) -> None:
    told = await story(till, shop)
    for event in told.values():
        await till.receive(event)
    rows = [await till.event_row(event["id"]) for event in told.values()]
    await asyncio.gather(*(till.billing.apply(row.id) for row in rows))
    await till.retry(*told.values())
    assert len(await till.payments(shop)) == 1
    assert (await till.subscription(shop)).status is SubscriptionStatus.ACTIVE


async def test_nothing_is_activated_before_the_money_is_there(till: Till, shop: Shop) -> None:
    told = await story(till, shop)
    await till.take(told["customer.subscription.updated"])
    row = await till.event_row(told["customer.subscription.updated"]["id"])
    assert (row.state, row.attempts, row.last_error) == (InboxState.RECEIVED, 1, "unknown payment")
    assert row.next_attempt_at > till.now
    assert (await till.subscription(shop)).status is SubscriptionStatus.TRIAL


async def test_an_older_fact_that_comes_late_changes_nothing(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    till.travel(days=30)
    failed = of_kind(till.stripe.renew(subscription_id, paid=False), "invoice.payment_failed")
    stale = till.stripe._event("customer.subscription.updated", till.stripe.subscriptions[subscription_id])
    till.travel(hours=1)
    till.stripe.subscriptions[subscription_id]["status"] = "active"
    news = till.stripe._event("customer.subscription.updated", till.stripe.subscriptions[subscription_id])
    await till.take(news)
    before = await till.subscription(shop)
    await till.take(stale, failed)
    after = await till.subscription(shop)
    assert after.status is before.status is SubscriptionStatus.ACTIVE
    assert after.facts_until == before.facts_until == moment(news["created"])
    # The attempt itself is a fact of money all the same.
    assert [payment.event_type for payment in await till.payments(shop)] == [
        PaymentEventType.PAYMENT_SUCCESS,
        PaymentEventType.PAYMENT_FAILED,
    ]
