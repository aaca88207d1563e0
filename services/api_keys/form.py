"""What a key looks like: `erpmax_<prefix>_<secret>`, in which scanners of leaked secrets know it by its first word.

The prefix is shown and finds the key; the secret has 256 random bits, so that a plain hash of it gives nothing away.
"""

import re
import secrets
import string
from dataclasses import dataclass, field

from core.tokens import token_hash

_MARK = "erpmax_"
_PREFIX_LETTERS = string.ascii_lowercase + string.digits
_SECRET_LETTERS = string.ascii_letters + string.digits
_PREFIX_LENGTH = 8
# 43 of 62 letters are 256 bits.
_SECRET_LENGTH = 43
_SHAPE = re.compile(rf"({_MARK}[a-z0-9]{{{_PREFIX_LENGTH}}})_([A-Za-z0-9]{{{_SECRET_LENGTH}}})")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyText:
    """A key in its two halves."""

    prefix: str
    secret: str = field(repr=False)

    @property
    def whole(self) -> str:
        return f"{self.prefix}_{self.secret}"

    @property
    def secret_hash(self) -> str:
        """The hex SHA-256 that is stored."""
        return token_hash(self.secret)


def new_key() -> KeyText:
    """Make a key."""
    return KeyText(
        prefix=_MARK + _random(_PREFIX_LETTERS, _PREFIX_LENGTH), secret=_random(_SECRET_LETTERS, _SECRET_LENGTH)
    )


def is_key(text: str) -> bool:
    """Tell whether a token says to be a key; no JWT does."""
    return text.startswith(_MARK)


def read_key(text: str) -> KeyText | None:
    """Return a key's halves, or None when it has not the shape of one."""
    found = _SHAPE.fullmatch(text)
    return KeyText(prefix=found[1], secret=found[2]) if found else None


def _random(letters: str, length: int) -> str:
    return "".join(secrets.choice(letters) for _ in range(length))
