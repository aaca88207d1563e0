"""Cancelling: who may, what it changes, and that the provider hears of it whatever happens."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import select

from models.billing import CreditReason, Subscription, SubscriptionStatus
from models.mail import OutboundMail
from models.users import User
from services.billing.errors import SubscriptionNotFound, SubscriptionOver
from services.identity import RoleRequired
from services.unit_of_work import RequestTrace, Scope, UnitOfWork, UnitOfWorkFactory
from tests.fakes.stripe_api import Fault
from tests.support.billing import PLATFORM, Shop, Till, press_sandbox
from tests.support.waiting import until


async def test_only_the_owner_cancels(till: Till, shop: Shop) -> None:
    for actor in (shop.admin, shop.member):
        with pytest.raises(RoleRequired, match=r"one of the following roles: owner$"):
            await till.cancel(actor)
    assert not (await till.subscription(shop)).cancel_at_period_end


async def test_at_the_end_of_the_period(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    before = await till.view(shop.owner)
    view = await till.cancel(shop.owner, reason="moving on")
    assert (view.status, view.cancel_at_period_end) == (SubscriptionStatus.ACTIVE, True)
    assert view.current_period_end == before.current_period_end
    assert view.cancelled_at == view.canceled_at
    assert view.cancelled_at is not None
    assert view.cancel_reason == "moving on"
    assert till.stripe.subscriptions[subscription_id]["cancel_at_period_end"] is True
    (order,) = await till.orders(shop)
    assert (order.kind, order.done_at is not None, order.attempts) == ("cancel_later", True, 1)
    assert till.heard(shop, "subscription:updated")[-1].payload["subscription"]["cancel_at_period_end"] is True
    notes = await till.notifications(shop)
    assert {note.user_id for note in notes if note.title == "Subscription will end"} == {
        shop.owner.user_id,
        shop.admin.user_id,
    }
    assert notes[-1].message == f"The subscription to the plan Professional ends on {view.current_period_end:%Y-%m-%d}."


async def test_cancelling_later_twice_changes_nothing(till: Till, shop: Shop) -> None:
    await till.buy(shop)
    first = await till.cancel(shop.owner, reason="one")
    heard = len(till.ears.events)
    assert await till.cancel(shop.owner, reason="two") == first
    assert len(await till.orders(shop)) == 1
    assert len(till.ears.events) == heard


async def test_now(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    view = await till.cancel(shop.owner, at_period_end=False)
    assert view.status is SubscriptionStatus.CANCELLED
    assert view.current_period_end == view.cancelled_at
    assert till.stripe.subscriptions[subscription_id]["status"] == "canceled"
    with pytest.raises(SubscriptionOver):
        await till.cancel(shop.owner)
    assert (await till.subscription(shop)).status is SubscriptionStatus.CANCELLED


async def test_later_and_then_now(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    await till.cancel(shop.owner, reason="moving on")
    view = await till.cancel(shop.owner, at_period_end=False)
    assert (view.status, view.cancel_reason) == (SubscriptionStatus.CANCELLED, "moving on")
    assert till.stripe.subscriptions[subscription_id]["status"] == "canceled"


async def test_a_trial_has_no_provider_to_tell(till: Till, shop: Shop) -> None:
    view = await till.cancel(shop.owner)
    assert (view.status, view.cancel_at_period_end) == (SubscriptionStatus.TRIAL, True)
    assert await till.orders(shop) == []
    till.travel(days=15)
    await till.billing.sweep()
    assert (await till.subscription(shop)).status is SubscriptionStatus.CANCELLED


async def test_nothing_to_cancel(till: Till, shop: Shop) -> None:
    async with till.units(PLATFORM) as uow:
        await uow.session.delete(await uow.session.get_one(Subscription, (await till.subscription(shop)).id))
    with pytest.raises(SubscriptionNotFound):
        await till.cancel(shop.owner)
    with pytest.raises(SubscriptionNotFound):
        await till.view(shop.owner)


async def test_a_provider_that_is_away_hears_of_it_later(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    till.stripe.faults.append(Fault(status=503, body="{}"))
    view = await till.cancel(shop.owner)
    assert view.cancel_at_period_end
    assert not till.stripe.subscriptions[subscription_id]["cancel_at_period_end"]
    # What the provider says meanwhile does not undo the decision, for it has not heard of it.
    till.travel(seconds=5)
    await till.take(till.stripe._event("customer.subscription.updated", till.stripe.subscriptions[subscription_id]))
    assert (await till.subscription(shop)).cancel_at_period_end
    await till.billing.sweep()
    assert not till.stripe.subscriptions[subscription_id]["cancel_at_period_end"]
    till.travel(hours=2)
    await till.billing.sweep()
    assert till.stripe.subscriptions[subscription_id]["cancel_at_period_end"]
    (order,) = await till.orders(shop)
    assert (order.attempts, order.last_error, order.done_at is not None) == (2, None, True)


async def test_a_process_that_dies_before_it_can_tell(till: Till, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    subscription_id = await till.buy(shop)

    async def died(_: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(till.billing._instructions, "carry_out", died)
    with pytest.raises(asyncio.CancelledError):
        await till.cancel(shop.owner, at_period_end=False)
    monkeypatch.undo()
    assert till.stripe.subscriptions[subscription_id]["status"] == "active"
    await till.billing.sweep()
    assert till.stripe.subscriptions[subscription_id]["status"] == "canceled"


async def test_an_order_is_carried_out_by_one_worker_at_a_time(
    till: Till, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription_id = await till.buy(shop)
    till.stripe.faults.append(Fault(status=503, body="{}"))
    await till.cancel(shop.owner)
    till.travel(hours=2)
    cancel = till.providers["stripe"].cancel
    asking: list[str] = []
    answered = asyncio.Event()

    async def slow(ref: str, *, at_period_end: bool) -> None:
        if ref == subscription_id:
            asking.append(ref)
            await answered.wait()
        await cancel(ref, at_period_end=at_period_end)

    monkeypatch.setattr(till.providers["stripe"], "cancel", slow)
    workers = [asyncio.create_task(till.billing.sweep()) for _ in range(4)]
    # The provider answers only when each of the others has asked as well, or has found nothing left to do.
    await until(lambda: sum(worker.done() for worker in workers) + len(asking) == len(workers))
    answered.set()
    await asyncio.gather(*workers)
    assert asking == [subscription_id]
    assert till.stripe.subscriptions[subscription_id]["cancel_at_period_end"]


async def test_a_subscription_that_the_provider_does_not_know(till: Till, shop: Shop) -> None:
    await till.buy(shop)
    row = await till.subscription(shop)
    await till.change(Subscription, row.id, external_subscription_id="sub_forgotten")
    await till.cancel(shop.owner)
    (order,) = await till.orders(shop)
    assert (order.done_at, order.refused_at is not None) == (None, True)
    assert order.last_error == "The payment provider refused the request"
    assert (await till.audit(shop))[-1] == "provider_instruction.refused"


@asynccontextmanager
async def refusing(till: Till) -> AsyncIterator[None]:
    """Let Stripe refuse whatever it is asked, as it does while a schedule manages a subscription."""
    till.stripe.always = Fault(status=400, body='{"error": {"type": "invalid_request_error", "message": "managed"}}')
    try:
        yield
    finally:
        till.stripe.always = None


async def test_a_stop_that_is_refused_alerts_once_and_is_told_every_day(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    async with till.units(PLATFORM) as uow:
        (await uow.session.get_one(User, shop.owner.user_id)).is_superuser = True
    async with refusing(till):
        await till.cancel(shop.owner)
        for _ in range(2):
            till.travel(days=1, minutes=1)
            await till.billing.sweep()
    assert not till.stripe.subscriptions[subscription_id]["cancel_at_period_end"]
    (order,) = await till.orders(shop)
    assert (order.attempts, order.done_at) == (3, None)
    titles = [note.title for note in await till.notifications(shop)]
    assert titles.count("Payment provider refuses an order") == 1
    async with till.units(PLATFORM) as uow:
        subject = OutboundMail.subject == "Payment provider refuses an order"
        written = await uow.session.scalars(select(OutboundMail.body).where(subject))
        assert len([body for body in written if subscription_id in body]) == 1
    till.travel(days=1, minutes=1)
    await till.billing.sweep()
    assert till.stripe.subscriptions[subscription_id]["cancel_at_period_end"]
    assert (await till.orders(shop))[0].done_at is not None


async def test_a_refused_stop_that_was_taken_back_is_not_told_again(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    async with refusing(till):
        await till.cancel(shop.owner)
    await till.billing.reinstate(shop.owner, trace=RequestTrace())
    till.travel(days=1, minutes=1)
    await till.billing.sweep()
    assert not till.stripe.subscriptions[subscription_id]["cancel_at_period_end"]
    assert all(order.done_at for order in await till.orders(shop))


async def test_what_is_charged_after_the_end_is_owed(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    async with refusing(till):
        await till.cancel(shop.owner, at_period_end=False)
    till.travel(days=31)
    await till.take(*till.stripe.renew(subscription_id))
    assert (await till.subscription(shop)).status is SubscriptionStatus.CANCELLED
    (credit,) = await till.credits(shop)
    assert (credit.reason, credit.amount) == (CreditReason.SUPERSEDED, Decimal("49.99"))


async def test_a_provider_that_was_taken_away(till: Till, shop: Shop) -> None:
    await till.buy(shop)
    stripe = till.providers.pop("stripe")
    await till.cancel(shop.owner)
    (order,) = await till.orders(shop)
    assert (order.done_at, order.last_error) == (None, "provider unavailable")
    till.providers["stripe"] = stripe
    till.travel(hours=2)
    await till.billing.sweep()
    (order,) = await till.orders(shop)
    assert order.done_at is not None


async def test_the_sandbox_is_told_as_well(till: Till, shop: Shop) -> None:
    await press_sandbox(till, shop, "pay")
    await till.cancel(shop.owner)
    (order,) = await till.orders(shop)
    assert (order.provider, order.last_error, order.done_at is not None) == ("sandbox", None, True)


async def test_two_cancellations_at_once(till: Till, shop: Shop) -> None:
    await till.buy(shop)
    outcomes = await asyncio.gather(
        *(till.cancel(shop.owner, at_period_end=False) for _ in range(4)), return_exceptions=True
    )
    assert sum(isinstance(outcome, SubscriptionOver) for outcome in outcomes) == 3
    assert len(await till.orders(shop)) == 1


async def test_nothing_is_open_while_the_provider_is_told(
    till: Till, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await till.buy(shop)
    open_units = 0
    seen: list[int] = []
    whole = UnitOfWorkFactory.__call__
    cancel = till.providers["stripe"].cancel

    @asynccontextmanager
    async def counted(
        factory: UnitOfWorkFactory, scope: Scope, *, trace: RequestTrace | None = None
    ) -> AsyncIterator[UnitOfWork]:
        nonlocal open_units
        open_units += 1
        try:
            async with whole(factory, scope, trace=trace) as uow:
                yield uow
        finally:
            open_units -= 1

    async def watched(ref: str, *, at_period_end: bool) -> None:
        seen.append(open_units)
        await cancel(ref, at_period_end=at_period_end)

    monkeypatch.setattr(UnitOfWorkFactory, "__call__", counted)
    monkeypatch.setattr(till.providers["stripe"], "cancel", watched)
    await till.cancel(shop.owner)
    assert seen == [0]


async def test_the_decision_outlives_the_providers_echo(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    view = await till.cancel(shop.owner, reason="moving on")
    till.travel(seconds=2)
    await till.take(till.stripe._event("customer.subscription.updated", till.stripe.subscriptions[subscription_id]))
    after = await till.view(shop.owner)
    assert (after.cancel_at_period_end, after.cancelled_at, after.cancel_reason) == (
        True,
        view.cancelled_at,
        "moving on",
    )
    till.travel(days=31)
    await till.billing.sweep()
    assert (await till.subscription(shop)).status is SubscriptionStatus.CANCELLED
    assert (await till.subscription(shop)).cancelled_at == view.cancelled_at
    assert view.current_period_end - view.current_period_start > timedelta(days=27)
