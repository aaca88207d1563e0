"""What waits for the end of the period: a cheaper plan, and an end that is taken back."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest

from models.billing import BillingPeriod, SubscriptionStatus
from services.billing.actions import Action
from services.billing.errors import (
    CancellationPending,
    ChangeAtPeriodEnd,
    NotEnding,
    NothingPending,
    SubscriptionOver,
)
from services.unit_of_work import RequestTrace
from tests.fakes.stripe_api import Fault
from tests.support.billing import Shop, Till
from tests.support.changing import change, halfway, order, pay, preview
from tests.support.reconciling import open_watch

DAY = timedelta(days=1)


class TestDowngrade:
    async def test_waits_for_the_periods_end(self, till: Till, shop: Shop) -> None:
        subscription_id = await till.buy(shop, plan="business")
        with pytest.raises(ChangeAtPeriodEnd):
            await till.checkout(shop.owner, plan="starter")
        view = await till.billing.change_plan(
            shop.owner, await order(till, "starter", pays=False), trace=RequestTrace()
        )
        assert (view.effect, view.amount, view.checkout_url) == ("period_end", Decimal(0), None)
        pending = (await till.view(shop.owner)).pending_change
        assert pending is not None
        assert (pending.plan, pending.amount) == ("starter", Decimal("19.99"))
        price = till.stripe.subscriptions[subscription_id]["items"]["data"][0]["price"]
        assert price["unit_amount"] == 1999
        till.clock.offset += pending.effective_at - till.now - timedelta(minutes=1)
        await till.billing.sweep()
        assert (await till.view(shop.owner)).plan.slug == "business"
        till.travel(minutes=1)
        await asyncio.gather(*(till.billing.sweep() for _ in range(3)))
        now = await till.view(shop.owner)
        assert (now.plan.slug, now.amount, now.pending_change) == ("starter", Decimal("19.99"), None)
        assert (await till.audit(shop)).count("subscription.plan_changed") == 1
        await till.take(*till.stripe.renew(subscription_id))
        assert (await till.payments(shop))[-1].amount == Decimal("19.99")
        assert (await till.view(shop.owner)).status is SubscriptionStatus.ACTIVE

    @pytest.mark.parametrize("plan", ["starter", "business"], ids=["cheaper", "dearer"])
    async def test_of_what_is_to_end_waits_until_it_is_reinstated(self, till: Till, shop: Shop, plan: str) -> None:
        await till.buy(shop)
        await till.cancel(shop.owner)
        before, heard = await till.state(shop), len(till.ears.events)
        offered = (await till.view(shop.owner)).available_actions
        assert {Action.CHANGE_PLAN, Action.REINSTATE} & set(offered) == {Action.REINSTATE}
        for attempt in (preview(till, shop.owner, plan), change(till, shop.owner, plan)):
            with pytest.raises(CancellationPending):
                await attempt
        with pytest.raises(CancellationPending):
            await till.checkout(shop.owner, plan=plan)
        assert (await till.state(shop), len(till.ears.events)) == (before, heard)
        view = await till.billing.reinstate(shop.owner, trace=RequestTrace())
        assert {Action.CHANGE_PLAN, Action.REINSTATE} & set(view.available_actions) == {Action.CHANGE_PLAN}
        assert (await change(till, shop.owner, plan)).effect == ("period_end" if plan == "starter" else "payment")

    async def test_a_month_that_is_to_come_leaves_the_year_as_it_is(self, till: Till, shop: Shop) -> None:
        subscription_id = await till.buy(shop, plan="professional", period=BillingPeriod.YEARLY)
        await halfway(till, shop)
        year = await till.subscription(shop)
        dearer = await preview(till, shop.owner, "business")
        # Stripe waits in a trial until the month is due, calls that its current period, and bills nothing for it.
        await change(till, shop.owner, "professional", BillingPeriod.MONTHLY)
        stripes = till.stripe.subscriptions[subscription_id]
        assert stripes["status"] == "trialing"
        free = till.stripe._bill(stripes, "subscription_update")
        free.update(amount_due=0, amount_paid=0, amount_remaining=0, status="paid")
        till.travel(minutes=1)
        updated = till.stripe._event("customer.subscription.updated", stripes)
        await till.take(till.stripe._event("invoice.paid", free), updated)
        after = await till.subscription(shop)
        assert (after.status, after.anchor_day) == (SubscriptionStatus.ACTIVE, year.anchor_day)
        assert (after.current_period_start, after.current_period_end) == (
            year.current_period_start,
            year.current_period_end,
        )
        quoted = await preview(till, shop.owner, "business", BillingPeriod.YEARLY)
        assert abs(quoted.amount - dearer.amount) <= Decimal("0.01")
        # Nor does the night find anything.
        watch = await open_watch(till)
        await watch.work()
        assert (await watch.swept("stripe")).changed == 0
        # A longer trial, as somebody may give at Stripe, is served.
        longer = year.current_period_end + 30 * DAY
        stripes["trial_end"] = int(longer.timestamp())
        stripes["items"]["data"][0]["current_period_end"] = int(longer.timestamp())
        till.travel(minutes=1)
        await till.take(till.stripe._event("customer.subscription.updated", stripes))
        after = await till.subscription(shop)
        assert (after.current_period_start, after.current_period_end) == (
            year.current_period_start,
            longer.replace(microsecond=0),
        )

    async def test_is_taken_back(self, till: Till, shop: Shop) -> None:
        subscription_id = await till.buy(shop, plan="business")
        await change(till, shop.owner, "starter")
        view = await till.billing.withdraw_change(shop.owner, trace=RequestTrace())
        assert view.pending_change is None
        price = till.stripe.subscriptions[subscription_id]["items"]["data"][0]["price"]
        assert price["unit_amount"] == 9900
        with pytest.raises(NothingPending):
            await till.billing.withdraw_change(shop.owner, trace=RequestTrace())

    async def test_back_and_forth_makes_no_credit(self, till: Till, shop: Shop) -> None:
        await till.buy(shop, plan="starter")
        for _ in range(3):
            till.travel(days=2)
            view = await change(till, shop.owner, "professional" if (await till.payments(shop))[1:] else "business")
            if view.effect == "payment":
                await till.take(*await pay(till, view))
            await change(till, shop.owner, "starter")
        assert await till.credits(shop) == []
        paid = sum((payment.amount for payment in await till.payments(shop)), Decimal(0))
        assert Decimal("19.99") < paid <= Decimal("99.01")

    async def test_instructions_reach_the_provider_in_their_order(self, till: Till, shop: Shop) -> None:
        subscription_id = await till.buy(shop, plan="business")
        till.stripe.always = Fault(status=503)
        await change(till, shop.owner, "starter")
        await till.billing.withdraw_change(shop.owner, trace=RequestTrace())
        assert [row.done_at for row in await till.orders(shop)] == [None, None]
        till.stripe.always = None
        till.travel(hours=2)
        for _ in range(3):
            await till.billing.sweep()
        assert all(row.done_at is not None for row in await till.orders(shop))
        price = till.stripe.subscriptions[subscription_id]["items"]["data"][0]["price"]
        assert price["unit_amount"] == 9900


class TestReinstate:
    async def test_takes_a_cancellation_back(self, till: Till, shop: Shop) -> None:
        subscription_id = await till.buy(shop)
        await till.cancel(shop.owner)
        end = (await till.subscription(shop)).current_period_end
        view = await till.billing.reinstate(shop.owner, trace=RequestTrace())
        assert (view.cancel_at_period_end, view.cancelled_at, view.current_period_end) == (False, None, end)
        assert till.stripe.subscriptions[subscription_id]["cancel_at_period_end"] is False
        with pytest.raises(NotEnding):
            await till.billing.reinstate(shop.owner, trace=RequestTrace())

    async def test_buying_the_plan_again_does_so_too(self, till: Till, shop: Shop) -> None:
        await till.buy(shop)
        await till.cancel(shop.owner)
        await till.buy(shop)
        assert (await till.view(shop.owner)).cancel_at_period_end is False

    async def test_an_echo_of_the_cancellation_comes_too_late(self, till: Till, shop: Shop) -> None:
        subscription_id = await till.buy(shop)
        await till.cancel(shop.owner)
        echo = till.stripe._event("customer.subscription.updated", till.stripe.subscriptions[subscription_id])
        till.stripe.always = Fault(status=503)
        await till.billing.reinstate(shop.owner, trace=RequestTrace())
        till.stripe.always = None
        await till.take(echo)
        assert (await till.subscription(shop)).cancel_at_period_end is False

    async def test_while_the_provider_has_heard_of_neither_the_last_word_counts(self, till: Till, shop: Shop) -> None:
        subscription_id = await till.buy(shop)
        till.stripe.always = Fault(status=503)
        await till.cancel(shop.owner)
        await till.billing.reinstate(shop.owner, trace=RequestTrace())
        till.stripe.always = None
        till.travel(seconds=5)
        await till.take(till.stripe._event("customer.subscription.updated", till.stripe.subscriptions[subscription_id]))
        assert (await till.subscription(shop)).cancel_at_period_end is False

    async def test_what_is_over_stays_so(self, till: Till, shop: Shop) -> None:
        await till.buy(shop)
        await till.cancel(shop.owner, at_period_end=False)
        with pytest.raises(SubscriptionOver):
            await till.billing.reinstate(shop.owner, trace=RequestTrace())
