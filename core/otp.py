"""One-time codes that people type: made by a CSPRNG, stored as a keyed hash, compared in constant time.

A code has a million values, so a plain hash of it is undone in a moment; the key keeps a stolen database useless.
How long a code lives and how many guesses it bears is for the service that stores it.
"""

import hashlib
import hmac
import secrets
from typing import Final

CODE_DIGITS: Final = 6

# Longer than any code that is issued; more is noise and is not hashed.
_LONGEST: Final = 64


def new_code() -> str:
    """Return six decimal digits, each of the million values as likely as any other (contract.md 2.6)."""
    return f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}d}"


class CodeHasher:
    """Hashes codes under one secret.

    Args:
        secret: the server's secret. A key of its own is derived from it, so that these hashes serve nowhere else.
    """

    def __init__(self, secret: str) -> None:
        self._key = hmac.digest(secret.encode(), b"one-time codes", hashlib.sha256)

    def digest(self, code: str, *, subject: str) -> str:
        """Return the hex HMAC-SHA256 (64 characters) under which a code is stored.

        `subject` says what the code opens (`phone-login:+79991234567`). The hash holds for it alone, so that a row
        moved elsewhere in the database opens nothing there.
        """
        # With its length in front, no subject can run into the code.
        bound = f"{len(subject)}:{subject}:{code}"
        return hmac.new(self._key, bound.encode(), hashlib.sha256).hexdigest()

    def matches(self, code: str, stored: str, *, subject: str) -> bool:
        """Compare what somebody typed with a stored hash; any text is answered, and none raises."""
        # Other scripts' digits are other characters here; and lone surrogates, which JSON may carry, have no encoding.
        if not code.isascii() or len(code) > _LONGEST:
            return False
        return hmac.compare_digest(self.digest(code, subject=subject), stored)
