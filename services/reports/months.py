"""Which months a report is about: whole months of UTC."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final, Self

from core.errors import InvalidInput

_MONTHS_A_YEAR: Final = 12
_LONGEST: Final = 60


@dataclass(frozen=True, slots=True)
class Months:
    """All months from `first` to `last`, each by its first day."""

    first: date
    last: date

    @classmethod
    def asked(cls, first: date | None, last: date | None, *, now: datetime) -> Self:
        """Return the months that were asked for; without a word the twelve up to now.

        Raises InvalidInput when they end before they begin, or are more than five years.
        """
        last = last or now.astimezone(UTC).date().replace(day=1)
        first = first or _moved(last, 1 - _MONTHS_A_YEAR)
        count = (last.year - first.year) * _MONTHS_A_YEAR + last.month - first.month + 1
        if not 1 <= count <= _LONGEST:
            message = f"is to be the same month or a later one, at most {_LONGEST} months in all"
            raise InvalidInput(
                details={"errors": [{"field": "query -> to", "message": message, "type": "value_error"}]}
            )
        return cls(first, last)

    def __iter__(self) -> Iterator[date]:
        month = self.first
        while month <= self.last:
            yield month
            month = _moved(month, 1)

    @property
    def begins_at(self) -> datetime:
        return begin_of(self.first)

    @property
    def ends_before(self) -> datetime:
        """The moment at which the last month is over."""
        return end_of(self.last)


def begin_of(month: date) -> datetime:
    """Return when a month begins."""
    return datetime(month.year, month.month, 1, tzinfo=UTC)


def end_of(month: date) -> datetime:
    """Return when a month is over, which is when the next begins."""
    return begin_of(_moved(month, 1))


def _moved(month: date, by: int) -> date:
    number = month.year * _MONTHS_A_YEAR + month.month - 1 + by
    return date(number // _MONTHS_A_YEAR, number % _MONTHS_A_YEAR + 1, 1)
