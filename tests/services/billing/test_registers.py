"""What is told in any order ends in one state: subscriptions, bills and payments, without a database."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from models.billing import (
    CheckoutKind,
    CheckoutSession,
    CheckoutState,
    Invoice,
    InvoiceStatus,
    Subscription,
    SubscriptionStatus,
)
from models.checkouts import placed, prepaid_period
from tests.services.billing.rows import MONTH_END, NOW, PLAN_ID, active, checkout


def test_a_checkout_is_paid_at_the_earlier_of_the_moments_told() -> None:
    bought = checkout(state=CheckoutState.FAILED, completed_at=None)
    assert bought.mark_paid(NOW)
    assert not bought.mark_paid(NOW - timedelta(seconds=1))
    assert bought.completed_at == NOW - timedelta(seconds=1)
    assert not bought.tell(CheckoutState.EXPIRED, at=NOW)
    assert bought.state is CheckoutState.PAID


def registers(subscription: Subscription) -> tuple[object, ...]:
    return (
        subscription.status,
        subscription.current_period_start,
        subscription.current_period_end,
        subscription.trial_ends_at,
        subscription.cancel_at_period_end,
        subscription.cancelled_at,
        subscription.ended_at,
        subscription.facts_until,
        subscription.failed_until,
    )


@pytest.mark.parametrize("apart", [timedelta(0), timedelta(seconds=9)], ids=["at one moment", "one after the other"])
def test_every_order_of_facts_fills_the_registers_alike(apart: timedelta) -> None:
    """Six facts, 720 orders: what a provider tells of a renewal that fails, is paid, is cancelled and ends."""
    at = [NOW + timedelta(days=31) + number * apart for number in range(6)]
    first, second = (NOW, NOW + timedelta(days=31)), (NOW + timedelta(days=31), NOW + timedelta(days=59))

    def follow(number: int, status: SubscriptionStatus, *, cancels: bool) -> Callable[[Subscription], object]:
        def tell(subscription: Subscription) -> bool:
            return subscription.follow(
                at=at[number],
                status=status,
                period=second,
                cancel_at_period_end=cancels,
                cancelled_at=at[3] if cancels else None,
                now=NOW,
            )

        return tell

    # At one moment only the last view counts, and it is the same in every fact: adapters fetch it.
    views = [follow(2, SubscriptionStatus.ACTIVE, cancels=apart == timedelta(0))]
    views.append(follow(3, SubscriptionStatus.ACTIVE, cancels=True))
    facts: list[Callable[[Subscription], object]] = [
        lambda row: row.mark_past_due(at=at[0], now=NOW),
        lambda row: row.renew(at=at[1], period=second, now=NOW),
        *views,
        lambda row: row.renew(at=at[0] - timedelta(days=31), period=first, now=NOW),
        lambda row: row.end(at=at[5], ended_at=at[4], now=NOW),
    ]
    found = set()
    for order in itertools.permutations(facts):
        subscription = active()
        for tell in order:
            tell(subscription)
        found.add(registers(subscription))
    assert len(found) == 1
    assert found.pop()[:3] == (SubscriptionStatus.CANCELLED, second[0], at[4])


def test_every_order_of_a_bills_facts_is_one_bill() -> None:
    def bill() -> Invoice:
        return Invoice(status=InvoiceStatus.OPEN, created_at=NOW + timedelta(days=9))

    def failed(days: int, amount: str) -> Callable[[Invoice], None]:
        at = NOW + timedelta(days=days)
        return lambda row: row.tell_failed(at=at, amount=Decimal(amount), currency="USD", hosted_url="https://bill")

    def void(row: Invoice) -> None:
        row.tell_void(at=NOW, amount=Decimal(3), currency="USD")

    def paid(row: Invoice) -> None:
        row.tell_paid(at=NOW, amount=Decimal(9), currency="USD")

    for facts, expected in (
        ([failed(1, "1"), failed(2, "2")], (InvoiceStatus.FAILED, Decimal(2))),
        ([failed(1, "1"), failed(2, "2"), void], (InvoiceStatus.VOID, Decimal(3))),
        ([failed(1, "1"), failed(2, "2"), void, paid], (InvoiceStatus.PAID, Decimal(9))),
    ):
        for order in itertools.permutations(facts):
            row = bill()
            for tell in order:
                tell(row)
            assert (row.status, row.amount, row.hosted_url) == (*expected, "https://bill")


def test_every_order_of_a_payments_words_is_one_state() -> None:
    words = [
        (CheckoutState.PENDING, 0),
        (CheckoutState.PROCESSING, 1),
        (CheckoutState.EXPIRED, 2),
        (CheckoutState.UNDERPAID, 2),
    ]
    for order in itertools.permutations(words):
        bought = checkout(state=CheckoutState.PENDING)
        # What we have seen ourselves is outdone by any word of the provider.
        bought.tell(CheckoutState.FAILED, at=None)
        for state, minutes in order:
            bought.tell(state, at=NOW + timedelta(minutes=minutes))
        assert bought.state is CheckoutState.UNDERPAID
        bought.tell(CheckoutState.FAILED, at=None)
        assert bought.state is CheckoutState.UNDERPAID
        # Money that comes late counts, and is final.
        assert bought.mark_paid(NOW + timedelta(hours=3))
        assert not bought.tell(CheckoutState.FAILED, at=NOW + timedelta(hours=4))


def bought(days: int, **values: Any) -> CheckoutSession:
    paid_at = NOW + timedelta(days=days)
    same = {"plan_id": PLAN_ID, "kind": CheckoutKind.PERIOD, "base_id": None}
    return checkout(completed_at=paid_at, created_at=paid_at, **{**same, **values})


def test_payments_of_before_are_counted_in_their_order() -> None:
    first, second = bought(0), bought(3)
    patient = timedelta(days=22)
    period = prepaid_period([second, first], served_for=patient)
    assert period is not None
    assert NOW + timedelta(days=58) < period.end < NOW + timedelta(days=63)
    # What was served meanwhile is paid for; after a longer gap nothing is left of what was paid before it.
    late = prepaid_period([first, bought(45)], served_for=patient)
    assert late is not None
    assert (late.start, late.end) == (MONTH_END, period.end)
    gap = prepaid_period([first, bought(200)], served_for=patient)
    assert gap is not None
    assert gap.start == NOW + timedelta(days=200)
    subscription = active()
    subscription.prepay(period, now=NOW)
    assert subscription.current_period_end == period.end
    subscription.cancel_now(reason=None, now=NOW)
    before = subscription.current_period_end
    subscription.prepay(gap, now=NOW)
    assert subscription.current_period_end == before


@pytest.mark.parametrize(
    ("day", "ends"),
    [(31, ["02-28", "03-31", "04-30", "05-31"]), (29, ["02-28", "03-29", "04-29", "05-29"])],
    ids=["from the 31st", "from the 29th"],
)
def test_periods_paid_ahead_lie_end_to_end_on_the_first_payments_day(day: int, ends: list[str]) -> None:
    first = datetime(2027, 1, day, 12, tzinfo=UTC)
    paid = [bought(0) for _ in range(4)]
    for count, purchase in enumerate(paid):
        purchase.completed_at = first + timedelta(minutes=count)
    steps = list(placed(paid, served_for=timedelta(days=22)))
    assert [step.period.end.strftime("%m-%d") for step in steps] == ends
    assert [step.start for step in steps] == [first, *(step.period.end for step in steps[:-1])]
    assert [step.continues for step in steps] == [False, True, True, True]
    # Whoever charges by itself puts nothing behind what is paid.
    charged = list(placed(paid, served_for=timedelta(days=22), charging={paid[0].provider}))
    assert [(step.start, step.continues) for step in charged] == [(row.completed_at, False) for row in paid]
