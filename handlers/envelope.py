"""The envelope of the first ancestor's answers (contract.md 1.1), as models that answer and describe."""

from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from core.pagination import Page

T = TypeVar("T")


class Pagination(BaseModel):
    """Where a page lies in its list; `pages` is 0 for an empty list."""

    total: int
    page: int
    size: int
    pages: int

    @classmethod
    def of(cls, page: Page[Any]) -> "Pagination":
        return cls(total=page.total, page=page.request.page, size=page.request.size, pages=page.pages)


class Envelope(BaseModel, Generic[T]):
    """One thing."""

    status: str = "success"
    data: T
    error: None = None


class ListEnvelope(BaseModel, Generic[T]):
    """Many things, with their place in the whole list when it is paged."""

    status: str = "success"
    data: list[T]
    error: None = None
    pagination: Pagination | None


class MessageEnvelope(BaseModel):
    """A deed was done and there is nothing to show."""

    status: str = "success"
    message: str
