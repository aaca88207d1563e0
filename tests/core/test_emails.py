"""Addresses that look alike: one spelling each, and none that could be read as another one."""

import pytest
from email_validator import validate_email

from core.emails import LookalikeEmail, fold_email, refuse_lookalike


def taken(text: str) -> str:
    """Return an address as an account gets it."""
    return refuse_lookalike(validate_email(fold_email(text), check_deliverability=False).normalized)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ivan+shop@EXAMPLE.com", "ivan+shop@example.com"),
        ("ｉｖａｎ@example.com", "ivan@example.com"),
        ("ivan＠example.com", "ivan@example.com"),
        ("\ufb01na@example.com", "fina@example.com"),
        ("\u212aarl@example.com", "Karl@example.com"),
        ("ivan@ｅxample.com", "ivan@example.com"),
        ("ivan@xn--e1afmkfd.xn--p1ai", "ivan@пример.рф"),
        ("jose\u0301@example.com", "josé@example.com"),
    ],
)
def test_other_forms_of_a_letter_are_the_letter(text: str, address: str) -> None:
    assert taken(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "o'brien_1@example.com",
        "жанна@пример.рф",
        "жанна.1@почта.пример.рф",
        "山田たろう@例え.jp",
        "søren@example.dk",
        "ivan@пример.рф",
    ],
)
def test_what_people_really_have_is_taken(text: str) -> None:
    assert taken(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "iv\u0430n@example.com",  # a Cyrillic a among Latin letters
        "\u0441\u0430\u0440\u0435@example.com",  # all Cyrillic, and reads "cape"
        "\u03bf@example.com",  # a Greek omicron
        "ivan@ex\u0430mple.com",
        "\u0456van@пример.рф",
        "\u0131van@example.com",  # a dotless i
        "\u0130van@example.com",  # and an I with a dot
        "iv\u0251n@example.com",  # the phonetic a
        "ivan\u2010x@example.com",  # a hyphen that is not ASCII's
        "ivan\u0660@example.com",  # an Arabic zero
        "a\u0338@example.com",  # a stroke that makes no letter
    ],
    ids=ascii,
)
def test_what_reads_as_another_address_is_refused(text: str) -> None:
    with pytest.raises(LookalikeEmail):
        taken(text)


def test_a_text_that_is_too_long_for_an_address_is_left_alone() -> None:
    assert fold_email("ｉ" * 321) == "ｉ" * 321
