"""Sealing: secrets that must be read again, encrypted for the time that they lie in the database (AES-256-GCM)."""

import base64
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12


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
