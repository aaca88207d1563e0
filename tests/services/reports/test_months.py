"""Which months a report is about."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from core.errors import InvalidInput
from services.reports.months import Months

pytestmark = pytest.mark.embedded

NOW = datetime(2027, 3, 31, 23, 59, tzinfo=UTC)


def test_without_a_word_a_report_is_about_a_year() -> None:
    months = Months.asked(None, None, now=NOW)
    assert (months.first, months.last, len(list(months))) == (date(2026, 4, 1), date(2027, 3, 1), 12)
    assert months.ends_before == datetime(2027, 4, 1, tzinfo=UTC)
    east = NOW.replace(tzinfo=timezone(timedelta(hours=-1)))
    assert Months.asked(None, None, now=east).last == date(2027, 4, 1)


def test_months_go_over_the_end_of_a_year() -> None:
    months = Months.asked(date(2026, 11, 1), date(2027, 2, 1), now=NOW)
    assert list(months) == [date(2026, 11, 1), date(2026, 12, 1), date(2027, 1, 1), date(2027, 2, 1)]


@pytest.mark.parametrize("first", [date(2027, 3, 1), date(2022, 2, 1)], ids=["backwards", "too long"])
def test_what_is_no_range_is_refused(first: date) -> None:
    with pytest.raises(InvalidInput):
        Months.asked(first, date(2027, 2, 1), now=NOW)
