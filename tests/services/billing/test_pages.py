"""Pages at which a tenant could pay for what it needs no more: closed at their providers."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from models.billing import BillingPeriod, CheckoutKind, CheckoutState, CreditReason, InstructionKind, SubscriptionStatus
from tests.fakes.stripe_api import Fault
from tests.support.billing import PLATFORM, Shop, Till
from tests.support.changing import halfway
from tests.support.stalls import open_stall

pytestmark = pytest.mark.embedded


async def withdraw(till: Till, shop: Shop) -> int:
    """Withdraw what can be withdrawn; returns how many pages that were."""
    instructions = till.billing._instructions
    async with till.units(PLATFORM) as uow:
        given = await instructions.withdraw_pages(uow, shop.tenant_id)
    for instruction_id in given:
        await instructions.carry_out(instruction_id)
    return len(given)


async def test_open_pages_are_closed_once(till: Till, shop: Shop) -> None:
    views = [await till.checkout(shop.owner, plan=plan) for plan in ("starter", "professional")]
    neighbour = await till.checkout((await till.shop()).owner)
    assert await withdraw(till, shop) == 2
    assert {till.stripe.sessions[view.session_id]["status"] for view in views} == {"expired"}
    assert till.stripe.sessions[neighbour.session_id]["status"] == "open"
    assert {row.kind for row in await till.orders(shop) if row.done_at} == {InstructionKind.WITHDRAW}
    # The provider's word about it is on its way.
    assert await withdraw(till, shop) == 0


async def test_a_provider_that_is_away_is_told_again(till: Till, shop: Shop) -> None:
    view = await till.checkout(shop.owner)
    till.stripe.faults.append(Fault(status=503, body="{}"))
    assert await withdraw(till, shop) == 1
    assert till.stripe.sessions[view.session_id]["status"] == "open"
    till.travel(minutes=3)
    await till.billing.sweep()
    assert till.stripe.sessions[view.session_id]["status"] == "expired"


async def test_what_is_paid_in_part_or_over_or_cannot_be_closed_is_left(till: Till, shop: Shop) -> None:
    async with open_stall(till, "btcpay") as btcpay, open_stall(till, "paypal") as paypal:
        await paypal.begin(shop)
        over = await till.checkout(shop.owner)
        await till.take(*till.stripe.expire_checkout(over.session_id))
        created = await btcpay.begin(shop)
        await btcpay.take([btcpay.fake.encode(event) for event in btcpay.fake.pay(created.session_id, "0.4")])
        assert await withdraw(till, shop) == 0
        (part,) = [row for row in await till.checkouts(shop) if row.provider == "btcpay"]
    assert (part.state, part.received) == (CheckoutState.PENDING, Decimal("20.00"))


async def test_paying_one_page_closes_the_others(till: Till, shop: Shop) -> None:
    first = await till.checkout(shop.owner)
    second = await till.checkout(shop.owner, plan="starter")
    await till.take(*till.stripe.pay_checkout(second.session_id))
    assert till.stripe.sessions[first.session_id]["status"] == "expired"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["in their order", "the later one first"])
async def test_two_pages_that_are_paid_buy_one_period_and_owe_the_rest(
    till: Till, shop: Shop, order: tuple[int, int]
) -> None:
    stories = []
    for plan in ("professional", "business"):
        view = await till.checkout(shop.owner, plan=plan)
        till.travel(minutes=31)
        stories.append(till.stripe.pay_checkout(view.session_id))
    for place in order:
        await till.take(*stories[place])
    # 31 minutes of a month were used of the first.
    (credit,) = await till.credits(shop)
    assert (credit.reason, credit.amount) == (CreditReason.SUPERSEDED, Decimal("49.95"))
    assert await till.balance(shop, "credits") == -credit.amount
    paid = sum(row.amount for row in await till.payments(shop))
    assert await till.balance(shop, "revenue") == credit.amount - paid
    assert [note.title for note in await till.notifications(shop)].count("Paid and not used") == 2
    replaced = (await till.checkouts(shop))[0].subscription_ref or ""
    assert till.stripe.subscriptions[replaced]["status"] == "canceled"


async def replace_after(till: Till, shop: Shop, *, days: int) -> str:
    """Pay two pages, some days apart; returns Stripe's subscription of the first."""
    views = [await till.checkout(shop.owner, plan=plan) for plan in ("starter", "business")]
    told = till.stripe.pay_checkout(views[0].session_id)
    till.travel(days=days)
    await till.take(*told, *till.stripe.pay_checkout(views[1].session_id))
    replaced: str = till.stripe.sessions[views[0].session_id]["subscription"]
    return replaced


async def test_what_is_replaced_after_its_period_owes_nothing(till: Till, shop: Shop) -> None:
    await replace_after(till, shop, days=32)
    assert await till.credits(shop) == []


async def test_a_prepaid_year_that_another_plan_replaces_is_owed(till: Till, shop: Shop) -> None:
    """Where a provider does not charge by itself only the same again adds a period."""
    async with open_stall(till, "paypal") as paypal:
        year = await paypal.begin(shop, plan="business", period=BillingPeriod.YEARLY)
        month = await paypal.begin(shop, plan="starter")
        for created in (year, month):
            till.travel(seconds=2)
            await paypal.take(paypal.harness.paid(created))
    (credit,) = await till.credits(shop)
    assert (credit.reason, credit.amount) == (CreditReason.SUPERSEDED, Decimal("990.00"))


async def test_prepaid_months_of_one_plan_add_up_and_are_all_owed(till: Till, shop: Shop) -> None:
    async with open_stall(till, "paypal") as paypal:
        other = await paypal.begin(shop, plan="starter", period=BillingPeriod.YEARLY)
        for _ in range(2):
            till.travel(seconds=2)
            await paypal.take(paypal.harness.paid(await paypal.begin(shop, plan="starter")))
        till.travel(minutes=30)
        await paypal.take(paypal.harness.paid(other))
    used, untouched = sorted(credit.amount for credit in await till.credits(shop))
    assert (used, untouched) == (Decimal("19.98"), Decimal("19.99")), "half an hour of the first month was used"


async def test_months_paid_ahead_from_a_31st_are_counted_as_they_are_served(till: Till, shop: Shop) -> None:
    till.clock.offset += datetime(till.now.year + 1, 1, 31, 12, tzinfo=UTC) - till.now
    async with open_stall(till, "paypal") as paypal:
        # Begun first, for it could not be begun while another plan is paid.
        other = await paypal.begin(shop, plan="starter", period=BillingPeriod.YEARLY)
        for _ in range(3):
            await paypal.take(paypal.harness.paid(await paypal.begin(shop, plan="starter")))
            till.travel(seconds=2)
        served_until = (await till.subscription(shop)).current_period_end
        assert (served_until.month, served_until.day) == (4, 30)
        # In the second month, which lasts until the 31st of March.
        till.clock.offset += datetime(till.now.year, 3, 30, 12, tzinfo=UTC) - till.now
        await paypal.take(paypal.harness.paid(other))
    # Of the first month nothing is left, of the second a day of its 31, and the third is untouched.
    assert sorted(credit.amount for credit in await till.credits(shop)) == [Decimal("0.64"), Decimal("19.99")]


async def test_a_month_paid_ahead_for_the_plan_that_was_changed_to_replaces_nothing(till: Till, shop: Shop) -> None:
    async with open_stall(till, "paypal") as paypal:
        other = await paypal.begin(shop, plan="professional", period=BillingPeriod.YEARLY)
        await paypal.take(paypal.harness.paid(await paypal.begin(shop, plan="starter")))
        for _ in range(2):
            # A change for the difference, and a month of what it has changed to.
            till.travel(minutes=1)
            await paypal.take(paypal.harness.paid(await paypal.begin(shop, plan="business")))
        assert [row.kind for row in await till.checkouts(shop)][2:] == [CheckoutKind.CHANGE, CheckoutKind.PERIOD]
        assert await till.credits(shop) == []
        till.travel(minutes=1)
        await paypal.take(paypal.harness.paid(other))
    # Both months at the price in force, of which hardly anything was used.
    used, untouched = sorted(credit.amount for credit in await till.credits(shop))
    assert (used, untouched) == (Decimal("98.99"), Decimal("99.00"))


async def test_what_was_cancelled_at_once_is_not_replaced_by_what_is_bought_later(till: Till, shop: Shop) -> None:
    await till.buy(shop)
    till.travel(days=3)
    await till.cancel(shop.owner, at_period_end=False)
    till.travel(days=1)
    await till.buy(shop, plan="starter")
    assert await till.credits(shop) == []


async def test_a_renewal_of_what_was_replaced_is_owed(till: Till, shop: Shop) -> None:
    old = await replace_after(till, shop, days=32)
    # Stripe was told too late to stop it.
    till.travel(minutes=1)
    till.stripe.subscriptions[old]["status"] = "active"
    await till.take(*till.stripe.renew(old))
    (credit,) = await till.credits(shop)
    assert (credit.reason, credit.amount) == (CreditReason.SUPERSEDED, Decimal("19.99"))


@pytest.mark.parametrize("is_late", [False, True], ids=["in their order", "the renewal last"])
async def test_a_renewal_is_owed_whenever_it_is_heard_of(till: Till, shop: Shop, *, is_late: bool) -> None:
    views = [await till.checkout(shop.owner, plan=plan) for plan in ("starter", "business")]
    first = till.stripe.pay_checkout(views[0].session_id)
    till.travel(days=32)
    replacing = till.stripe.pay_checkout(views[1].session_id)
    till.travel(minutes=1)
    renewal = till.stripe.renew(till.stripe.sessions[views[0].session_id]["subscription"])
    await till.take(*first)
    for told in (replacing, renewal) if is_late else (renewal, replacing):
        await till.take(*told)
    (credit,) = await till.credits(shop)
    assert (credit.reason, credit.amount) == (CreditReason.SUPERSEDED, Decimal("19.99"))
    assert await till.balance(shop, "credits") == -credit.amount
    assert [note.title for note in await till.notifications(shop)].count("Paid and not used") == 2
    assert (await till.view(shop.owner)).plan.slug == "business"


async def test_of_a_renewed_month_that_was_changed_the_rest_is_owed_at_the_price_in_force(
    till: Till, shop: Shop
) -> None:
    views = [await till.checkout(shop.owner, plan=plan) for plan in ("starter", "business")]
    first = till.stripe.pay_checkout(views[0].session_id)
    renewed = till.stripe.sessions[views[0].session_id]["subscription"]
    await till.take(*first)
    # Nobody heard that the other page is to be closed.
    till.stripe.sessions[views[1].session_id]["status"] = "open"
    until = (await till.subscription(shop)).current_period_end
    till.clock.offset += until - till.now
    await till.take(*till.stripe.renew(renewed))
    till.travel(hours=1)
    change = await till.checkout(shop.owner, plan="professional")
    changed = till.stripe.pay_checkout(change.session_id)
    await till.take(*changed)
    till.stripe.sessions[views[1].session_id]["status"] = "open"
    await halfway(till, shop)
    await till.take(*till.stripe.pay_checkout(views[1].session_id))
    (credit,) = await till.credits(shop)
    # Half of 49.99, and not of the 19.99 that the renewal was.
    assert (credit.reason, abs(credit.amount - Decimal("25.00")) <= Decimal("0.01")) == (CreditReason.SUPERSEDED, True)


@pytest.mark.parametrize("is_late", [False, True], ids=["in their order", "the change last"])
async def test_the_rest_of_a_changed_month_is_owed_whenever_the_change_is_heard_of(
    till: Till, shop: Shop, *, is_late: bool
) -> None:
    views = [await till.checkout(shop.owner, plan=plan) for plan in ("starter", "business")]
    await till.take(*till.stripe.pay_checkout(views[0].session_id))
    till.stripe.sessions[views[1].session_id]["status"] = "open"
    till.travel(minutes=1)
    change = await till.checkout(shop.owner, plan="professional")
    changing = till.stripe.pay_checkout(change.session_id)
    await halfway(till, shop)
    replacing = till.stripe.pay_checkout(views[1].session_id)
    for told in (replacing, changing) if is_late else (changing, replacing):
        await till.take(*told)
    (credit,) = await till.credits(shop)
    assert abs(credit.amount - Decimal("25.00")) <= Decimal("0.01")


async def test_of_a_renewed_month_nothing_is_owed_once_it_was_cancelled_at_once(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    till.travel(days=32)
    await till.take(*till.stripe.renew(subscription_id))
    till.travel(days=1)
    await till.cancel(shop.owner, at_period_end=False)
    till.travel(days=1)
    await till.buy(shop, plan="starter")
    assert await till.credits(shop) == []


async def test_what_was_charged_after_the_end_stays_owed_when_another_is_bought(till: Till, shop: Shop) -> None:
    subscription_id = await till.buy(shop)
    await till.cancel(shop.owner)
    till.stripe.subscriptions[subscription_id]["cancel_at_period_end"] = False
    till.clock.offset += (await till.subscription(shop)).current_period_end - till.now + timedelta(minutes=1)
    await till.billing.sweep()
    assert (await till.subscription(shop)).status is SubscriptionStatus.CANCELLED
    till.travel(days=1)
    await till.take(*till.stripe.renew(subscription_id))
    assert [credit.amount for credit in await till.credits(shop)] == [Decimal("49.99")]
    till.travel(days=1)
    await till.buy(shop, plan="starter")
    assert [credit.amount for credit in await till.credits(shop)] == [Decimal("49.99")]
