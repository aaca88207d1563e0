"""What forms have in common: how addresses and names of people are read."""

import unicodedata
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, EmailStr, StringConstraints

from core.emails import fold_email, refuse_lookalike

# They turn the order of what follows around, so that a name would read as something else (Unicode, UAX 9).
_TURNING: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_CONTROLS: Final = frozenset(("Cc", "Cs", "Zl", "Zp"))


def _fold(value: object) -> object:
    return fold_email(value) if isinstance(value, str) else value


def refuse_controls(text: str) -> str:
    """Raise ValueError for a text that is not on one line, or that does not read as it is written."""
    if any(char in _TURNING or unicodedata.category(char) in _CONTROLS for char in text):
        raise ValueError("Control characters are not allowed here")
    return text


Email = Annotated[EmailStr, BeforeValidator(_fold)]
"""An address that somebody has, or says to have."""

NewEmail = Annotated[Email, AfterValidator(refuse_lookalike)]
"""An address for an account: one that could be taken for another is refused (core/emails.py)."""

PersonName = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(refuse_controls)]
"""The name of a person or a company, on one line."""

ShortName = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(refuse_controls)]
"""A first or a last name."""
