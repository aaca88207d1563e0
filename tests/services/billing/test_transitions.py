"""The subscription's own rules, without a database."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from models.billing import (
    BillingPeriod,
    Subscription,
    SubscriptionStatus,
)
from models.plans import period_after
from tests.services.billing.rows import MONTH_END, NOW, active, checkout, trial


@pytest.mark.parametrize(
    ("start", "period", "anchor", "end"),
    [
        ("2026-01-31", BillingPeriod.MONTHLY, 31, "2026-02-28"),
        ("2026-02-28", BillingPeriod.MONTHLY, 31, "2026-03-31"),
        ("2026-03-31", BillingPeriod.MONTHLY, 31, "2026-04-30"),
        ("2028-01-31", BillingPeriod.MONTHLY, 31, "2028-02-29"),
        ("2026-02-28", BillingPeriod.MONTHLY, 28, "2026-03-28"),
        ("2026-11-30", BillingPeriod.MONTHLY, 30, "2026-12-30"),
        ("2026-12-15", BillingPeriod.MONTHLY, 15, "2027-01-15"),
        ("2028-02-29", BillingPeriod.YEARLY, 29, "2029-02-28"),
        ("2031-02-28", BillingPeriod.YEARLY, 29, "2032-02-29"),
        ("2026-12-31", BillingPeriod.YEARLY, 31, "2027-12-31"),
        ("2026-01-05", BillingPeriod.YEARLY, 5, "2027-01-05"),
    ],
    ids=str,
)
def test_periods_return_to_their_anchor(start: str, period: BillingPeriod, anchor: int, end: str) -> None:
    begins = datetime.fromisoformat(f"{start}T23:59:59+00:00")
    assert period_after(begins, period, anchor_day=anchor) == datetime.fromisoformat(f"{end}T23:59:59+00:00")


def test_a_trial_lasts_as_long_as_its_plan_grants() -> None:
    subscription = trial()
    assert subscription.status is SubscriptionStatus.TRIAL
    assert subscription.trial_ends_at == subscription.ends_at == NOW + timedelta(days=14)
    assert not subscription.is_over


def test_activation_takes_everything_from_the_checkout() -> None:
    subscription = active(BillingPeriod.YEARLY)
    assert subscription.status is SubscriptionStatus.ACTIVE
    assert subscription.trial_ends_at is None
    assert subscription.billing_period is BillingPeriod.YEARLY
    assert (subscription.current_period_start, subscription.current_period_end) == (
        NOW,
        datetime(2027, 1, 31, 12, 30, tzinfo=UTC),
    )
    assert subscription.plan_id == subscription.checkout.plan_id  # type: ignore[union-attr]
    assert (subscription.external_subscription_id, subscription.external_customer_id) == ("sub_1", "cus_1")


def test_activation_forgets_an_earlier_cancellation() -> None:
    subscription = active()
    subscription.cancel_now(reason="too dear", now=NOW + timedelta(days=3))
    again = NOW + timedelta(days=4)
    subscription.activate(checkout(subscription_ref="sub_2"), paid_at=again, customer_ref=None, now=again)
    assert subscription.status is SubscriptionStatus.ACTIVE
    assert (subscription.cancelled_at, subscription.cancel_reason) == (None, None)
    assert not subscription.cancel_at_period_end
    assert subscription.external_customer_id == "cus_1"


def test_a_customer_of_another_provider_is_forgotten() -> None:
    subscription = active()
    other = checkout(provider="sandbox", subscription_ref="sbx_1")
    subscription.activate(other, paid_at=NOW, customer_ref=None, now=NOW)
    assert (subscription.payment_provider, subscription.external_customer_id) == ("sandbox", None)


def test_renewals_without_a_period_keep_the_anchor() -> None:
    subscription = active()
    ends = [subscription.current_period_end]
    for months in range(3):
        at = NOW + timedelta(days=31 * (months + 1))
        assert subscription.renew(at=at, period=None, now=at)
        ends.append(subscription.current_period_end)
    assert [(end.month, end.day) for end in ends] == [(2, 28), (3, 31), (4, 30), (5, 31)]


def test_a_told_period_counts_from_the_moment_it_was_told() -> None:
    subscription = active()
    march = (MONTH_END, datetime(2026, 3, 31, tzinfo=UTC))
    april = (march[1], datetime(2026, 4, 30, tzinfo=UTC))
    assert subscription.renew(at=NOW + timedelta(days=60), period=april, now=NOW)
    assert not subscription.renew(at=NOW + timedelta(days=28), period=march, now=NOW)
    assert subscription.current_period_end == april[1]


def test_a_wait_for_the_next_charge_moves_no_start() -> None:
    march = (MONTH_END, datetime(2026, 3, 31, tzinfo=UTC))
    waits = MONTH_END + timedelta(days=9)
    found = set()
    for is_reversed in (False, True):
        subscription = active()
        facts: list[Callable[[Subscription], object]] = [
            lambda row: row.renew(at=MONTH_END, period=march, now=waits),
            lambda row: row.follow(
                at=waits,
                status=SubscriptionStatus.ACTIVE,
                period=(None, march[1]),
                cancel_at_period_end=False,
                now=waits,
            ),
        ]
        for tell in reversed(facts) if is_reversed else facts:
            tell(subscription)
        found.add((subscription.current_period_start, subscription.current_period_end, subscription.anchor_day))
    assert found == {(*march, 28)}
    assert active().waits_for_charge(SubscriptionStatus.TRIAL)
    assert not trial().waits_for_charge(SubscriptionStatus.TRIAL)


def test_prolonging_loses_no_day() -> None:
    subscription = active()
    later = NOW + timedelta(days=20)
    subscription.prolong(checkout(subscription_ref="sub_2"), paid_at=later, now=later)
    assert subscription.current_period_start == NOW
    assert subscription.current_period_end == datetime(2026, 3, 31, 12, 30, tzinfo=UTC)
    assert subscription.external_subscription_id == "sub_2"


def test_past_due_and_back() -> None:
    subscription = active()
    assert subscription.mark_past_due(at=NOW + timedelta(days=28), now=NOW)
    assert subscription.status == "past_due"
    # The retry that succeeded is newer; the failure before it tells nothing any more.
    assert subscription.renew(at=NOW + timedelta(days=29), period=(MONTH_END, MONTH_END), now=NOW)
    assert not subscription.mark_past_due(at=NOW + timedelta(days=28), now=NOW)
    assert subscription.status == "active"


def test_what_is_over_does_not_fall_due() -> None:
    subscription = active()
    subscription.cancel_now(reason=None, now=NOW + timedelta(days=1))
    assert not subscription.mark_past_due(at=NOW + timedelta(days=28), now=NOW)
    assert not subscription.renew(at=NOW + timedelta(days=28), period=(NOW, MONTH_END), now=NOW)
    assert subscription.status is SubscriptionStatus.CANCELLED


def test_what_expired_is_brought_back_by_money_alone() -> None:
    subscription = active()
    failed, told = NOW + timedelta(days=28), NOW + timedelta(days=52)
    subscription.mark_past_due(at=failed, now=failed)
    subscription.expire(now=NOW + timedelta(days=51))

    def follow(status: SubscriptionStatus, at: datetime) -> bool:
        return subscription.follow(at=at, status=status, period=None, cancel_at_period_end=False, now=told)

    assert not follow(SubscriptionStatus.PAST_DUE, told)
    # Neither does what was true before the failure make it owe once more.
    subscription.facts_until = None
    assert not follow(SubscriptionStatus.ACTIVE, failed - timedelta(days=1))
    assert (subscription.status, subscription.overdue_since) == (SubscriptionStatus.EXPIRED, None)
    paid = told + timedelta(minutes=1)
    assert subscription.renew(at=paid, period=(MONTH_END, paid), now=paid)
    assert subscription.status == "active"


def test_a_payment_that_is_told_again_pays_for_nothing_more() -> None:
    subscription = active()
    late = MONTH_END + timedelta(days=1)
    assert subscription.renew(at=MONTH_END, period=(NOW, MONTH_END + timedelta(hours=1)), now=MONTH_END) is True
    subscription.lapse(now=late)
    assert not subscription.renew(at=MONTH_END, period=(NOW, MONTH_END + timedelta(hours=1)), now=late)
    assert (subscription.status, subscription.overdue_since) == (SubscriptionStatus.PAST_DUE, late)
    subscription.expire(now=late + timedelta(days=22))
    assert not subscription.renew(at=MONTH_END, period=(NOW, MONTH_END + timedelta(hours=1)), now=late)
    assert subscription.status is SubscriptionStatus.EXPIRED


def test_cancelling_later_keeps_the_service_until_the_period_ends() -> None:
    subscription = active()
    at = NOW + timedelta(days=2)
    assert subscription.cancel_later(reason="moving on", now=at)
    assert not subscription.cancel_later(reason="again", now=at)
    assert (subscription.status, subscription.cancel_at_period_end) == (SubscriptionStatus.ACTIVE, True)
    assert (subscription.cancelled_at, subscription.cancel_reason) == (at, "moving on")
    assert subscription.current_period_end == MONTH_END
    subscription.expire(now=MONTH_END)
    assert subscription.status is SubscriptionStatus.CANCELLED
    assert subscription.cancelled_at == at


def test_cancelling_now_ends_the_period() -> None:
    subscription = active()
    at = NOW + timedelta(days=2)
    subscription.cancel_now(reason="now", now=at)
    assert subscription.is_over
    assert subscription.current_period_end == subscription.cancelled_at == at
    assert subscription.current_period_start == NOW


def test_nobody_paid() -> None:
    subscription = trial()
    subscription.expire(now=NOW + timedelta(days=14))
    assert subscription.status is SubscriptionStatus.EXPIRED
    assert subscription.cancelled_at is None


def test_the_provider_may_take_a_cancellation_back() -> None:
    subscription = active()
    subscription.cancel_later(reason="moving on", now=NOW)

    def follow(*, seconds: int, cancels: bool) -> bool:
        return subscription.follow(
            at=NOW + timedelta(seconds=seconds),
            status=SubscriptionStatus.ACTIVE,
            period=None,
            cancel_at_period_end=cancels,
            now=NOW,
        )

    # What was true before the decision does not undo it.
    assert not follow(seconds=-5, cancels=False)
    assert not follow(seconds=0, cancels=True)
    assert follow(seconds=60, cancels=False)
    assert (subscription.cancelled_at, subscription.cancel_reason) == (None, None)


def test_following_into_a_trial_and_out_of_everything() -> None:
    subscription = active()
    period = (NOW, NOW + timedelta(days=7))
    subscription.follow(at=NOW, status=SubscriptionStatus.TRIAL, period=period, cancel_at_period_end=False, now=NOW)
    assert subscription.ends_at == subscription.trial_ends_at == period[1]
    at = NOW + timedelta(days=1)
    assert subscription.end(at=at, ended_at=at, now=NOW)
    assert (subscription.status, subscription.cancelled_at) == (SubscriptionStatus.CANCELLED, at)
    # An end is final, whatever is told afterwards.
    late = at + timedelta(days=1)
    assert not subscription.follow(
        at=late, status=SubscriptionStatus.ACTIVE, period=None, cancel_at_period_end=False, now=NOW
    )
    assert not subscription.end(at=late, ended_at=late, now=NOW)
    assert subscription.cancelled_at == at


def test_warnings_are_given_once_for_each_threshold() -> None:
    subscription = trial()
    given = []
    for hours in range(14 * 24):
        days_left = subscription.warn_of_end((7, 3, 1), now=NOW + timedelta(hours=hours))
        if days_left is not None:
            given.append((hours, days_left))
    assert given == [(7 * 24, 7), (11 * 24, 3), (13 * 24, 1)]
    assert subscription.warn_of_end((7, 3, 1), now=NOW + timedelta(days=14)) is None


def test_a_late_warning_tells_the_days_that_are_really_left() -> None:
    subscription = trial()
    assert subscription.warn_of_end((7, 3, 1), now=NOW + timedelta(days=9, hours=5)) == 5
    assert subscription.warn_of_end((7, 3, 1), now=NOW + timedelta(days=9, hours=6)) is None
    assert subscription.warn_of_end((7, 3, 1), now=NOW + timedelta(days=12, hours=1)) == 2


def test_a_new_end_deserves_new_warnings() -> None:
    subscription = trial()
    assert subscription.warn_of_end((7, 3, 1), now=NOW + timedelta(days=13, hours=1)) == 1
    subscription.activate(checkout(), paid_at=NOW + timedelta(days=13, hours=2), customer_ref=None, now=NOW)
    subscription.cancel_later(reason=None, now=NOW)
    end = subscription.current_period_end
    assert subscription.warn_of_end((7, 3, 1), now=end - timedelta(days=7)) == 7
