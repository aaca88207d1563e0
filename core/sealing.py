"""Sealing: secrets that must be read again, encrypted for the time that they lie in the database (AES-256-GCM)."""

import base64
import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12
_KEY_BYTES = 32
_ID_LENGTH = 16


class SealBroken(Exception):
    """What should be opened was sealed with another key, for something else, or was changed."""


class Sealer:
    """Seals with the first of `keys` (32 bytes each) and opens what any of them has sealed."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._ciphers = [AESGCM(key) for key in keys]

    def seal(self, text: str, *, subject: str) -> str:
        """Encrypt a text; `subject` says what it belongs to, so that it opens nowhere else in the database."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[0].encrypt(nonce, text.encode(), subject.encode())
        return base64.urlsafe_b64encode(nonce + sealed).decode()

    def open(self, sealed: str, *, subject: str) -> str:
        """Decrypt what was sealed for `subject`; raises SealBroken."""
        try:
            raw = base64.urlsafe_b64decode(sealed)
        except ValueError as error:
            raise SealBroken from error
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], subject.encode()).decode()
            except (InvalidTag, ValueError):
                continue
        raise SealBroken


class KeyUnusable(ValueError):
    """What should be a key is none."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed text and the name of the key that sealed it; the name tells nothing of the key."""

    key_id: str
    content: str


class KeyRing:
    """Seals with the first of `keys` and names it beside, so that what an older one has sealed can be found.

    Whoever replaces a key seals anew whatever does not bear the name of the `newest`.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._sealers = {_key_id(key): Sealer([key]) for key in keys}
        self.newest = _key_id(keys[0])

    def seal(self, text: str, *, subject: str) -> Sealed:
        """Encrypt a text under a nonce of its own; it opens for `subject` alone."""
        return Sealed(self.newest, self._sealers[self.newest].seal(text, subject=subject))

    def open(self, sealed: Sealed, *, subject: str) -> str:
        """Decrypt what was sealed for `subject`; raises SealBroken, also when the key is not on the ring."""
        sealer = self._sealers.get(sealed.key_id)
        if sealer is None:
            raise SealBroken
        return sealer.open(sealed.content, subject=subject)


def read_key(text: str) -> bytes:
    """Read a key of 32 bytes from base64, of either alphabet; raises KeyUnusable without repeating the text."""
    try:
        key = base64.b64decode(text.strip().translate(str.maketrans("-_", "+/")), validate=True)
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise KeyUnusable("a key is 32 bytes in base64, such as `openssl rand -base64 32` makes")
    return key


def new_key() -> str:
    """Make a key, as `read_key` reads it."""
    return base64.b64encode(os.urandom(_KEY_BYTES)).decode()


def _key_id(key: bytes) -> str:
    return hmac.digest(key, b"id of the sealing key", hashlib.sha256).hex()[:_ID_LENGTH]
