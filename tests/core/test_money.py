"""Money: minor units by currency, half up, and back again without a loss."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.money import exponent, from_minor, round_money, to_minor

CURRENCIES = ("USD", "EUR", "RUB", "JPY", "KRW", "CLP", "KWD", "BHD", "TND")


@pytest.mark.parametrize(("currency", "decimals"), [("USD", 2), ("usd", 2), ("JPY", 0), ("jpy", 0), ("KWD", 3)])
def test_currencies_have_their_decimals(currency: str, decimals: int) -> None:
    assert exponent(currency) == decimals


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("99.00", "USD", 9900),
        ("99", "USD", 9900),
        ("0.01", "USD", 1),
        ("0", "USD", 0),
        ("-12.34", "USD", -1234),
        ("500", "JPY", 500),
        ("499.5", "JPY", 500),
        ("1.234", "KWD", 1234),
        ("19.995", "USD", 2000),
        ("0.285", "USD", 29),
    ],
)
def test_amounts_become_minor_units(amount: str, currency: str, minor: int) -> None:
    assert to_minor(Decimal(amount), currency) == minor


@pytest.mark.parametrize(
    ("amount", "currency", "rounded"),
    [
        ("1.005", "USD", "1.01"),
        ("1.004999", "USD", "1.00"),
        ("-1.005", "USD", "-1.01"),
        ("2.5", "JPY", "3"),
        ("3.5", "JPY", "4"),
        ("1.2345", "KWD", "1.235"),
        ("7", "USD", "7.00"),
    ],
)
def test_halves_go_up_and_not_to_the_even(amount: str, currency: str, rounded: str) -> None:
    assert str(round_money(Decimal(amount), currency)) == rounded


@given(st.integers(-(10**15), 10**15), st.sampled_from(CURRENCIES))
def test_minor_units_survive_the_way_there_and_back(minor: int, currency: str) -> None:
    amount = from_minor(minor, currency)
    assert to_minor(amount, currency) == minor
    assert amount.as_tuple().exponent == -exponent(currency), "an amount shows all the decimals of its currency"


@given(st.decimals(min_value=-(10**9), max_value=10**9, places=6), st.sampled_from(CURRENCIES))
def test_rounding_moves_an_amount_by_half_a_minor_unit_at_most(amount: Decimal, currency: str) -> None:
    rounded = round_money(amount, currency)
    assert abs(rounded - amount) * 2 <= Decimal(1).scaleb(-exponent(currency))
    assert from_minor(to_minor(amount, currency), currency) == rounded


def test_amounts_show_their_decimals() -> None:
    assert [str(from_minor(9900, currency)) for currency in ("USD", "JPY", "KWD")] == ["99.00", "9900", "9.900"]
