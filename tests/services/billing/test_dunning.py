"""What becomes of what is not paid: attempts to collect it, and the end by the plan's policy."""

import asyncio
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import pytest

from core import json
from models.billing import InstructionKind, PastDuePolicy, PaymentEventType, Plan, SubscriptionStatus
from models.dunning import Dunning
from models.tenants import Tenant
from providers.payments import RefundRequest
from tests.support.billing import PLATFORM, Shop, Till, press_sandbox
from tests.support.reconciling import open_watch
from tests.support.stalls import Stall, open_stall

PAUSES = tuple(timedelta(days=days) for days in (2, 5, 7, 7))


async def overdue(till: Till, shop: Shop) -> list[str]:
    return [note.title for note in await till.notifications(shop) if note.title == "Payment overdue"]


async def fail_a_renewal(till: Till, shop: Shop) -> str:
    subscription_id = await till.buy(shop)
    till.travel(days=31)
    await till.take(*till.stripe.renew(subscription_id, paid=False))
    assert (await till.subscription(shop)).status is SubscriptionStatus.PAST_DUE
    return subscription_id


async def give_back(stall: Stall, session_id: str) -> None:
    """Let ten go back of what was paid, and be told of it."""
    fake = stall.fake
    if stall.name == "liqpay":
        fake.give_back(session_id, 10)
        # Of LiqPay's words this is "the date of the payment's edition", which a refund may be as well.
        fake.orders[session_id]["end_date"] = fake.now() * 1000
        await stall.take([json.dumps(fake.orders[session_id])])
        return
    request = RefundRequest(
        refund_id=uuid4(),
        session_id=session_id,
        payment_ref=None,
        amount=Decimal("10.00"),
        currency="USD",
        refunded_before=Decimal(0),
    )
    await stall.harness.provider.refund(request)
    await stall.take([fake.encode(fake.events[-1])])


class TestRetries:
    async def test_the_bill_is_collected_again_after_2_5_7_and_7_days(self, till: Till, shop: Shop) -> None:
        subscription_id = await fail_a_renewal(till, shop)
        bill = till.stripe.subscriptions[subscription_id]["latest_invoice"]
        attempts = []
        for day in range(1, 23):
            till.travel(days=1)
            await till.billing.sweep()
            attempts.append((day, till.stripe.collected.count(bill)))
        made = [day for (day, count), (_, before) in zip(attempts[1:], attempts, strict=False) if count > before]
        assert made == [2, 7, 14, 21]
        assert (await till.audit(shop)).count("subscription.dunned") == 4
        assert (await till.subscription(shop)).status is SubscriptionStatus.EXPIRED
        # One telling to each of two people for each attempt.
        assert len(await overdue(till, shop)) == 8

    async def test_a_declined_renewal_is_told_once(self, till: Till, shop: Shop) -> None:
        subscription_id = await till.buy(shop)
        till.travel(days=31)
        failed = till.stripe.renew(subscription_id, paid=False)
        await till.take(*failed, *failed)
        (event,) = till.heard(shop, "payment:failed")
        assert (event.payload["amount"], event.payload["status"]) == (Decimal("49.99"), "failed")

    async def test_two_sweepers_try_once(self, till: Till, shop: Shop) -> None:
        await fail_a_renewal(till, shop)
        till.travel(days=2)
        await asyncio.gather(*(till.billing.sweep() for _ in range(4)))
        assert len(till.stripe.collected) == 1

    async def test_a_week_of_downtime_is_one_attempt(self, till: Till, shop: Shop) -> None:
        await fail_a_renewal(till, shop)
        till.travel(days=9)
        await till.billing.sweep()
        await till.billing.sweep()
        assert len(till.stripe.collected) == 1
        assert (await till.subscription(shop)).dunned == 2

    async def test_a_payment_ends_it(self, till: Till, shop: Shop) -> None:
        subscription_id = await fail_a_renewal(till, shop)
        till.travel(days=2)
        await till.billing.sweep()
        invoice = till.stripe.invoices[till.stripe.subscriptions[subscription_id]["latest_invoice"]]
        till.stripe.subscriptions[subscription_id]["status"] = "active"
        updated = till.stripe._event("customer.subscription.updated", till.stripe.subscriptions[subscription_id])
        await till.take(*till.stripe._settle(invoice), updated)
        subscription = await till.subscription(shop)
        assert (subscription.status, subscription.overdue_since, subscription.dunned) == (
            SubscriptionStatus.ACTIVE,
            None,
            0,
        )
        till.travel(days=20)
        await till.billing.sweep()
        assert len(till.stripe.collected) == 1


class TestTheEnd:
    async def test_a_plan_may_cancel_for_good(self, till: Till, shop: Shop) -> None:
        plan = await till.plan()
        await till.change(Plan, plan.id, past_due_policy=PastDuePolicy.CANCEL)
        try:
            subscription_id = await fail_a_renewal(till, shop)
            for _ in range(3):
                till.travel(days=22)
                await till.billing.sweep()
        finally:
            await till.change(Plan, plan.id, past_due_policy=PastDuePolicy.EXPIRE)
        assert (await till.subscription(shop)).status is SubscriptionStatus.CANCELLED
        assert till.stripe.subscriptions[subscription_id]["status"] == "canceled"
        kinds = {row.kind for row in await till.orders(shop)}
        assert kinds == {InstructionKind.COLLECT, InstructionKind.CANCEL_NOW}

    async def test_what_is_over_does_not_fall_due_again(self, till: Till, shop: Shop) -> None:
        watch = await open_watch(till)
        subscription_id = await fail_a_renewal(till, shop)
        for _ in range(3):
            till.travel(days=22)
            await till.billing.sweep()
        assert (await till.subscription(shop)).status is SubscriptionStatus.EXPIRED
        # Stripe goes on trying and tells so, to whoever asks as well.
        stripes = till.stripe.subscriptions[subscription_id]
        assert stripes["status"] == "past_due"
        await till.take(till.stripe._event("customer.subscription.updated", stripes))
        await watch.work()
        assert (await watch.swept("stripe")).changed == 0
        over = await till.subscription(shop)
        assert (over.status, over.overdue_since) == (SubscriptionStatus.EXPIRED, None)
        # What it collects in the end still counts.
        till.travel(minutes=1)
        stripes["status"] = "active"
        bill = till.stripe.invoices[stripes["latest_invoice"]]
        await till.take(*till.stripe._settle(bill))
        assert (await till.subscription(shop)).status is SubscriptionStatus.ACTIVE

    async def test_what_is_paid_by_hand_is_served_and_reminded_of(self, till: Till, shop: Shop) -> None:
        await press_sandbox(till, shop, "pay")
        first = await till.subscription(shop)
        till.clock.offset += first.current_period_end - till.now + timedelta(days=5)
        await till.billing.sweep()
        assert (await till.subscription(shop)).status is SubscriptionStatus.PAST_DUE
        till.travel(days=3)
        await till.billing.sweep()
        assert len(await overdue(till, shop)) == 4
        # Who pays within that time pays for the days that were served.
        await press_sandbox(till, shop, "pay")
        second = await till.subscription(shop)
        assert (second.status, second.current_period_start) == (SubscriptionStatus.ACTIVE, first.current_period_end)
        assert second.current_period_end > first.current_period_end + timedelta(days=27)

    @pytest.mark.parametrize("name", ["paypal", "liqpay"])
    async def test_a_refund_of_what_was_paid_before_pays_nothing(self, till: Till, shop: Shop, name: str) -> None:
        async with open_stall(till, name) as stall:
            created = await stall.begin(shop)
            await stall.take(stall.harness.paid(created))
            paid_until = (await till.subscription(shop)).current_period_end
            till.clock.offset += paid_until - till.now + timedelta(days=1)
            await till.billing.sweep()
            lapsed = await till.subscription(shop)
            assert lapsed.status is SubscriptionStatus.PAST_DUE
            for ended in (SubscriptionStatus.PAST_DUE, SubscriptionStatus.EXPIRED):
                if ended is SubscriptionStatus.EXPIRED:
                    for _ in range(3):
                        till.travel(days=22)
                        await till.billing.sweep()
                told = len(till.heard(shop, "subscription:updated"))
                await give_back(stall, created.session_id)
                subscription = await till.subscription(shop)
                assert (subscription.status, subscription.current_period_end) == (ended, paid_until)
                await till.billing.sweep()
                assert (await till.subscription(shop)).status is ended
                assert len(till.heard(shop, "subscription:updated")) == told
            assert lapsed.overdue_since is not None
            refunds = [row.amount for row in await till.payments(shop) if row.event_type is PaymentEventType.REFUND]
            assert sum(refunds) == Decimal("20.00")

    async def test_what_was_given_just_ends(self, till: Till, shop: Shop) -> None:
        async with till.units(PLATFORM) as uow:
            tenant = await uow.session.get_one(Tenant, shop.tenant_id)
            await till.billing.grant(uow, tenant, plan_slug="business", until=uow.now + timedelta(days=3))
        till.travel(days=3)
        await till.billing.sweep()
        assert (await till.subscription(shop)).status is SubscriptionStatus.EXPIRED


def test_attempts_that_were_missed_count_as_one() -> None:
    dunning = Dunning()
    start = datetime.fromisoformat("2026-03-01T00:00:00Z")
    dunning.overdue_since, dunning.dunned = None, 0
    assert not dunning.dun(PAUSES, now=start)
    dunning.note_overdue(is_overdue=True, now=start)
    dunning.note_overdue(is_overdue=True, now=start + timedelta(days=1))
    assert dunning.overdue_since == start
    made = [day for day in range(40) if dunning.dun(PAUSES, now=start + timedelta(days=day))]
    assert made == [2, 7, 14, 21]
    assert not dunning.is_given_up(PAUSES, now=start + timedelta(days=21))
    assert dunning.is_given_up(PAUSES, now=start + timedelta(days=22))
