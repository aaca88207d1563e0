"""Stripe's minor units, which are not quite ISO 4217's (docs.stripe.com/currencies).

MGA has no minor unit at Stripe. ISK and UGX have none in the world but are sent as hundredths that must be
zero. The three-decimal currencies are sent as thousandths whose last digit must be zero.
"""

from decimal import Decimal

_ZERO_DECIMAL = frozenset(
    ("BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF")
)
_THREE_DECIMAL = frozenset(("BHD", "JOD", "KWD", "OMR", "TND"))
_WHOLE_UNITS_ONLY = frozenset(("ISK", "UGX"))


class AmountNotPayable(ValueError):
    """The amount is negative, or finer than Stripe can charge in its currency."""


def to_stripe(amount: Decimal, currency: str) -> int:
    """Turn an amount into Stripe's integer: 99.00 USD -> 9900, 5.120 KWD -> 5120, 5 ISK -> 500, 5 JPY -> 5.

    Raises:
        AmountNotPayable: nothing is rounded silently, because the price asked must be the price shown.
    """
    minor = amount.scaleb(_exponent(currency)) if amount.is_finite() else amount
    if not amount.is_finite() or amount < 0 or minor % _step(currency) != 0:
        raise AmountNotPayable(f"{amount} {currency} cannot be charged")
    return int(minor)


def from_stripe(minor: int, currency: str) -> Decimal:
    """Turn Stripe's integer into an amount: 9900 USD -> Decimal("99.00")."""
    return Decimal(minor).scaleb(-_exponent(currency))


def _exponent(currency: str) -> int:
    code = currency.upper()
    if code in _ZERO_DECIMAL:
        return 0
    return 3 if code in _THREE_DECIMAL else 2


def _step(currency: str) -> int:
    code = currency.upper()
    if code in _THREE_DECIMAL:
        return 10
    return 100 if code in _WHOLE_UNITS_ONLY else 1
