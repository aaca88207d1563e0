"""Money: Decimals with the decimals of their currency, never floats."""

from decimal import ROUND_HALF_UP, Decimal, localcontext
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
    # Coins: the smallest amount that their networks move. Stablecoins are counted as on the networks that most use.
    **dict.fromkeys(("BTC", "LBTC", "LTC", "BCH", "DOGE", "DASH", "ZEC"), 8),
    **dict.fromkeys(("USDC", "USDT"), 6),
    **dict.fromkeys(("ETH", "DAI"), 18),
    "XMR": 12,
    "SATS": 0,
}

# All others of ISO 4217 that are in use: a hundredth.
_HUNDREDTHS = frozenset(
    (  # noqa: SIM905 - a line for each would be longer than all the rest of this file
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP CRC "
        "CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR "
        "JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD "
        "NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN "
        "SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG"
    ).split()
)

# Enough digits for any amount we take, by any share of it, to the last decimal of any currency.
_PRECISION = 60


def exponent(currency: str) -> int:
    """Return the number of decimals of a currency: 2 for USD, 0 for JPY, 3 for KWD (ISO 4217), 8 for BTC."""
    return _EXPONENTS.get(currency.upper(), 2)


def is_currency(code: str) -> bool:
    """Tell whether a code, in upper case, is that of a currency (ISO 4217) or of a coin that we know."""
    return code in _HUNDREDTHS or code in _EXPONENTS


def round_money(amount: Decimal, currency: str) -> Decimal:
    """Return an amount with the decimals of its currency, a half rounded away from zero (contract.md 4.6).

    >>> round_money(Decimal("2.345"), "USD"), round_money(Decimal("2.5"), "JPY")
    (Decimal('2.35'), Decimal('3'))
    """
    with localcontext(prec=_PRECISION):
        return amount.quantize(Decimal(1).scaleb(-exponent(currency)), rounding=ROUND_HALF_UP)


def share_of(amount: Decimal, percent: Decimal, currency: str) -> Decimal:
    """Return `percent` of an amount, rounded as `round_money` does and only once.

    >>> share_of(Decimal("49.90"), Decimal(5), "USD")
    Decimal('2.50')
    """
    with localcontext(prec=_PRECISION):
        return round_money(amount * percent / 100, currency)


def is_payable(amount: Decimal, currency: str) -> bool:
    """Tell whether an amount is above zero and no finer than its currency."""
    with localcontext(prec=_PRECISION):
        return amount.is_finite() and amount > 0 and amount % Decimal(1).scaleb(-exponent(currency)) == 0


def plain_amount(amount: Decimal, currency: str) -> str:
    """Write an amount with all the decimals of its currency and no exponent, for clients that read texts.

    >>> plain_amount(Decimal("49.9"), "USD"), plain_amount(Decimal("0.5"), "BTC")
    ('49.90', '0.50000000')
    """
    return f"{round_money(amount, currency):f}"
