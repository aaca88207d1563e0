"""Domain errors: statements with a stable code, a safe text, and what a client may be told besides."""

import re
from collections.abc import Iterator

import pytest

from core.errors import DomainError, ErrorKind, NotFound, RateLimited


def every_error(base: type[DomainError] = DomainError) -> Iterator[type[DomainError]]:
    for error in base.__subclasses__():
        # Other tests make errors of their own.
        if not error.__module__.startswith("tests."):
            yield error
            yield from every_error(error)


def test_an_error_says_what_its_class_says() -> None:
    error = NotFound()
    assert (error.kind, error.code, error.text, str(error)) == (
        ErrorKind.NOT_FOUND,
        "NOT_FOUND",
        "Not found",
        "Not found",
    )
    assert error.details == {}
    assert error.retry_after_s is None


def test_an_error_may_say_more() -> None:
    error = RateLimited("Slow down", details={"rule": "auth"}, retry_after_s=7)
    assert (error.text, error.details, error.retry_after_s) == ("Slow down", {"rule": "auth"}, 7)


@pytest.mark.parametrize("error", sorted(set(every_error()), key=str), ids=str)
def test_every_known_error_has_a_code_for_machines_and_a_text_for_people(error: type[DomainError]) -> None:
    assert re.fullmatch(r"[A-Z][A-Z_]*", error.code)
    assert error.message.strip()


def test_a_code_that_says_what_sort_of_refusal_it_is_says_so_everywhere() -> None:
    kinds = {
        "CONFLICT": ErrorKind.CONFLICT,
        "ALREADY_EXISTS": ErrorKind.CONFLICT,
        "VALIDATION_ERROR": ErrorKind.INVALID,
        "PERMISSION_DENIED": ErrorKind.FORBIDDEN,
        "NOT_FOUND": ErrorKind.NOT_FOUND,
        "RATE_LIMITED": ErrorKind.RATE_LIMITED,
        "UNAVAILABLE": ErrorKind.UNAVAILABLE,
        "BAD_REQUEST": ErrorKind.BAD_REQUEST,
    }
    others = {error.__name__ for error in every_error() if kinds.get(error.code, error.kind) is not error.kind}
    # Released clients get 400 for these two: for a job that cannot be retried, and for a phone that is somebody's
    # (contract.md 1.5, 2.3).
    assert others == {"JobNotRetryable", "PhoneTaken"}
