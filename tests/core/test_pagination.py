"""Pages: what a client asks for is moved into bounds, and the number of pages is right at the edges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.pagination import MAX_PAGE, MAX_SIZE, Page, PageRequest


@pytest.mark.parametrize(
    ("page", "size", "expected"),
    [
        (1, 20, (1, 20)),
        (0, 999, (1, 100)),
        (-5, 0, (1, 1)),
        (-5, -5, (1, 1)),
        (3, 100, (3, 100)),
        (3, 101, (3, 100)),
        (10**30, 1, (MAX_PAGE, 1)),
    ],
)
def test_a_request_is_clamped(page: int, size: int, expected: tuple[int, int]) -> None:
    request = PageRequest.clamped(page, size)
    assert (request.page, request.size) == expected


def test_the_first_page_of_twenty_is_the_default() -> None:
    assert (PageRequest().page, PageRequest().size, PageRequest().offset) == (1, 20, 0)


@given(st.integers(), st.integers())
def test_whatever_is_asked_fits_into_a_query(page: int, size: int) -> None:
    request = PageRequest.clamped(page, size)
    assert 1 <= request.size <= MAX_SIZE
    assert 0 <= request.offset < 2**63, "PostgreSQL's OFFSET is a bigint"


@pytest.mark.parametrize(
    ("total", "size", "pages"), [(0, 20, 0), (1, 20, 1), (20, 20, 1), (21, 20, 2), (100, 1, 100), (101, 100, 2)]
)
def test_pages_are_counted(total: int, size: int, pages: int) -> None:
    page: Page[str] = Page(items=[], total=total, request=PageRequest(size=size))
    assert page.pages == pages


def test_pages_follow_each_other_without_gap_or_overlap() -> None:
    offsets = [PageRequest(page=page, size=7).offset for page in (1, 2, 3)]
    assert offsets == [0, 7, 14]
