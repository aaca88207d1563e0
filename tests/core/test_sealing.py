"""Sealed secrets: opened by whoever has the key, for what they were sealed for, and unchanged."""

import base64
import os

import pytest

from core.sealing import KeyRing, KeyUnusable, SealBroken, Sealed, Sealer, new_key, read_key

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


class TestKeyRing:
    def test_the_key_is_named_and_the_name_tells_nothing_of_it(self) -> None:
        sealed = KeyRing([KEY]).seal("secret", subject="x")
        assert sealed.key_id == KeyRing([KEY, FORMER]).newest != KeyRing([FORMER]).newest
        assert sealed.key_id not in (KEY.hex()[:16], base64.b64encode(KEY).decode()[:16])
        assert sealed.content != KeyRing([KEY]).seal("secret", subject="x").content

    def test_every_key_of_the_ring_opens_and_the_first_seals(self) -> None:
        former = KeyRing([FORMER]).seal("secret", subject="x")
        ring = KeyRing([KEY, FORMER])
        assert ring.open(former, subject="x") == "secret"
        assert KeyRing([KEY]).open(ring.seal("secret", subject="x"), subject="x") == "secret"

    def test_what_was_sealed_elsewhere_is_refused(self) -> None:
        sealed = KeyRing([KEY]).seal("secret", subject="x")
        for ring, found, subject in (
            (KeyRing([KEY]), sealed, "y"),
            (KeyRing([FORMER]), sealed, "x"),
            (KeyRing([FORMER]), Sealed(KeyRing([FORMER]).newest, sealed.content), "x"),
            (KeyRing([KEY]), Sealed("", sealed.content), "x"),
        ):
            with pytest.raises(SealBroken):
                ring.open(found, subject=subject)

    def test_keys_are_read_from_either_base64(self) -> None:
        raw = b"\xfb\xff" * 16
        assert read_key(base64.b64encode(raw).decode()) == read_key(base64.urlsafe_b64encode(raw).decode()) == raw
        assert len(read_key(new_key())) == 32
        assert new_key() != new_key()

    @pytest.mark.parametrize("text", ["", "short", "a" * 43, "a" * 44, base64.b64encode(b"x" * 31).decode(), "ü" * 44])
    def test_what_is_no_key_is_refused_without_repeating_it(self, text: str) -> None:
        with pytest.raises(KeyUnusable) as refusal:
            read_key(text)
        assert not text or text not in str(refusal.value)
