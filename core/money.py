"""Money: Decimals and minor units by currency, never floats."""

from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated

from pydantic import WithJsonSchema

# On the wire an amount is a number (contract.md 1.7), which `core.json` writes with all its digits.
Money = Annotated[Decimal, WithJsonSchema({"type": "number"})]

# ISO 4217 currencies whose minor unit is not a hundredth.
_EXPONENTS = {
    **dict.fromkeys(
        (
            "BIF",
            "CLP",
            "DJF",
            "GNF",
            "ISK",
            "JPY",
            "KMF",
            "KRW",
            "PYG",
            "RWF",
            "UGX",
            "VND",
            "VUV",
            "XAF",
            "XOF",
            "XPF",
        ),
        0,
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}


def exponent(currency: str) -> int:
    """Return the number of decimals of a currency (ISO 4217): 2 for USD, 0 for JPY, 3 for KWD."""
    return _EXPONENTS.get(currency.upper(), 2)


def round_money(amount: Decimal, currency: str) -> Decimal:
    """Round half up to the currency's minor unit."""
    return amount.quantize(Decimal(1).scaleb(-exponent(currency)), rounding=ROUND_HALF_UP)


def to_minor(amount: Decimal, currency: str) -> int:
    """Turn an amount into minor units: 99.00 USD -> 9900, 500 JPY -> 500."""
    return int(round_money(amount, currency).scaleb(exponent(currency)))


def from_minor(minor: int, currency: str) -> Decimal:
    """Turn minor units into an amount: 9900 USD -> Decimal("99.00")."""
    return Decimal(minor).scaleb(-exponent(currency))
