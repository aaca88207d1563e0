"""Pages of a list: `page` and `size` are clamped silently, as the released clients expect (contract.md 1.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_SIZE = 100
# PostgreSQL's OFFSET is a bigint; a larger page could not be asked for in any case.
MAX_PAGE = 2**31


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page is wanted: `page` counts from 1, `size` is 1..100."""

    page: int = 1
    size: int = 20

    @classmethod
    def clamped(cls, page: int, size: int) -> "PageRequest":
        """Build a request from whatever a client sent, moved into bounds."""
        return cls(page=min(max(page, 1), MAX_PAGE), size=min(max(size, 1), MAX_SIZE))

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.size


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of items with the total number of items in the whole list."""

    items: Sequence[T]
    total: int
    request: PageRequest

    @property
    def pages(self) -> int:
        return -(-self.total // self.request.size)
