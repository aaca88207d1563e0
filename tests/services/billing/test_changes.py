"""Changing the plan: at once for the difference, within a trial, and who may."""

import itertools
from datetime import timedelta
from decimal import Decimal

import pytest

from core.errors import InvalidInput
from models.billing import BillingPeriod, CreditReason, Plan, SubscriptionStatus
from services.billing.actions import Action
from services.billing.errors import (
    AlreadySubscribed,
    CancellationPending,
    PaymentOverdue,
)
from services.identity import RoleRequired
from services.unit_of_work import RequestTrace
from tests.fakes.stripe_api import Fault
from tests.support.billing import Shop, Till, moment, press_sandbox
from tests.support.changing import change, halfway, order, pay, preview
from tests.support.stalls import open_stall

DAY = timedelta(days=1)


class TestUpgrade:
    async def test_the_difference_for_the_rest_is_paid_and_the_plan_begins(self, till: Till, shop: Shop) -> None:
        subscription_id = await till.buy(shop, plan="starter")
        before = await till.subscription(shop)
        await halfway(till, shop)
        quoted = await preview(till, shop.owner, "business")
        # Half of 99.00 less half of 19.99.
        assert (quoted.effect, quoted.currency) == ("payment", "USD")
        assert abs(quoted.amount - Decimal("39.51")) <= Decimal("0.01")
        view = await change(till, shop.owner, "business")
        session = till.stripe.sessions[view.session_id or ""]
        assert (session["mode"], session["amount_total"]) == ("payment", int(view.amount * 100))
        assert session["customer"] == till.stripe.subscriptions[subscription_id]["customer"]
        # Nothing is activated before it is paid.
        assert (await till.view(shop.owner)).plan.slug == "starter"
        await till.take(*await pay(till, view))
        now = await till.view(shop.owner)
        assert (now.plan.slug, now.amount, now.status) == ("business", Decimal("99.00"), SubscriptionStatus.ACTIVE)
        after = await till.subscription(shop)
        assert (after.current_period_start, after.current_period_end, after.external_subscription_id) == (
            before.current_period_start,
            before.current_period_end,
            before.external_subscription_id,
        )
        # The provider charges the new price from the next period on, and nothing for this one.
        assert till.stripe.subscriptions[subscription_id]["items"]["data"][0]["price"]["unit_amount"] == 9900
        assert [payment.amount for payment in await till.payments(shop)] == [Decimal("19.99"), view.amount]
        assert (await till.audit(shop)).count("subscription.plan_changed") == 1
        till.travel(days=16)
        await till.take(*till.stripe.renew(subscription_id))
        renewed = await till.subscription(shop)
        assert (await till.payments(shop))[-1].amount == Decimal("99.00")
        assert renewed.current_period_end > after.current_period_end

    async def test_a_checkout_for_a_dearer_plan_is_an_upgrade(self, till: Till, shop: Shop) -> None:
        await till.buy(shop, plan="starter")
        await halfway(till, shop)
        view = await till.checkout(shop.owner, plan="business")
        assert till.stripe.sessions[view.session_id]["mode"] == "payment"
        assert till.stripe.sessions[view.session_id]["amount_total"] < 4000

    async def test_a_year_begins_at_once_and_the_months_rest_counts(self, till: Till, shop: Shop) -> None:
        subscription_id = await till.buy(shop, plan="professional")
        await halfway(till, shop)
        began = till.now
        view = await change(till, shop.owner, "professional", BillingPeriod.YEARLY)
        assert abs(view.amount - (Decimal("499.99") - Decimal("24.995"))) <= Decimal("0.01")
        await till.take(*await pay(till, view))
        subscription = await till.subscription(shop)
        assert subscription.billing_period is BillingPeriod.YEARLY
        assert abs(subscription.current_period_start - began) < timedelta(minutes=1)
        assert subscription.current_period_end - subscription.current_period_start >= 365 * DAY
        stripes = till.stripe.subscriptions[subscription_id]
        # Stripe waits with the next charge until the year is over, and calls that a trial.
        assert stripes["status"] == "trialing"
        assert moment(stripes["trial_end"]) == subscription.current_period_end.replace(microsecond=0)
        await till.take(till.stripe._event("customer.subscription.updated", stripes))
        assert (await till.subscription(shop)).status is SubscriptionStatus.ACTIVE

    async def test_a_year_is_charged_once_whatever_was_told_of_the_month(self, till: Till, shop: Shop) -> None:
        subscription_id = await till.buy(shop, plan="professional")
        await halfway(till, shop)
        view = await change(till, shop.owner, "professional", BillingPeriod.YEARLY)
        paid = await pay(till, view)
        # Stripe tells of the month a minute later, and this is heard before the payment is, and again after it.
        stripes = till.stripe.subscriptions[subscription_id]
        for _ in range(2):
            till.travel(minutes=1)
            await till.take(till.stripe._event("customer.subscription.updated", stripes))
            if (await till.subscription(shop)).billing_period is BillingPeriod.MONTHLY:
                till.stripe.always = Fault(status=503)
                await till.take(*paid)
                till.stripe.always = None
        year = await till.subscription(shop)
        assert year.current_period_end - moment(paid[-1]["created"]) >= 365 * DAY
        till.travel(hours=2)
        await till.billing.sweep()
        (reprice,) = await till.orders(shop)
        assert (reprice.charge_from, reprice.done_at is not None) == (year.current_period_end, True)
        assert moment(stripes["trial_end"]) == year.current_period_end.replace(microsecond=0)

    async def test_steps_of_one_period_add_up_to_the_cent(self, till: Till, shop: Shop) -> None:
        await till.buy(shop, plan="starter")
        subscription = await till.subscription(shop)
        start, end = subscription.current_period_start, subscription.current_period_end
        marks = [start]
        for plan in ("professional", "business"):
            till.travel(days=7, hours=5, minutes=13)
            view = await change(till, shop.owner, plan)
            marks.append((await till.checkouts(shop))[-1].created_at)
            await till.take(*await pay(till, view))
        marks.append(end)
        prices = (Decimal("19.99"), Decimal("49.99"), Decimal("99.00"))
        worth = sum(
            price * Decimal((to - at) / (end - start)) for price, at, to in zip(prices, marks, marks[1:], strict=False)
        )
        paid = sum((payment.amount for payment in await till.payments(shop)), Decimal(0))
        assert abs(paid - worth) < Decimal("0.01")

    async def test_by_a_provider_that_does_not_charge_by_itself(self, till: Till, shop: Shop) -> None:
        await press_sandbox(till, shop, "pay", plan="starter")
        await halfway(till, shop)
        await press_sandbox(till, shop, "pay", plan="business")
        view = await till.view(shop.owner)
        assert (view.plan.slug, view.amount) == ("business", Decimal("99.00"))
        _, second = await till.payments(shop)
        assert abs(second.amount - Decimal("39.51")) <= Decimal("0.01")
        # The next payment for the plan adds a whole period at the whole price.
        end = (await till.subscription(shop)).current_period_end
        till.travel(minutes=1)
        await press_sandbox(till, shop, "pay", plan="business")
        assert (await till.payments(shop))[-1].amount == Decimal("99.00")
        assert (await till.subscription(shop)).current_period_end > end + 27 * DAY
        assert await till.orders(shop) == []


class TestMoneyThatBoughtNothing:
    async def test_two_upgrades_paid_at_once_in_any_order(self, till: Till) -> None:
        for is_reversed in (False, True):
            shop = await till.shop()
            await till.buy(shop, plan="starter")
            await halfway(till, shop)
            first = await change(till, shop.owner, "professional")
            second = await change(till, shop.owner, "business")
            told = [await pay(till, first)]
            till.travel(minutes=1)
            told.append(await pay(till, second))
            for events in reversed(told) if is_reversed else told:
                await till.take(*events)
            assert (await till.view(shop.owner)).plan.slug == "professional"
            (credit,) = await till.credits(shop)
            assert (credit.reason, credit.amount) == (CreditReason.SUPERSEDED, second.amount)
            assert await till.balance(shop, "credits") == -second.amount
            assert await till.balance(shop, "revenue") == -(Decimal("19.99") + first.amount)

    async def test_a_change_paid_after_the_period(self, till: Till, shop: Shop) -> None:
        subscription_id = await till.buy(shop, plan="starter")
        subscription = await till.subscription(shop)
        till.clock.offset += subscription.current_period_end - till.now - timedelta(hours=1)
        view = await change(till, shop.owner, "business")
        till.travel(hours=2)
        await till.take(*till.stripe.renew(subscription_id))
        await till.take(*await pay(till, view))
        assert (await till.view(shop.owner)).plan.slug == "starter"
        (credit,) = await till.credits(shop)
        assert credit.amount == view.amount

    @pytest.mark.parametrize("name", ["stripe", "sandbox"])
    async def test_a_change_paid_after_the_end_is_owed_for_good(self, till: Till, shop: Shop, name: str) -> None:
        async with open_stall(till, name) as stall:
            await stall.take(stall.harness.paid(await stall.begin(shop, plan="starter")))
            await halfway(till, shop)
            opened = await stall.begin(shop, plan="business")
            # Stripe does not hear in time that the page is to be closed, and the sandbox cannot close it.
            till.stripe.always = Fault(status=503)
            await till.cancel(shop.owner, at_period_end=False)
            till.stripe.always = None
            till.travel(minutes=1)
            await stall.take(stall.harness.paid(opened))
            over = await till.subscription(shop)
            assert (over.status, (await till.view(shop.owner)).plan.slug) == (SubscriptionStatus.CANCELLED, "starter")
            (_, change) = await till.checkouts(shop)
            (credit,) = await till.credits(shop)
            assert (credit.reason, credit.amount) == (CreditReason.SUPERSEDED, change.amount)
            assert await till.balance(shop, "revenue") == -Decimal("19.99")
            titles = [note.title for note in await till.notifications(shop)]
            assert titles.count("Payment without a plan") == 2
            # Also once another subscription has begun, by which the end of this one is forgotten.
            till.travel(minutes=1)
            await stall.take(stall.harness.paid(await stall.begin(shop, plan="professional")))
            assert (await till.view(shop.owner)).status is SubscriptionStatus.ACTIVE
            assert credit.id in [row.id for row in await till.credits(shop)]

    async def test_a_change_paid_before_the_end_and_heard_of_after_it(self, till: Till, shop: Shop) -> None:
        await till.buy(shop, plan="starter")
        await halfway(till, shop)
        paid = await pay(till, await change(till, shop.owner, "business"))
        till.travel(minutes=1)
        await till.cancel(shop.owner, at_period_end=False)
        await till.take(*paid)
        assert await till.credits(shop) == []

    async def test_cancelling_at_once_closes_the_pages(self, till: Till, shop: Shop) -> None:
        await till.buy(shop, plan="starter")
        await halfway(till, shop)
        opened = await change(till, shop.owner, "business")
        await till.cancel(shop.owner)
        assert till.stripe.sessions[opened.session_id or ""]["status"] == "open"
        await till.cancel(shop.owner, at_period_end=False)
        assert till.stripe.sessions[opened.session_id or ""]["status"] == "expired"

    async def test_a_change_paid_after_the_provider_ended_it_in_any_order(self, till: Till) -> None:
        for is_reversed in (False, True):
            shop = await till.shop()
            subscription_id = await till.buy(shop, plan="starter")
            await halfway(till, shop)
            view = await change(till, shop.owner, "business")
            ended = till.stripe.end_subscription(subscription_id)
            till.travel(minutes=1)
            told = [ended, await pay(till, view)]
            for events in reversed(told) if is_reversed else told:
                await till.take(*events)
            assert (await till.subscription(shop)).status is SubscriptionStatus.CANCELLED
            (credit,) = await till.credits(shop)
            assert credit.amount == view.amount

    async def test_every_order_of_an_upgrade_and_a_renewal(self, till: Till) -> None:
        plans = set()
        for order_of in itertools.permutations(range(3)):
            shop = await till.shop()
            subscription_id = await till.buy(shop, plan="starter")
            await halfway(till, shop)
            view = await change(till, shop.owner, "business")
            (_, completed) = await pay(till, view)
            till.travel(days=17)
            renewal = till.stripe.renew(subscription_id)
            told = [completed, renewal[1], renewal[-1]]
            await till.take(*(told[place] for place in order_of))
            state = await till.view(shop.owner)
            subscription = await till.subscription(shop)
            length = subscription.current_period_end - subscription.current_period_start
            plans.add((state.plan.slug, state.amount, state.status, length > 27 * DAY))
            assert await till.credits(shop) == []
        assert plans == {("business", Decimal("99.00"), SubscriptionStatus.ACTIVE, True)}


class TestTrial:
    async def test_another_plan_at_once_for_nothing(self, till: Till, shop: Shop) -> None:
        ends_at = (await till.subscription(shop)).trial_ends_at
        view = await till.billing.change_plan(
            shop.owner, await order(till, "business", pays=False), trace=RequestTrace()
        )
        assert (view.effect, view.subscription.status) == ("now", SubscriptionStatus.TRIAL)
        subscription = await till.subscription(shop)
        assert (subscription.trial_ends_at, (await till.view(shop.owner)).plan.slug) == (ends_at, "business")
        assert await till.payments(shop) == []

    async def test_a_trial_that_is_to_end_is_bought_or_reinstated(self, till: Till, shop: Shop) -> None:
        await till.cancel(shop.owner)
        assert Action.CHANGE_PLAN not in (await till.view(shop.owner)).available_actions
        with pytest.raises(CancellationPending):
            await change(till, shop.owner, "starter")
        assert (await till.view(shop.owner)).plan.slug == "trial"
        await till.buy(shop, plan="starter")
        view = await till.view(shop.owner)
        assert (view.plan.slug, view.cancel_at_period_end) == ("starter", False)

    async def test_a_plan_without_a_trial_must_be_bought(self, till: Till, shop: Shop) -> None:
        plan = await till.plan("business")
        await till.change(Plan, plan.id, trial_days=0)
        try:
            assert (await preview(till, shop.owner, "business")).effect == "checkout"
            with pytest.raises(InvalidInput):
                await till.billing.change_plan(
                    shop.owner, await order(till, "business", pays=False), trace=RequestTrace()
                )
        finally:
            await till.change(Plan, plan.id, trial_days=14)

    async def test_buying_always_takes_the_plan_that_was_bought(self, till: Till, shop: Shop) -> None:
        await change(till, shop.owner, "business")
        await till.buy(shop, plan="starter")
        assert (await till.view(shop.owner)).plan.slug == "starter"


async def test_who_may_and_what_is_refused(till: Till, shop: Shop) -> None:
    with pytest.raises(RoleRequired):
        await change(till, shop.member, "business")
    with pytest.raises(RoleRequired):
        await till.billing.reinstate(shop.admin, trace=RequestTrace())
    subscription_id = await till.buy(shop)
    with pytest.raises(AlreadySubscribed):
        await change(till, shop.owner, "professional")
    till.travel(days=31)
    await till.take(*till.stripe.renew(subscription_id, paid=False))
    with pytest.raises(PaymentOverdue):
        await change(till, shop.owner, "business")
