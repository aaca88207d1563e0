"""Slugs: every company name, in whatever script, gives a name fit for a subdomain."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.slugs import make_slug


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


@given(st.text(max_size=255) | st.text("ab ", min_size=50, max_size=255))
def test_every_name_gives_a_valid_label_with_room_for_a_suffix(name: str) -> None:
    slug = make_slug(name)
    label = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
    assert label.fullmatch(slug)
    assert label.fullmatch(f"{slug}-1000")
    assert label.fullmatch(f"{slug}-0123abcd")
