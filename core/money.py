"""Money: Decimals with the decimals of their currency, never floats."""

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
    """Return an amount with the decimals of its currency, a half rounded away from zero (contract.md 4.6).

    >>> round_money(Decimal("2.345"), "USD"), round_money(Decimal("2.5"), "JPY")
    (Decimal('2.35'), Decimal('3'))
    """
    return amount.quantize(Decimal(1).scaleb(-exponent(currency)), rounding=ROUND_HALF_UP)
