"""Phone numbers: however people write one, it is stored, compared and dialled as E.164 (`+79991234567`).

What a number is, the library `phonenumbers` knows (Google's metadata). What is let near it, this module decides.
"""

import re
from enum import StrEnum
from typing import Final

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumberFormat, PhoneNumberType

from core.errors import InvalidInput

DEFAULT_REGION: Final = "RU"
"""Where numbers without a country code belong (contract.md 2.5: a leading 8 or 7 means Russia)."""

# Fifteen digits (E.164) with a separator after each, and brackets.
_LONGEST: Final = 32
# The library would also read other scripts' digits, letters ("1-800-FLOWERS") and extensions. Each of these makes two
# texts of one number, or one text that people and machines read differently.
_WRITTEN: Final = re.compile(r"\+?[0-9(][0-9 ().-]*[0-9]")
# Nobody receives a personal code on the other kinds, and calling some of them costs the caller money.
_PERSONAL: Final = frozenset(
    {
        PhoneNumberType.MOBILE,
        PhoneNumberType.FIXED_LINE,
        PhoneNumberType.FIXED_LINE_OR_MOBILE,
        PhoneNumberType.VOIP,
        PhoneNumberType.PERSONAL_NUMBER,
    }
)
_SHOWN: Final = 2


class PhoneFault(StrEnum):
    """Why a text is not taken for a phone number."""

    TOO_LONG = "too_long"
    NOT_WRITTEN_AS_A_PHONE = "not_written_as_a_phone"
    NO_SUCH_NUMBER = "no_such_number"
    NOT_PERSONAL = "not_personal"


class PhoneInvalid(InvalidInput):
    """The text is no phone number of a person; `fault` (`details["reason"]`) says why, and nothing repeats the text."""

    code = "PHONE_INVALID"
    message = "This is not a valid phone number"

    def __init__(self, fault: PhoneFault) -> None:
        self.fault = fault
        super().__init__(details={"reason": fault.value})


def parse_phone(text: str, *, region: str = DEFAULT_REGION) -> str:
    """Return the number in E.164; the result read again is itself.

    ASCII digits, spaces, hyphens, dots and brackets are understood, and one leading plus.

    >>> [parse_phone(text) for text in ("8 (999) 123-45-67", "+7 999 123 45 67", "79991234567")]
    ['+79991234567', '+79991234567', '+79991234567']

    Args:
        text: what somebody typed.
        region: ISO 3166 code of the country that a number without a country code belongs to.

    Raises:
        PhoneInvalid: the text is anything else, or a number that does not exist or is nobody's own.
    """
    written = text.strip(" ")
    if len(written) > _LONGEST:
        raise PhoneInvalid(PhoneFault.TOO_LONG)
    if _WRITTEN.fullmatch(written) is None:
        raise PhoneInvalid(PhoneFault.NOT_WRITTEN_AS_A_PHONE)
    try:
        number = phonenumbers.parse(written, region)
    except NumberParseException as error:
        raise PhoneInvalid(PhoneFault.NO_SUCH_NUMBER) from error
    if not phonenumbers.is_valid_number(number):
        raise PhoneInvalid(PhoneFault.NO_SUCH_NUMBER)
    if phonenumbers.number_type(number) not in _PERSONAL:
        raise PhoneInvalid(PhoneFault.NOT_PERSONAL)
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


def mask_phone(phone: str) -> str:
    """Hide all but the last two characters, for logs.

    >>> mask_phone("+79991234567")
    '**********67'
    """
    return "*" * (len(phone) - _SHOWN) + phone[-_SHOWN:] if len(phone) > _SHOWN else "*" * len(phone)
