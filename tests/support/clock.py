"""A clock that tests can move."""

from datetime import UTC, datetime, timedelta


class MovableClock:
    """The machine's clock, moved by `offset`."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset
