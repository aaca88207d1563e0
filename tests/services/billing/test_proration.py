"""The arithmetic of changes within a period, against the worth of time computed the plain way."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from core.money import exponent
from models.proration import PaidPeriod, Step

START = datetime(2026, 1, 31, tzinfo=UTC)
CURRENCIES = st.sampled_from(["USD", "JPY", "KWD"])


def worth(prices: list[Decimal], marks: list[datetime]) -> Fraction:
    """Return what each price costs for the time that it was in force, added up."""
    length = (marks[-1] - marks[0]) / timedelta(microseconds=1)
    return sum(
        (
            Fraction(price) * Fraction((to - at) / timedelta(microseconds=1)) / Fraction(length)
            for price, at, to in zip(prices, marks, marks[1:], strict=False)
        ),
        Fraction(0),
    )


@given(
    currency=CURRENCIES,
    days=st.integers(28, 366),
    places=st.lists(st.integers(0, 10**6), min_size=1, max_size=8).map(sorted),
    steps=st.lists(st.integers(1, 10**6), min_size=9, max_size=9),
)
def test_what_is_paid_is_the_worth_of_time_within_one_minor_unit(
    currency: str, days: int, places: list[int], steps: list[int]
) -> None:
    unit = Decimal(1).scaleb(-exponent(currency))
    end = START + timedelta(days=days)
    prices = [unit * sum(steps[: place + 1]) for place in range(len(places) + 1)]
    marks = [START, *(START + (end - START) * place / 10**6 for place in places), end]
    paid = [prices[0]]
    made: list[Step] = []
    for place, at in enumerate(marks[1:-1]):
        before, after = prices[place], prices[place + 1]
        period = PaidPeriod(start=START, end=end, currency=currency, steps=made)
        due = period.due_for_remainder(before=before, after=after, at=at)
        assert due == due.quantize(unit)
        paid.append(due)
        made = [*made, Step(at=at, before=before, after=after, paid=due)]
    assert abs(Fraction(sum(paid)) - worth(prices, marks)) < Fraction(unit)


@given(place=st.integers(0, 10**6), month=st.integers(1, 10**6), year=st.integers(1, 10**7), currency=CURRENCIES)
def test_a_new_period_costs_its_price_less_what_is_left(place: int, month: int, year: int, currency: str) -> None:
    unit = Decimal(1).scaleb(-exponent(currency))
    end = START + timedelta(days=31)
    period = PaidPeriod(start=START, end=end, currency=currency)
    at = START + (end - START) * place / 10**6
    due = period.due_for_new_period(before=month * unit, after=year * unit, at=at)
    left = Fraction((end - at) / timedelta(microseconds=1)) / Fraction((end - START) / timedelta(microseconds=1))
    assert abs(Fraction(due) - (Fraction(year * unit) - Fraction(month * unit) * left)) <= Fraction(unit) / 2


def test_outside_the_period_nothing_is_left_and_nothing_more_than_all() -> None:
    period = PaidPeriod(start=START, end=START + timedelta(days=31), currency="USD")
    assert period.left(START - timedelta(days=1)) == 1
    assert period.left(period.end + timedelta(days=1)) == 0
    assert PaidPeriod(start=START, end=START, currency="USD").left(START) == 0


def test_a_half_is_rounded_away_from_zero() -> None:
    period = PaidPeriod(start=START, end=START + timedelta(days=2), currency="USD")
    middle = START + timedelta(days=1)
    assert period.due_for_remainder(before=Decimal("0.00"), after=Decimal("0.01"), at=middle) == Decimal("0.01")
    assert period.due_for_new_period(before=Decimal("0.01"), after=Decimal("0.00"), at=middle) == Decimal("-0.01")
