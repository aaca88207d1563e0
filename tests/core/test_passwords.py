"""Hashes of passwords: argon2id for new ones, and bcrypt taken over from the earlier systems."""

from typing import Any

import bcrypt
import pytest
from passlib.hash import argon2

from core.passwords import Hashes, Verdict


@pytest.fixture(scope="module")
def hashes() -> Hashes:
    return Hashes(memory_kib=64 * 1024, rounds=3)


def bcrypt_of(password: bytes, prefix: bytes = b"2b", rounds: int = 4) -> str:
    """Hash as the earlier systems did: bcrypt over the first 72 bytes."""
    salted: bytes = bcrypt.hashpw(password[:72], bcrypt.gensalt(rounds=rounds, prefix=b"2b"))
    return salted.replace(b"$2b$", b"$" + prefix + b"$", 1).decode()


def test_new_hashes_are_argon2id(hashes: Hashes) -> None:
    stored = hashes.hash("correct horse")
    assert stored.startswith("$argon2id$")
    assert hashes.check("correct horse", stored) == Verdict(matches=True)
    assert hashes.check("Correct horse", stored) == Verdict(matches=False)
    assert stored != hashes.hash("correct horse"), "every hash has its own salt"


def test_a_hash_of_several_lanes_is_verified_and_upgraded(hashes: Hashes) -> None:
    stored = argon2.using(parallelism=4).hash("correct horse")
    verdict = hashes.check("correct horse", stored)
    assert verdict.matches
    assert verdict.upgraded_hash is not None
    assert ",p=1$" in verdict.upgraded_hash


@pytest.mark.parametrize("password", ["", "пароль 🔑", "x" * 1000], ids=["empty", "other scripts", "long"])
def test_any_text_is_a_password(hashes: Hashes, password: str) -> None:
    stored = hashes.hash(password)
    assert hashes.check(password, stored).matches
    assert not hashes.check(password + " ", stored).matches


class TestBcrypt:
    @pytest.mark.parametrize("prefix", [b"2a", b"2b", b"2y"])
    def test_verifies_and_is_upgraded(self, hashes: Hashes, prefix: bytes) -> None:
        verdict = hashes.check("password", bcrypt_of(b"password", prefix))
        assert verdict.matches
        assert verdict.upgraded_hash is not None
        assert verdict.upgraded_hash.startswith("$argon2id$")
        assert hashes.check("password", verdict.upgraded_hash) == Verdict(matches=True)

    def test_a_wrong_password_is_not_upgraded(self, hashes: Hashes) -> None:
        assert hashes.check("Password", bcrypt_of(b"password")) == Verdict(matches=False)

    def test_is_cut_at_72_bytes_as_the_earlier_systems_did(self, hashes: Hashes) -> None:
        long = "long " * 40
        verdict = hashes.check(long, bcrypt_of(long.encode()))
        assert verdict.matches
        assert verdict.upgraded_hash is not None
        assert hashes.check(long, verdict.upgraded_hash).matches
        assert not hashes.check(long[:72], verdict.upgraded_hash).matches, "the new hash covers all of it"

    def test_the_cut_may_go_through_a_letter(self, hashes: Hashes) -> None:
        password = "a" + "я" * 60
        assert (hashes.check(password, bcrypt_of(password.encode()))).matches


def test_a_hash_that_was_cheaper_is_upgraded(hashes: Hashes) -> None:
    frugal = Hashes(memory_kib=1024, rounds=1)
    stored = frugal.hash("correct horse")
    verdict = hashes.check("correct horse", stored)
    assert verdict.matches
    assert verdict.upgraded_hash is not None
    assert "m=65536,t=3" in verdict.upgraded_hash
    assert hashes.check("wrong horse", stored).upgraded_hash is None


@pytest.mark.parametrize("stored", ["", "!", "*", "plain text", "$1$old$hash", "$argon2id$broken", "$2b$broken"])
def test_a_stored_hash_that_is_none_matches_nothing(hashes: Hashes, stored: str) -> None:
    """An imported or locked account must fail to sign in like any other, not break the sign-in."""
    for password in ("", "password", stored):
        assert hashes.check(password, stored) == Verdict(matches=False)


def test_an_endless_password_is_a_wrong_one(hashes: Hashes) -> None:
    for stored in (hashes.hash("password"), bcrypt_of(b"password"), None):
        assert hashes.check("p" * 100_000, stored) == Verdict(matches=False)


def test_an_unknown_account_costs_one_verification(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = Hashes(memory_kib=1024, rounds=2)
    costs: list[str] = []
    real = hashes._context.verify

    def counting(secret: str | bytes, stored: str) -> bool:
        costs.append(stored)
        return bool(real(secret, stored))

    monkeypatch.setattr(hashes._context, "verify", counting)
    assert hashes.check("password", None) == Verdict(matches=False)
    (decoy,) = costs
    parameters, known = (stored.split("$")[:-2] for stored in (decoy, hashes.hash("password")))
    assert parameters == known, "the same algorithm with the same costs as for an account that exists"


class TestAsMuchWorkForAll:
    """A refusal costs the same whoever it is about, also where some accounts have hashes of an earlier system."""

    @pytest.mark.parametrize(
        "stored",
        [
            "argon2",
            "bcrypt",
            None,
            "!",
            "$argon2id$broken",
            "$2b$broken",
        ],
    )
    @pytest.mark.parametrize("password", ["wrong", "w" * 2000], ids=["short", "endless"])
    def test_both_algorithms_are_asked_once(
        self, stored: str | None, password: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hashes = Hashes(memory_kib=64, rounds=1, earlier_bcrypt_rounds=5)
        made = {"argon2": hashes.hash("right"), "bcrypt": bcrypt_of(b"right", rounds=5)}
        asked = spy(hashes, monkeypatch)

        assert hashes.check(password, made.get(stored or "", stored)) == Verdict(matches=False)

        assert sorted(asked) == ["$2b$05", "$argon2id$v=19$m=64,t=1,p=1"]

    @pytest.mark.parametrize("known", [True, False])
    def test_where_there_are_no_earlier_hashes_nobody_pays_for_two(
        self, known: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hashes = Hashes(memory_kib=64, rounds=1)
        stored = hashes.hash("right") if known else None
        asked = spy(hashes, monkeypatch)
        assert hashes.check("wrong", stored) == Verdict(matches=False)
        assert asked == ["$argon2id$v=19$m=64,t=1,p=1"]

    @pytest.mark.parametrize("stored", ["argon2", "bcrypt"])
    def test_who_is_let_in_pays_for_one(self, stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
        hashes = Hashes(memory_kib=64, rounds=1, earlier_bcrypt_rounds=5)
        made = {"argon2": hashes.hash("right"), "bcrypt": bcrypt_of(b"right", rounds=5)}
        asked = spy(hashes, monkeypatch)
        assert hashes.check("right", made[stored]).matches
        assert len(asked) == 1


def spy(hashes: Hashes, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note what each verification that is carried out to the end costs: the algorithm and its parameters."""
    asked: list[str] = []
    context = hashes._context
    for name in ("verify", "verify_and_update"):
        real = getattr(context, name)

        def noting(secret: bytes, stored: str, real: Any = real) -> Any:
            outcome = real(secret, stored)
            asked.append(stored.rpartition("$")[0] if stored.startswith("$2") else "$".join(stored.split("$")[:4]))
            return outcome

        monkeypatch.setattr(context, name, noting)
    return asked
