"""The second factor: codes of an authenticator app (TOTP, RFC 6238) and recovery codes for when it is lost.

SHA-1, six digits and 30 seconds are what every authenticator app reads.
"""

import hmac
import secrets
from collections.abc import Iterable
from datetime import datetime
from typing import Final

import pyotp

from core.otp import CodeHasher

STEP_S: Final = 30
DIGITS: Final = 6
RECOVERY_CODES: Final = 10

# One step to each side: the clocks of phones are rarely further off, and RFC 6238 5.2 recommends no more.
_WINDOW: Final = (-1, 0, 1)
# Crockford's base 32: none of its characters is taken for another one.
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_HALF: Final = 5
# What people type for characters that the alphabet leaves out, and what they put between the halves.
_READ_AS: Final = str.maketrans({"o": "0", "i": "1", "l": "1", "-": None, " ": None})


def new_totp_secret() -> str:
    """Return 160 random bits in base 32 (32 characters), as RFC 4226 4 recommends.

    Whoever has it makes valid codes, so it is shown once and stored encrypted, never hashed: checking needs it.
    """
    return pyotp.random_base32()


def provisioning_uri(secret: str, *, account: str, issuer: str) -> str:
    """Return the `otpauth://totp/...` address that an authenticator app reads from a QR code.

    `account` (an e-mail address or a phone) and `issuer` are what the app shows beside the code.
    """
    return pyotp.TOTP(secret, digits=DIGITS, interval=STEP_S).provisioning_uri(name=account, issuer_name=issuer)


def accepted_counter(secret: str, code: str, *, now: datetime, last_counter: int | None) -> int | None:
    """Check a code; return the number of the time step that it belongs to, None if it is wrong or was used.

    The caller stores the answer and hands it in as `last_counter` the next time. To withstand two requests at once, it
    must store it under the condition that the stored value is still smaller.

    Args:
        secret: base 32, from `new_totp_secret`.
        code: what somebody typed; spaces around and within are ignored, as apps show `123 456`.
        now: aware; codes of the step before and after are good too.
        last_counter: the step accepted last. It and those before it are refused (RFC 6238 5.2: a code is good once).
    """
    typed = code.replace(" ", "")
    if len(typed) != DIGITS or not typed.isascii():
        return None
    totp = pyotp.TOTP(secret, digits=DIGITS, interval=STEP_S)
    current = int(now.timestamp()) // STEP_S
    found: int | None = None
    # All steps are always compared, so that the answer's time does not tell which of them matched.
    for counter in (current + offset for offset in _WINDOW):
        is_equal = hmac.compare_digest(totp.generate_otp(counter), typed)
        if is_equal and (last_counter is None or counter > last_counter):
            found = counter
    return found


def new_recovery_codes() -> tuple[str, ...]:
    """Return ten different codes such as `7h2kq-m0x4d`, 50 random bits each, to be shown once."""
    codes: set[str] = set()
    while len(codes) < RECOVERY_CODES:
        codes.add(f"{_random_half()}-{_random_half()}")
    return tuple(codes)


def recovery_digest(code: str, hasher: CodeHasher, *, subject: str) -> str:
    """Return the hash under which a recovery code is stored; `subject` names the user it belongs to."""
    return hasher.digest(_as_issued(code), subject=subject)


def matching_recovery_digest(code: str, digests: Iterable[str], hasher: CodeHasher, *, subject: str) -> str | None:
    """Find the stored hash that a typed code belongs to, for the caller to burn; None if there is none.

    Upper case, spaces, a missing hyphen, and `o`, `i`, `l` for `0`, `1`, `1` are forgiven.
    """
    if not code.isascii():
        # Lower case would turn some other scripts' letters into ours, such as the sign of the kelvin.
        return None
    typed = _as_issued(code)
    found: str | None = None
    # Every hash is compared, so that the time tells nothing of where the code stands.
    for digest in digests:
        if hasher.matches(typed, digest, subject=subject):
            found = digest
    return found


def _random_half() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(_HALF))


def _as_issued(code: str) -> str:
    return code.lower().translate(_READ_AS)
