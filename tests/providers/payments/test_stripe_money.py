"""Stripe's minor units (docs.stripe.com/currencies)."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.payments.stripe_money import AmountNotPayable, from_stripe, to_stripe


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("10", "USD", 1000),
        ("0.01", "eur", 1),
        ("500", "JPY", 500),
        ("500", "MGA", 500),
        ("5", "ISK", 500),
        ("5", "UGX", 500),
        ("5.12", "KWD", 5120),
        ("10.45", "HUF", 1045),
        ("1E+3", "USD", 100_000),
    ],
)
def test_both_directions(amount: str, currency: str, minor: int) -> None:
    assert to_stripe(Decimal(amount), currency) == minor
    assert from_stripe(minor, currency) == Decimal(amount)


@pytest.mark.parametrize(
    ("amount", "currency"),
    [("5.124", "KWD"), ("5.5", "ISK"), ("0.5", "JPY"), ("0.005", "USD"), ("-1", "USD"), ("sNaN", "USD")],
)
def test_what_stripe_cannot_charge(amount: str, currency: str) -> None:
    with pytest.raises(AmountNotPayable):
        to_stripe(Decimal(amount), currency)


@given(minor=st.integers(0, 99_999_999), currency=st.sampled_from(["USD", "JPY", "KWD", "ISK"]))
def test_what_stripe_tells_is_kept_to_the_last_unit(minor: int, currency: str) -> None:
    amount = from_stripe(minor, currency)

    assert amount.as_tuple().exponent == {"USD": -2, "JPY": 0, "KWD": -3, "ISK": -2}[currency]
    assert amount.scaleb(-int(amount.as_tuple().exponent)) == minor
