"""Windows of time in which so many hits are allowed."""

from typing import NamedTuple


class Window(NamedTuple):
    """Of the hits that are counted under `key`, `allowed` pass within `within_s` seconds."""

    key: str
    allowed: int
    within_s: int
