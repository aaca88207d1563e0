"""Passwords: argon2id for new ones, bcrypt taken over from the earlier systems, and never on the event loop."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator

import bcrypt
import pytest
from passlib.hash import argon2

from core.errors import Unavailable
from core.passwords import PasswordHasher, Verdict


@pytest.fixture(scope="module")
async def hasher() -> AsyncIterator[PasswordHasher]:
    hasher = PasswordHasher(workers=2)
    yield hasher
    hasher.close()


def bcrypt_of(password: bytes, prefix: bytes = b"2b") -> str:
    """Hash as the earlier systems did: bcrypt over the first 72 bytes."""
    salted: bytes = bcrypt.hashpw(password[:72], bcrypt.gensalt(rounds=4, prefix=b"2b"))
    return salted.replace(b"$2b$", b"$" + prefix + b"$", 1).decode()


async def test_new_hashes_are_argon2id(hasher: PasswordHasher) -> None:
    stored = await hasher.hash("correct horse")
    assert stored.startswith("$argon2id$")
    assert await hasher.verify("correct horse", stored) == Verdict(matches=True)
    assert await hasher.verify("Correct horse", stored) == Verdict(matches=False)
    assert stored != await hasher.hash("correct horse"), "every hash has its own salt"


async def test_a_hash_is_computed_by_one_thread_that_gives_way_to_the_event_loop(hasher: PasswordHasher) -> None:
    assert ",p=1$" in await hasher.hash("correct horse")
    if sys.platform == "linux":
        niceness = await hasher._run(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        assert niceness == min(19, os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) + 10)


async def test_a_hash_of_several_lanes_is_verified_and_upgraded(hasher: PasswordHasher) -> None:
    stored = argon2.using(parallelism=4).hash("correct horse")
    verdict = await hasher.verify("correct horse", stored)
    assert verdict.matches
    assert verdict.upgraded_hash is not None
    assert ",p=1$" in verdict.upgraded_hash


@pytest.mark.parametrize("password", ["", "пароль 🔑", "x" * 1000], ids=["empty", "other scripts", "long"])
async def test_any_text_is_a_password(hasher: PasswordHasher, password: str) -> None:
    stored = await hasher.hash(password)
    assert (await hasher.verify(password, stored)).matches
    assert not (await hasher.verify(password + " ", stored)).matches


class TestBcrypt:
    @pytest.mark.parametrize("prefix", [b"2a", b"2b", b"2y"])
    async def test_verifies_and_is_upgraded(self, hasher: PasswordHasher, prefix: bytes) -> None:
        verdict = await hasher.verify("password", bcrypt_of(b"password", prefix))
        assert verdict.matches
        assert verdict.upgraded_hash is not None
        assert verdict.upgraded_hash.startswith("$argon2id$")
        assert await hasher.verify("password", verdict.upgraded_hash) == Verdict(matches=True)

    async def test_a_wrong_password_is_not_upgraded(self, hasher: PasswordHasher) -> None:
        assert await hasher.verify("Password", bcrypt_of(b"password")) == Verdict(matches=False)

    async def test_is_cut_at_72_bytes_as_the_earlier_systems_did(self, hasher: PasswordHasher) -> None:
        long = "long " * 40
        verdict = await hasher.verify(long, bcrypt_of(long.encode()))
        assert verdict.matches
        assert verdict.upgraded_hash is not None
        assert (await hasher.verify(long, verdict.upgraded_hash)).matches
        assert not (await hasher.verify(long[:72], verdict.upgraded_hash)).matches, "the new hash covers all of it"

    async def test_the_cut_may_go_through_a_letter(self, hasher: PasswordHasher) -> None:
        password = "a" + "я" * 60
        assert (await hasher.verify(password, bcrypt_of(password.encode()))).matches


async def test_a_hash_that_was_cheaper_is_upgraded(hasher: PasswordHasher) -> None:
    frugal = PasswordHasher(memory_kib=1024, rounds=1)
    stored = await frugal.hash("correct horse")
    frugal.close()
    verdict = await hasher.verify("correct horse", stored)
    assert verdict.matches
    assert verdict.upgraded_hash is not None
    assert "m=65536,t=3" in verdict.upgraded_hash
    assert (await hasher.verify("wrong horse", stored)).upgraded_hash is None


@pytest.mark.parametrize("stored", ["", "!", "*", "plain text", "$1$old$hash", "$argon2id$broken", "$2b$broken"])
async def test_a_stored_hash_that_is_none_matches_nothing(hasher: PasswordHasher, stored: str) -> None:
    """An imported or locked account must fail to sign in like any other, not break the sign-in."""
    for password in ("", "password", stored):
        assert await hasher.verify(password, stored) == Verdict(matches=False)


async def test_an_endless_password_is_a_wrong_one(hasher: PasswordHasher) -> None:
    for stored in (await hasher.hash("password"), bcrypt_of(b"password"), None):
        assert await hasher.verify("p" * 100_000, stored) == Verdict(matches=False)


async def test_an_unknown_account_costs_one_verification(
    hasher: PasswordHasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs: list[str] = []
    real = hasher._context.verify

    def counting(secret: str | bytes, stored: str) -> bool:
        costs.append(stored)
        return bool(real(secret, stored))

    monkeypatch.setattr(hasher._context, "verify", counting)
    assert await hasher.verify("password", None) == Verdict(matches=False)
    (decoy,) = costs
    parameters, known = (stored.split("$")[:-2] for stored in (decoy, await hasher.hash("password")))
    assert parameters == known, "the same algorithm with the same costs as for an account that exists"


async def test_the_loop_keeps_ticking_while_passwords_are_checked(hasher: PasswordHasher) -> None:
    stored = await hasher.hash("correct horse")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticking = asyncio.create_task(tick())
    verdicts = await asyncio.gather(*(hasher.verify("correct horse", stored) for _ in range(10)))
    ticking.cancel()
    assert all(verdict.matches for verdict in verdicts)
    # On the loop, ten checks would leave room for a tick or two.
    assert ticks >= 10


async def test_a_storm_of_sign_ins_is_worked_off_by_a_few_threads() -> None:
    before = set(threading.enumerate())
    hasher = PasswordHasher(workers=2)
    stored = await hasher.hash("correct horse")
    await asyncio.gather(*(hasher.verify("correct horse", stored) for _ in range(6)))
    ours = {thread for thread in threading.enumerate() if thread.name.startswith("passwords")}
    assert len(ours - before) == 2
    hasher.close()
    with pytest.raises(RuntimeError):
        await hasher.hash("too late")


async def test_whoever_would_wait_too_long_is_sent_away() -> None:
    hasher = PasswordHasher(workers=2, waiting=3)
    stored = await hasher.hash("correct horse")

    outcomes = await asyncio.gather(
        *(hasher.verify("correct horse", stored) for _ in range(50)), return_exceptions=True
    )

    assert [outcome for outcome in outcomes if not isinstance(outcome, Unavailable)] == [Verdict(matches=True)] * 5
    assert {error.retry_after_s for error in outcomes if isinstance(error, Unavailable)} == {5}
    assert (await hasher.verify("correct horse", stored)).matches, "there is room again"
    hasher.close()
