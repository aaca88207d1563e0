"""One-time codes: unguessable, bound to what they open, and never stored as they are."""

import hashlib
import hmac
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.otp import CodeHasher, new_code

SUBJECT = "phone-login:+79991234567"


@pytest.fixture
def hasher() -> CodeHasher:
    return CodeHasher("a secret of the server")


def test_codes_are_six_ascii_digits() -> None:
    assert all(re.fullmatch(r"[0-9]{6}", new_code(), re.ASCII) for _ in range(1000))


def test_every_digit_comes_in_every_place() -> None:
    """A place that lacked a digit, such as a leading zero, would make codes easier to guess."""
    codes = [new_code() for _ in range(5000)]
    for place in range(6):
        seen = Counter(code[place] for code in codes)
        assert set(seen) == set("0123456789")
        # Each is expected 500 times with a standard deviation of 21; ten of these never happen by chance.
        assert all(290 < times < 710 for times in seen.values())


def test_a_code_opens_what_it_was_made_for(hasher: CodeHasher) -> None:
    stored = hasher.digest("012345", subject=SUBJECT)
    assert hasher.matches("012345", stored, subject=SUBJECT)


@pytest.mark.parametrize(
    "typed",
    [
        "012346",
        "12345",
        "0123456",
        "",
        " 012345",
        "012345\n",
        "012345\x00",
        "٠١٢٣٤٥",
        "０１２３４５",
        "\ud800",
        "0" * 10**6,
    ],
    ids=lambda text: ascii(text[:10]),
)
def test_nothing_else_opens_it(hasher: CodeHasher, typed: str) -> None:
    stored = hasher.digest("012345", subject=SUBJECT)
    assert not hasher.matches(typed, stored, subject=SUBJECT)


def test_it_opens_nothing_else(hasher: CodeHasher) -> None:
    stored = hasher.digest("012345", subject=SUBJECT)
    assert not hasher.matches("012345", stored, subject="phone-login:+79991234568")
    assert not hasher.matches("012345", stored, subject="password-reset:+79991234567")


@given(st.text(alphabet="ab:01", max_size=6), st.text(alphabet="ab:01", max_size=6), st.integers(1, 5))
def test_a_subject_cannot_run_into_the_code(subject: str, code: str, moved: int) -> None:
    hasher = CodeHasher("s")
    whole = f"{subject}:{code}"
    other_subject, other_code = whole[:moved], whole[moved + 1 :]
    same = (other_subject, other_code) == (subject, code)
    assert (hasher.digest(other_code, subject=other_subject) == hasher.digest(code, subject=subject)) is same


def test_what_is_stored_needs_the_secret_to_be_searched(hasher: CodeHasher) -> None:
    stored = hasher.digest("012345", subject=SUBJECT)
    assert re.fullmatch(r"[0-9a-f]{64}", stored)
    assert not CodeHasher("another secret").matches("012345", stored, subject=SUBJECT)
    guesses = {f"{number:06d}" for number in (12345, 0)}
    assert stored not in {hashlib.sha256(guess.encode()).hexdigest() for guess in guesses}


def test_what_is_stored_is_hmac_under_a_key_of_its_own(hasher: CodeHasher) -> None:
    """Written down by the book, so that a change of it, which would end every code that lives, is noticed."""
    key = hmac.new(b"a secret of the server", b"one-time codes", hashlib.sha256).digest()
    expected = hmac.new(key, b"24:phone-login:+79991234567:012345", hashlib.sha256).hexdigest()
    assert hasher.digest("012345", subject=SUBJECT) == expected
