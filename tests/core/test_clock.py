"""The clock tells an aware time."""

from datetime import UTC, datetime, timedelta

from core.clock import SystemClock


def test_the_system_clock_tells_utc() -> None:
    told = SystemClock().now()
    assert told.tzinfo is UTC
    assert abs(datetime.now(UTC) - told) < timedelta(seconds=5)
