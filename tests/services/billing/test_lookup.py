"""Whom a fact concerns: found by the checkout, by the session, by the provider's references, or not yet."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from models.billing import CheckoutState, Subscription, SubscriptionStatus
from models.inbox import InboxState
from services.billing.lookup import locked_subscription
from tests.fakes.stripe_objects import Obj
from tests.support.billing import PLATFORM, Shop, Till


def of_kind(events: list[Obj], kind: str) -> Obj:
    return next(event for event in events if event["type"] == kind)


def without_metadata(invoice_paid: Obj) -> Obj:
    """Show an invoice as an older version of the API does, which copies no metadata to it."""
    invoice_paid["data"]["object"]["parent"]["subscription_details"]["metadata"] = {}
    return invoice_paid


async def test_a_checkout_that_the_system_before_this_one_began(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner)
    completed = of_kind(till.stripe.pay_checkout(view.session_id), "checkout.session.completed")
    del completed["data"]["object"]["metadata"]["checkout_id"]
    await till.take(completed)
    assert (await till.subscription(shop)).status is SubscriptionStatus.ACTIVE


async def test_an_event_that_overtakes_the_answer_with_its_session(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner)
    (checkout,) = await till.checkouts(shop)
    await till.change(type(checkout), checkout.id, session_id=None)
    await till.take(of_kind(till.stripe.pay_checkout(view.session_id), "checkout.session.completed"))
    (checkout,) = await till.checkouts(shop)
    assert (checkout.state, checkout.session_id) == (CheckoutState.PAID, view.session_id)


async def test_a_tenant_whose_subscription_is_gone(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner)
    async with till.units(PLATFORM) as uow:
        await uow.session.delete(await uow.session.get_one(Subscription, (await till.subscription(shop)).id))
    completed = of_kind(till.stripe.pay_checkout(view.session_id), "checkout.session.completed")
    await till.take(completed)
    assert (await till.event_row(completed["id"])).last_error == "unknown subscription"


async def test_an_invoice_found_by_what_the_pending_checkout_told(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner)
    await till.take(*till.stripe.pay_checkout(view.session_id, delayed=True))
    settled = till.stripe.settle_checkout(view.session_id, arrives=True)
    await till.take(without_metadata(of_kind(settled, "invoice.paid")))
    assert (await till.subscription(shop)).status is SubscriptionStatus.ACTIVE


async def test_an_invoice_without_metadata_waits_for_its_checkout(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner)
    events = till.stripe.pay_checkout(view.session_id)
    paid = without_metadata(of_kind(events, "invoice.paid"))
    await till.take(paid)
    assert (await till.event_row(paid["id"])).last_error == "unknown subscription"
    await till.take(of_kind(events, "checkout.session.completed"))
    await till.retry(paid)
    assert (await till.event_row(paid["id"])).state is InboxState.HANDLED
    assert len(await till.payments(shop)) == 1


async def test_a_second_subscription_for_one_checkout_is_refused(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner)
    events = till.stripe.pay_checkout(view.session_id)
    await till.take(of_kind(events, "checkout.session.completed"))
    forged = of_kind(events, "customer.subscription.created")
    forged["data"]["object"]["id"] = "sub_of_somebody_else"
    await till.take(forged)
    row = await till.event_row(forged["id"])
    assert (row.state, row.last_error) == (InboxState.DEAD, "another subscription than the checkout's")


async def test_a_checkout_that_does_not_name_its_subscription(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner)
    events = till.stripe.pay_checkout(view.session_id)
    completed = of_kind(events, "checkout.session.completed")
    subscription_id = completed["data"]["object"]["subscription"]
    completed["data"]["object"]["subscription"] = None
    await till.take(completed)
    assert (await till.subscription(shop)).external_subscription_id is None
    await till.take(of_kind(events, "invoice.paid"))
    assert (await till.subscription(shop)).external_subscription_id == subscription_id


@pytest.mark.parametrize("kind", ["customer.subscription.created", "invoice.paid"])
async def test_purchases_that_nobody_knows_wait(till: Till, shop: Shop, kind: str) -> None:
    view = await till.checkout(shop.owner)
    event = of_kind(till.stripe.pay_checkout(view.session_id), kind)
    subject: Any = event["data"]["object"]
    metadata = (
        subject["metadata"] if kind.startswith("customer") else subject["parent"]["subscription_details"]["metadata"]
    )
    metadata["checkout_id"] = str(uuid4())
    for subscription in till.stripe.subscriptions.values():
        # A subscription that has changed is fetched, so it must say so itself.
        subscription["metadata"] = {**subscription["metadata"], "checkout_id": metadata["checkout_id"]}
    await till.take(event)
    assert (await till.event_row(event["id"])).last_error == "unknown subscription"


async def test_an_end_that_is_told_twice_or_before_the_money(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner)
    paid = till.stripe.pay_checkout(view.session_id)
    till.travel(days=1)
    (ended,) = till.stripe.end_subscription(till.stripe.sessions[view.session_id]["subscription"])
    await till.take(ended)
    assert (await till.event_row(ended["id"])).last_error == "unknown payment"
    await till.take(*paid)
    await till.retry(ended)
    assert (await till.subscription(shop)).status is SubscriptionStatus.CANCELLED
    heard = len(till.ears.events)
    await till.take({**ended, "id": ended["id"] + "again"})
    assert len(till.ears.events) == heard


async def test_a_fault_with_an_event_that_somebody_else_settled(
    till: Till, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = await till.checkout(shop.owner)
    completed = of_kind(till.stripe.pay_checkout(view.session_id), "checkout.session.completed")
    await till.take(completed)

    async def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(till.billing._inbox, "_apply", broken)
    await till.retry(completed)
    row = await till.event_row(completed["id"])
    assert (row.state, row.attempts, row.last_error) == (InboxState.HANDLED, 0, None)


async def test_a_lock_that_was_waited_for_shows_what_is_in_force_now(till: Till, shop: Shop) -> None:
    """Two purchases are applied at once: the second must see the first one's checkout, not what stood before it."""
    await till.checkout(shop.owner)
    (checkout,) = await till.checkouts(shop)
    row = await till.subscription(shop)
    assert row.checkout_id is None
    waiting = asyncio.Event()

    async def second() -> Subscription | None:
        async with till.units(PLATFORM) as uow:
            waiting.set()
            return await locked_subscription(uow, Subscription.id == row.id)

    async with till.units(PLATFORM) as uow:
        first = await locked_subscription(uow, Subscription.id == row.id)
        assert first is not None
        blocked = asyncio.create_task(second())
        await waiting.wait()
        await asyncio.sleep(0.2)
        assert not blocked.done()
        first.checkout_id = checkout.id
    seen = await blocked
    assert seen is not None
    assert seen.checkout is not None
    assert seen.checkout.id == checkout.id
