"""What the passing of time does to subscriptions."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from models.billing import Subscription, SubscriptionStatus
from models.inbox import InboxState
from tests.support.billing import PLATFORM, Shop, Till, press_sandbox


async def test_a_trial_expires(till: Till, shop: Shop) -> None:
    till.travel(days=13, hours=23)
    await till.billing.sweep()
    assert (await till.subscription(shop)).status is SubscriptionStatus.TRIAL
    till.travel(hours=1)
    await till.billing.sweep()
    await till.billing.sweep()
    assert (await till.subscription(shop)).status is SubscriptionStatus.EXPIRED
    assert (await till.audit(shop)).count("subscription.expired") == 1
    (event,) = till.heard(shop, "subscription:updated")
    assert event.payload["status"] == "expired"
    assert event.payload["subscription"]["plan"]["slug"] == "trial"
    expired = [note for note in await till.notifications(shop) if note.title == "Subscription expired"]
    assert {note.user_id for note in expired} == {shop.owner.user_id, shop.admin.user_id}


async def test_warnings_at_seven_three_and_one_day_once_each(till: Till, shop: Shop) -> None:
    for _ in range(14 * 4 - 1):
        till.travel(hours=6)
        await till.billing.sweep()
    warnings = till.heard(shop, "subscription:expiring")
    assert [event.payload["days_left"] for event in warnings] == [7, 3, 1]
    subscription = await till.subscription(shop)
    ends_at = subscription.ends_at.isoformat().replace("+00:00", "Z")
    assert {event.payload["ends_at"] for event in warnings} == {ends_at}
    assert {event.payload["subscription_id"] for event in warnings} == {str(subscription.id)}
    assert len(await till.notifications(shop)) == 6


async def test_sweepers_that_run_at_once_do_everything_once(till: Till, shop: Shop) -> None:
    till.travel(days=11, hours=12)
    await asyncio.gather(*(till.billing.sweep() for _ in range(4)))
    assert len(till.heard(shop, "subscription:expiring")) == 1
    till.travel(days=3)
    await asyncio.gather(*(till.billing.sweep() for _ in range(4)))
    assert (await till.audit(shop)).count("subscription.expired") == 1


async def test_warnings_are_in_the_readers_language(till: Till) -> None:
    shop = await till.shop(locale="ru")
    till.travel(days=13, hours=1)
    await till.billing.sweep()
    note = (await till.notifications(shop))[0]
    assert note.title == "Подписка скоро закончится"
    assert note.message.endswith("Осталось дней: 1.")
    assert (note.link, note.data["news"]) == ("/billing", "subscription_expiring")


async def test_a_cancelled_subscription_ends_with_its_period(till: Till, shop: Shop) -> None:
    await till.buy(shop)
    await till.cancel(shop.owner)
    end = (await till.subscription(shop)).current_period_end
    till.clock.offset += end - till.now - timedelta(hours=20)
    await till.billing.sweep()
    assert [event.payload["days_left"] for event in till.heard(shop, "subscription:expiring")] == [1]
    till.travel(hours=20)
    await till.billing.sweep()
    assert (await till.subscription(shop)).status is SubscriptionStatus.CANCELLED
    assert till.heard(shop, "subscription:updated")[-1].payload["status"] == "cancelled"


async def test_what_renews_by_itself_is_neither_warned_nor_ended_early(till: Till, shop: Shop) -> None:
    await till.buy(shop)
    end = (await till.subscription(shop)).current_period_end
    till.clock.offset += end - till.now - timedelta(hours=1)
    await till.billing.sweep()
    till.travel(hours=24)
    await till.billing.sweep()
    assert till.heard(shop, "subscription:expiring") == []
    assert (await till.subscription(shop)).status is SubscriptionStatus.ACTIVE
    # News of the renewal is overdue, so it counts as unpaid, with its service for three weeks more.
    till.travel(hours=2)
    await till.billing.sweep()
    assert (await till.subscription(shop)).status is SubscriptionStatus.PAST_DUE
    till.travel(days=21, hours=12)
    await till.billing.sweep()
    assert (await till.subscription(shop)).status is SubscriptionStatus.PAST_DUE
    till.travel(hours=12)
    await till.billing.sweep()
    assert (await till.subscription(shop)).status is SubscriptionStatus.EXPIRED


async def test_news_that_comes_late_brings_an_expired_subscription_back(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    till.travel(days=31)
    events = till.stripe.renew(subscription_id)
    for _ in range(2):
        till.travel(days=23)
        await till.billing.sweep()
    await till.billing.sweep()
    assert (await till.subscription(shop)).status is SubscriptionStatus.EXPIRED
    await till.take(*events)
    assert (await till.subscription(shop)).status is SubscriptionStatus.ACTIVE


async def test_a_past_due_subscription_that_was_cancelled(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    till.travel(days=31)
    await till.take(*till.stripe.renew(subscription_id, paid=False))
    await till.cancel(shop.owner)
    till.travel(days=32)
    await till.billing.sweep()
    assert (await till.subscription(shop)).status is SubscriptionStatus.CANCELLED


async def test_what_nobody_renews_is_warned_and_ends(till: Till, shop: Shop) -> None:
    await press_sandbox(till, shop, "pay")
    end = (await till.subscription(shop)).current_period_end
    till.clock.offset += end - till.now - timedelta(hours=60)
    await till.billing.sweep()
    assert [event.payload["days_left"] for event in till.heard(shop, "subscription:expiring")] == [3]
    till.travel(hours=60)
    await till.billing.sweep()
    assert (await till.subscription(shop)).status is SubscriptionStatus.PAST_DUE
    till.travel(days=22)
    await till.billing.sweep()
    await till.billing.sweep()
    assert (await till.subscription(shop)).status is SubscriptionStatus.EXPIRED


async def test_paying_in_time_stops_the_clock(till: Till, shop: Shop) -> None:
    till.travel(days=13, hours=12)
    await till.billing.sweep()
    await till.buy(shop)
    till.travel(days=2)
    await till.billing.sweep()
    assert (await till.subscription(shop)).status is SubscriptionStatus.ACTIVE


async def test_a_subscription_in_other_hands_is_swept_later(till: Till, shop: Shop) -> None:
    till.travel(days=15)
    row = await till.subscription(shop)
    async with till.units(PLATFORM) as uow:
        await uow.session.execute(select(Subscription).where(Subscription.id == row.id).with_for_update())
        async with asyncio.timeout(8):
            await till.billing.sweep()
    assert (await till.subscription(shop)).status is SubscriptionStatus.TRIAL
    await till.billing.sweep()
    assert (await till.subscription(shop)).status is SubscriptionStatus.EXPIRED


async def test_the_sweep_rings_for_waiting_events(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner)
    events = till.stripe.pay_checkout(view.session_id)
    created = next(event for event in events if event["type"] == "customer.subscription.created")
    await till.take(created)
    await till.take(events[-1])
    assert (await till.event_row(created["id"])).state is InboxState.RECEIVED
    till.travel(minutes=20)
    await till.billing.sweep()
    await till.work()
    assert (await till.event_row(created["id"])).state is InboxState.HANDLED


async def test_one_that_breaks_stops_no_other(till: Till, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, other = await till.subscription(shop), await till.shop()
    told = await till.shop()
    subscription_id = await till.buy(told)
    # Its process dies before Stripe is told.
    with monkeypatch.context() as dying:
        dying.setattr(till.billing._instructions, "carry_out", _nothing)
        await till.cancel(told.owner)
    healthy = Subscription.expire

    def expire(self: Subscription, **options: Any) -> None:
        if self.id == broken.id:
            raise RuntimeError
        healthy(self, **options)

    monkeypatch.setattr(Subscription, "expire", expire)
    till.travel(days=14)
    await till.billing.sweep()
    assert (await till.subscription(shop)).status is SubscriptionStatus.TRIAL
    assert (await till.subscription(other)).status is SubscriptionStatus.EXPIRED
    assert till.stripe.subscriptions[subscription_id]["cancel_at_period_end"]


async def test_an_order_that_breaks_stops_no_other(till: Till, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    refs = []
    with monkeypatch.context() as dying:
        dying.setattr(till.billing._instructions, "carry_out", _nothing)
        for tenant in (shop, await till.shop()):
            refs.append(await till.buy(tenant))
            await till.cancel(tenant.owner)
    stripe = till.providers["stripe"]
    healthy = stripe.cancel

    async def cancel(ref: str, *, at_period_end: bool) -> None:
        if ref == refs[0]:
            raise RuntimeError
        await healthy(ref, at_period_end=at_period_end)

    monkeypatch.setattr(stripe, "cancel", cancel)
    await till.billing.sweep()
    assert till.stripe.subscriptions[refs[1]]["cancel_at_period_end"]
    (order,) = await till.orders(shop)
    assert (order.done_at, order.last_error) == (None, "RuntimeError")


async def _nothing(_: object) -> None:
    pass
