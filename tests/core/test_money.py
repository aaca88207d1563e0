"""Money: how fine the amounts of a currency may be."""

import pytest

from core.money import exponent


@pytest.mark.parametrize(
    ("currency", "decimals"),
    [("USD", 2), ("usd", 2), ("RUB", 2), ("JPY", 0), ("jpy", 0), ("ISK", 0), ("KWD", 3), ("tnd", 3)],
)
def test_currencies_have_their_decimals(currency: str, decimals: int) -> None:
    assert exponent(currency) == decimals
