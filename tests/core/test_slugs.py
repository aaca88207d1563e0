"""Slugs: every company name, in whatever script, gives a name fit for a subdomain."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.slugs import is_slug, make_slug


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Test Company", "test-company"),
        ("ООО Ромашка", "ooo-romashka"),
        ("Ёлки-Палки", "elki-palki"),
        ("Ünïcödé & Söhne", "unicode-sohne"),
        ("under_score", "under-score"),
        ("  --Acme--  Ltd.  ", "acme-ltd"),
        ("2 Fast 4 You", "2-fast-4-you"),
    ],
)
def test_names_are_transliterated(name: str, slug: str) -> None:
    assert make_slug(name) == slug


@pytest.mark.parametrize("name", ["", "   ", "!!!", "---", "😀 🎉", "\u200b"])
def test_a_name_without_letters_gets_one_that_nobody_else_has(name: str) -> None:
    slugs = {make_slug(name) for _ in range(20)}
    assert len(slugs) == 20
    assert all(re.fullmatch(r"tenant-[0-9a-f]{8}", slug) for slug in slugs)


@given(st.text(max_size=255))
def test_every_name_gives_a_valid_label_with_room_for_a_suffix(name: str) -> None:
    slug = make_slug(name)
    assert is_slug(slug)
    assert is_slug(f"{slug}-1000")


@pytest.mark.parametrize("text", ["a", "1", "ab", "a-b", "a--b", "xn--80ak6aa92e", "a" * 63])
def test_labels_are_recognised(text: str) -> None:
    assert is_slug(text)


@pytest.mark.parametrize("text", ["", "-", "-a", "a-", "A", "a.b", "a_b", "a b", "é", "a\n", "\na", "a" * 64, "а"])
def test_what_is_no_label_is_refused(text: str) -> None:
    assert not is_slug(text)
