"""Sealed secrets: opened by whoever has the key, for what they were sealed for, and unchanged."""

import base64
import os

import pytest

from core.sealing import SealBroken, Sealer

KEY, FORMER = os.urandom(32), os.urandom(32)


@pytest.mark.parametrize(
    "text", ["", "JBSWY3DPEHPK3PXP", "секрет 🔑", "x" * 10_000], ids=["empty", "usual", "text", "long"]
)
def test_what_was_sealed_is_opened(text: str) -> None:
    sealer = Sealer([KEY])
    sealed = sealer.seal(text, subject="user 1")

    assert sealer.open(sealed, subject="user 1") == text
    assert sealed != sealer.seal(text, subject="user 1"), "every seal has its own nonce"
    assert not text or text.encode() not in base64.urlsafe_b64decode(sealed)


def test_a_row_moved_to_somebody_else_opens_nothing() -> None:
    sealer = Sealer([KEY])
    with pytest.raises(SealBroken):
        sealer.open(sealer.seal("secret", subject="user 1"), subject="user 2")


def test_a_former_key_opens_and_the_newest_seals() -> None:
    sealed = Sealer([FORMER]).seal("secret", subject="x")
    both = Sealer([KEY, FORMER])

    assert both.open(sealed, subject="x") == "secret"
    assert Sealer([KEY]).open(both.seal("secret", subject="x"), subject="x") == "secret"
    with pytest.raises(SealBroken):
        Sealer([KEY]).open(sealed, subject="x")


@pytest.mark.parametrize("sealed", ["", "x", "AAAA", "A" * 60, "ü", "=" * 8])
def test_noise_is_refused(sealed: str) -> None:
    with pytest.raises(SealBroken):
        Sealer([KEY]).open(sealed, subject="x")


def test_a_changed_bit_is_noticed() -> None:
    raw = bytearray(base64.urlsafe_b64decode(Sealer([KEY]).seal("secret", subject="x")))
    for place in range(len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 1
        with pytest.raises(SealBroken):
            Sealer([KEY]).open(base64.urlsafe_b64encode(changed).decode(), subject="x")
