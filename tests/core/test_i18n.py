"""Texts for people: every language is complete, and the right one is chosen."""

import string
from pathlib import Path

import pytest

from core.i18n import DEFAULT_LOCALE, TEXTS, Catalogue, UnknownText


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("locale", sorted(TEXTS.locales))
def test_every_language_says_the_same_things(locale: str) -> None:
    assert TEXTS.keys(locale) == TEXTS.keys(DEFAULT_LOCALE)
    for key in TEXTS.keys(locale):
        # A place that a translation forgets or misspells would be noticed only when the letter is written.
        assert places(TEXTS.template(key, locale)) == places(TEXTS.template(key, DEFAULT_LOCALE)), key


def test_english_and_russian_are_spoken() -> None:
    assert {"en", "ru"} <= TEXTS.locales
    assert DEFAULT_LOCALE == "en"


def test_places_are_filled_and_values_are_left_alone() -> None:
    values = {"inviter": "{tenant} {0}", "tenant": "A & B"}

    assert TEXTS.text("letters.invitation.subject", "en", **values) == "{tenant} {0} invites you to A & B"


def test_what_a_language_lacks_is_said_in_english(tmp_path: Path) -> None:
    for locale, content in (("en", "hello: Hello\nmore: {deep: Deep}"), ("ru", "hello: Привет")):
        (tmp_path / locale).mkdir()
        (tmp_path / locale / "words.yml").write_text(content, encoding="utf-8")
    texts = Catalogue.load(tmp_path)

    assert texts.text("words.hello", "ru") == "Привет"
    assert texts.text("words.more.deep", "ru") == "Deep"
    assert texts.text("words.hello", "xx") == "Hello"
    with pytest.raises(UnknownText):
        texts.text("words.gone", "ru")


def test_a_file_of_anything_but_texts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "words.yml").write_text("number: 42")

    with pytest.raises(TypeError, match=r"words\.number"):
        Catalogue.load(tmp_path)


@pytest.mark.parametrize(
    ("header", "locale"),
    [
        (None, "en"),
        ("", "en"),
        ("ru", "ru"),
        ("ru-RU,ru;q=0.9,en;q=0.8", "ru"),
        ("en-GB,ru;q=0.9", "en"),
        ("de, ru;q=0.4, en;q=0.3", "ru"),
        ("ru;q=0.1, en;q=0.2", "en"),
        ("ru;q=0", "en"),
        ("RU", "ru"),
        ("*", "en"),
        ("fr, *;q=0.5", "en"),
        (";;;,,q=1, ru ; q=1.0", "ru"),
        ("\udcff, ru;q=2", "en"),
    ],
)
def test_a_browsers_wish_chooses_the_language(header: str | None, locale: str) -> None:
    assert TEXTS.negotiate(header) == locale
