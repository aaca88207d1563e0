"""With every webhook lost, ten minutes later our state is the provider's (issue 5, part 9)."""

from decimal import Decimal
from typing import Any

import pytest

from models.billing import CheckoutState, CreditReason, PaymentEventType, SubscriptionStatus
from models.journal import Account
from providers.payments import CheckoutCreated
from services.billing.journal import balances
from tests.services.billing.test_every_provider import ACTIVE, PRICE, ended, owed
from tests.support.billing import PLATFORM, Shop, Till
from tests.support.reconciling import Watch, open_watch
from tests.support.stalls import Stall

pytestmark = pytest.mark.embedded


@pytest.fixture
async def watch(till: Till) -> Watch:
    return await open_watch(till)


async def moved(till: Till, shop: Shop) -> list[tuple[PaymentEventType, Decimal]]:
    return [(row.event_type, row.amount) for row in await till.payments(shop)]


async def assert_settled(watch: Watch, shop: Shop, name: str) -> None:
    """Look for another ten minutes, and at everything: nothing changes any more, and nobody audits anything."""
    till = watch.till
    before = await till.state(shop), await till.audit(shop), len(till.heard(shop, "payment:received"))
    await watch.pass_minutes(10)
    await watch.swept(name)
    again = await watch.swept(name)
    assert (again.state, again.found, again.changed) == ("done", 0, 0)
    assert (await till.state(shop), await till.audit(shop), len(till.heard(shop, "payment:received"))) == before


async def test_a_purchase(till: Till, shop: Shop, stall: Stall, watch: Watch) -> None:
    stall.harness.paid(await stall.begin(shop))
    await watch.pass_minutes(10)
    assert await ended(till, shop) == ACTIVE
    assert len(till.heard(shop, "payment:received")) == 1
    assert "payment.reconciled" in await till.audit(shop)
    await assert_settled(watch, shop, stall.name)


async def test_a_payment_that_failed(till: Till, shop: Shop, stall: Stall, watch: Watch) -> None:
    stall.harness.declined(await stall.begin(shop))
    await watch.pass_minutes(10)
    assert await ended(till, shop) == (SubscriptionStatus.TRIAL, CheckoutState.FAILED, [])
    assert [kind for kind, _ in await moved(till, shop)] == [PaymentEventType.PAYMENT_FAILED]
    await assert_settled(watch, shop, stall.name)


async def test_a_purchase_of_the_day_before(till: Till, shop: Shop, stall: Stall, watch: Watch) -> None:
    """Between two polls only the provider's list can tell."""
    created = await stall.begin(shop)
    await watch.pass_minutes(7)
    till.travel(hours=1, minutes=-10)
    await watch.look()
    stall.harness.paid(created)
    await watch.pass_minutes(10)
    assert await ended(till, shop) == ACTIVE


async def refunded_at(stall: Stall, created: CheckoutCreated) -> Any:
    """Give ten dollars back at the provider, behind our back."""
    fake, session_id = stall.fake, created.session_id
    if stall.name == "liqpay":
        fake.give_back(session_id, 10)
    elif stall.name == "paypal":
        order = fake.orders[session_id]
        (capture,) = order["purchase_units"][0]["payments"]["captures"]
        fake._refund(order, capture, {"amount": {"value": "10.00", "currency_code": "USD"}})
    else:
        fake._refund(fake.checkouts[session_id], {"amount": "10.00", "currency": "USD"})
        fake.complete_refunds(session_id)


@pytest.mark.parametrize("stall", ["liqpay", "paypal", "coinbase_business"], indirect=True)
async def test_a_refund_of_last_week(till: Till, shop: Shop, stall: Stall, watch: Watch) -> None:
    created = await stall.begin(shop)
    stall.harness.paid(created)
    await watch.pass_minutes(10)
    till.travel(days=7)
    await watch.look()
    await refunded_at(stall, created)
    await watch.pass_minutes(10)
    assert await moved(till, shop) == [
        (PaymentEventType.PAYMENT_SUCCESS, PRICE),
        (PaymentEventType.REFUND, Decimal("10.00")),
    ]
    async with till.units(PLATFORM) as uow:
        held = await balances(uow, shop.tenant_id)
    assert held[Account.REFUNDS, "USD"] == Decimal("10.00")
    await assert_settled(watch, shop, stall.name)


@pytest.mark.parametrize("stall", ["paypal"], indirect=True)
@pytest.mark.parametrize("outcome", ["RESOLVED_SELLER_FAVOUR", "RESOLVED_BUYER_FAVOUR"])
async def test_a_dispute(till: Till, shop: Shop, stall: Stall, watch: Watch, outcome: str) -> None:
    created = await stall.begin(shop)
    stall.harness.paid(created)
    await watch.pass_minutes(10)
    stall.fake.dispute(created.session_id)
    await watch.pass_minutes(10)
    assert (PaymentEventType.CHARGEBACK, PRICE) in await moved(till, shop)
    stall.fake.dispute(created.session_id, outcome=outcome)
    await watch.pass_minutes(10)
    (dispute,) = [row for row in await till.payments(shop) if row.event_type is PaymentEventType.CHARGEBACK]
    assert dispute.event_metadata["outcome"] == ("won" if "SELLER" in outcome else "lost")
    await assert_settled(watch, shop, stall.name)


@pytest.mark.parametrize("stall", ["btcpay"], indirect=True)
async def test_coins_in_parts_and_late(till: Till, shop: Shop, stall: Stall, watch: Watch) -> None:
    created = await stall.begin(shop)
    stall.fake.pay(created.session_id, "0.4")
    await watch.pass_minutes(10)
    (checkout,) = await till.checkouts(shop)
    assert (checkout.state, checkout.received) == (CheckoutState.PENDING, Decimal("20.00"))
    till.travel(hours=2)
    stall.fake.expire(created.session_id)
    await watch.pass_minutes(10)
    assert await ended(till, shop) == (SubscriptionStatus.TRIAL, CheckoutState.UNDERPAID, [])
    assert await owed(till, shop) == [(CreditReason.UNDERPAID, Decimal("20.00"))]
    stall.fake.pay(created.session_id, "0.9")
    await watch.pass_minutes(10)
    assert await ended(till, shop) == ACTIVE
    assert [reason for reason, _ in await owed(till, shop)] == [CreditReason.OVERPAID]
    await assert_settled(watch, shop, stall.name)


@pytest.mark.parametrize("stall", ["liqpay", "paypal"], indirect=True)
async def test_our_own_clock_ends_what_nobody_paid(till: Till, shop: Shop, stall: Stall, watch: Watch) -> None:
    """Their providers do not say when a page has closed."""
    await stall.begin(shop)
    await watch.pass_minutes(6)
    till.travel(hours=1)
    await watch.look()
    till.travel(days=1)
    await watch.look()
    assert await ended(till, shop) == (SubscriptionStatus.TRIAL, CheckoutState.EXPIRED, [])
    assert "checkout.expired" in await till.audit(shop)


class TestStripe:
    """Stripe charges by itself, so there is more to be missed."""

    async def bought(self, till: Till, shop: Shop, watch: Watch) -> str:
        view = await till.checkout(shop.owner)
        till.stripe.pay_checkout(view.session_id)
        await watch.pass_minutes(10)
        subscription_id: str = till.stripe.sessions[view.session_id]["subscription"]
        return subscription_id

    async def test_a_purchase(self, till: Till, shop: Shop, watch: Watch) -> None:
        await self.bought(till, shop, watch)
        assert await ended(till, shop) == ACTIVE
        assert [bill.status for bill in await till.bills(shop)] == ["paid"]
        assert len(till.heard(shop, "payment:received")) == 1
        await assert_settled(watch, shop, "stripe")

    async def test_a_slow_payment_that_failed(self, till: Till, shop: Shop, watch: Watch) -> None:
        view = await till.checkout(shop.owner)
        till.stripe.pay_checkout(view.session_id, delayed=True)
        await watch.pass_minutes(10)
        assert (await till.checkouts(shop))[0].state is CheckoutState.PROCESSING
        till.stripe.settle_checkout(view.session_id, arrives=False)
        await watch.pass_minutes(10)
        assert await ended(till, shop) == (SubscriptionStatus.TRIAL, CheckoutState.FAILED, [])

    async def test_renewals_and_the_end(self, till: Till, shop: Shop, watch: Watch) -> None:
        subscription_id = await self.bought(till, shop, watch)
        first_end = (await till.subscription(shop)).current_period_end
        till.travel(days=31)
        await watch.look()
        till.stripe.renew(subscription_id)
        await watch.pass_minutes(10)
        subscription = await till.subscription(shop)
        assert subscription.status is SubscriptionStatus.ACTIVE
        assert subscription.current_period_end > first_end
        till.travel(days=31)
        await watch.look()
        till.stripe.renew(subscription_id, paid=False)
        await watch.pass_minutes(10)
        assert (await till.subscription(shop)).status is SubscriptionStatus.PAST_DUE
        till.stripe.end_subscription(subscription_id)
        await watch.pass_minutes(10)
        assert (await till.subscription(shop)).status is SubscriptionStatus.CANCELLED
        assert [kind for kind, _ in await moved(till, shop)] == [
            PaymentEventType.PAYMENT_SUCCESS,
            PaymentEventType.PAYMENT_SUCCESS,
            PaymentEventType.PAYMENT_FAILED,
        ]
        await assert_settled(watch, shop, "stripe")

    async def test_refunds_and_disputes(self, till: Till, shop: Shop, watch: Watch) -> None:
        charge = till.stripe.charge_of(await self.bought(till, shop, watch))
        till.stripe.refund(charge["id"], 1000)
        till.stripe.open_dispute(charge["id"])
        await watch.pass_minutes(10)
        (dispute_id,) = till.stripe.disputes
        till.stripe.close_dispute(dispute_id, "won")
        await watch.pass_minutes(10)
        async with till.units(PLATFORM) as uow:
            held = await balances(uow, shop.tenant_id)
        assert {account: amount for (account, _), amount in held.items() if amount} == {
            Account.CASH: PRICE - 10 - Decimal("1.75"),
            # 2.9 % and 30 cents of the charge; that of the dispute was given back.
            Account.FEES: Decimal("1.75"),
            Account.REVENUE: -PRICE,
            Account.REFUNDS: Decimal(10),
        }
        await assert_settled(watch, shop, "stripe")


async def test_a_change_of_plan_at_stripe(till: Till, shop: Shop, watch: Watch) -> None:
    await till.buy(shop, plan="starter")
    till.travel(days=5)
    await watch.look()
    view = await till.checkout(shop.owner, plan="business")
    till.stripe.pay_checkout(view.session_id)
    await watch.pass_minutes(10)
    assert (await till.view(shop.owner)).plan.slug == "business"
    # The order of ours that the payment led to is told in the provider's next list, and changes nothing any more.
    await watch.pass_minutes(5)
    await assert_settled(watch, shop, "stripe")
