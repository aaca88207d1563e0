"""Two years pass: trials, renewals at month ends and in leap years, summer time, and a week without a server."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from models.billing import BillingPeriod, SubscriptionStatus
from tests.support.billing import Shop, Till, press_sandbox

pytestmark = pytest.mark.embedded

# A leap year whose February is within the first year, from the last day of a month on.
BEGIN = datetime(2027, 8, 31, 9, 30, tzinfo=UTC)
ENDS_OF_MONTHS = [
    (2027, 9, 30),
    (2027, 10, 31),
    (2027, 11, 30),
    (2027, 12, 31),
    (2028, 1, 31),
    (2028, 2, 29),
    (2028, 3, 31),
    (2028, 4, 30),
    (2028, 5, 31),
    (2028, 6, 30),
    (2028, 7, 31),
    (2028, 8, 31),
    (2028, 9, 30),
    (2028, 10, 31),
    (2028, 11, 30),
    (2028, 12, 31),
    (2029, 1, 31),
    (2029, 2, 28),
    (2029, 3, 31),
    (2029, 4, 30),
    (2029, 5, 31),
    (2029, 6, 30),
    (2029, 7, 31),
    (2029, 8, 31),
]


def go_to(till: Till, moment: datetime) -> None:
    till.clock.offset += moment - till.now


async def pass_time(till: Till, until: datetime, *, step: timedelta = timedelta(days=1)) -> None:
    """Let days go by, with two schedulers each time."""
    while till.now < until:
        till.clock.offset += min(step, until - till.now)
        await asyncio.gather(till.billing.sweep(), till.billing.sweep())


async def warned(till: Till, shop: Shop) -> list[int]:
    return [event.payload["days_left"] for event in till.heard(shop, "subscription:expiring")]


async def test_two_years_of_a_customer_who_pays_by_hand(till: Till) -> None:
    go_to(till, BEGIN)
    shop = await till.shop()
    await press_sandbox(till, shop, "pay")
    ends = []
    for year, month, day in ENDS_OF_MONTHS:
        end = (await till.subscription(shop)).current_period_end
        ends.append((end.year, end.month, end.day))
        assert abs(end - datetime(year, month, day, 9, 30, tzinfo=UTC)) < timedelta(minutes=5)
        # A server that is away for the last week misses the warnings, and makes up for them by one.
        if month == 11:
            await pass_time(till, end - timedelta(days=8), step=timedelta(days=25))
            till.clock.offset += timedelta(days=7)
            await till.billing.sweep()
        await pass_time(till, end - timedelta(days=9), step=timedelta(days=25))
        await pass_time(till, end - timedelta(hours=1))
        await press_sandbox(till, shop, "pay")
        assert (await till.subscription(shop)).status is SubscriptionStatus.ACTIVE
    assert ends == ENDS_OF_MONTHS
    assert len(await till.payments(shop)) == len(ENDS_OF_MONTHS) + 1
    per_month = [3] * len(ENDS_OF_MONTHS)
    for place, (_, month, _) in enumerate(ENDS_OF_MONTHS):
        per_month[place] = 1 if month == 11 else 3
    assert len(await warned(till, shop)) == sum(per_month)


async def test_two_years_of_a_provider_that_charges(till: Till) -> None:
    go_to(till, BEGIN)
    shop = await till.shop()
    subscription_id = await till.buy(shop)
    for year, month, day in ENDS_OF_MONTHS:
        end = (await till.subscription(shop)).current_period_end
        assert end.date() <= date(year, month, day)
        till.clock.offset += end - till.now + timedelta(hours=1)
        await till.billing.sweep()
        if month == 2:
            # The renewal fails and is paid five days later.
            failed = till.stripe.renew(subscription_id, paid=False)
            await till.take(*failed)
            assert (await till.subscription(shop)).status is SubscriptionStatus.PAST_DUE
            await pass_time(till, till.now + timedelta(days=5))
            invoice = till.stripe.invoices[till.stripe.subscriptions[subscription_id]["latest_invoice"]]
            till.stripe.subscriptions[subscription_id]["status"] = "active"
            updated = till.stripe._event("customer.subscription.updated", till.stripe.subscriptions[subscription_id])
            await till.take(*till.stripe._settle(invoice), updated)
        else:
            await till.take(*till.stripe.renew(subscription_id))
        assert (await till.subscription(shop)).status is SubscriptionStatus.ACTIVE
    assert await warned(till, shop) == []
    assert len([row for row in await till.payments(shop) if row.event_type == "payment_success"]) == 25


async def test_two_years_of_yearly_payments_from_a_leap_day(till: Till) -> None:
    go_to(till, datetime(2028, 2, 29, 23, 59, tzinfo=UTC))
    shop = await till.shop()
    await press_sandbox(till, shop, "pay", period=BillingPeriod.YEARLY)
    ends = []
    for _ in range(2):
        end = (await till.subscription(shop)).current_period_end
        ends.append(end.date())
        await pass_time(till, end - timedelta(hours=2), step=timedelta(days=30))
        await press_sandbox(till, shop, "pay", period=BillingPeriod.YEARLY)
    assert ends == [date(2029, 2, 28), date(2030, 2, 28)]


async def test_a_trial_over_the_change_to_summer_time_is_as_long_as_any(till: Till) -> None:
    begin = datetime(2027, 3, 20, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    go_to(till, begin.astimezone(UTC))
    shop = await till.shop()
    ends_at = (await till.subscription(shop)).trial_ends_at
    assert ends_at is not None
    assert abs(ends_at - begin.astimezone(UTC) - timedelta(days=14)) < timedelta(minutes=1)
    await pass_time(till, ends_at - timedelta(minutes=1), step=timedelta(hours=12))
    assert (await till.subscription(shop)).status is SubscriptionStatus.TRIAL
    await pass_time(till, ends_at + timedelta(seconds=1))
    assert (await till.subscription(shop)).status is SubscriptionStatus.EXPIRED
    assert await warned(till, shop) == [7, 3, 1]


async def test_a_server_that_was_away_for_a_week_catches_up_once(till: Till, shop: Shop) -> None:
    other = await till.shop()
    await press_sandbox(till, other, "pay")
    till.travel(days=28)
    await till.billing.sweep()
    till.travel(days=7)
    await asyncio.gather(*(till.billing.sweep() for _ in range(3)))
    await till.billing.sweep()
    assert (await till.subscription(shop)).status is SubscriptionStatus.EXPIRED
    assert (await till.subscription(other)).status is SubscriptionStatus.PAST_DUE
    assert (await till.audit(shop)).count("subscription.expired") == 1
    assert (await till.audit(other)).count("subscription.past_due") == 1
