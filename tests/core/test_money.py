"""Money: how fine the amounts of a currency may be."""

import pytest

from core.money import exponent, is_currency


@pytest.mark.parametrize(
    ("currency", "decimals"),
    [("USD", 2), ("usd", 2), ("RUB", 2), ("JPY", 0), ("jpy", 0), ("ISK", 0), ("KWD", 3), ("tnd", 3)],
)
def test_currencies_have_their_decimals(currency: str, decimals: int) -> None:
    assert exponent(currency) == decimals


def test_codes_that_are_no_currency() -> None:
    assert all(map(is_currency, ("USD", "EUR", "RUB", "UAH", "JPY", "KWD", "BTC", "USDT")))
    assert not any(map(is_currency, ("ZZZ", "usd", "XXX", "", "US")))
