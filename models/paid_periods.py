"""What a subscription is paid for, from when to when, as we count it or as the provider tells."""

from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Mapped

from models.endings import Ending


class PaidPeriod(Ending):
    """The part of a subscription that knows its period; nothing is paid for beyond its end."""

    current_period_start: Mapped[datetime]
    current_period_end: Mapped[datetime]
    # The day of the month that periods end on wherever the provider does not say.
    anchor_day: Mapped[int]
    period_facts_until: Mapped[datetime | None]

    @property
    def ends_at(self) -> datetime:
        """When what is paid for ends."""
        return self.current_period_end

    def warn_of_end(self, thresholds: tuple[int, ...], *, now: datetime) -> int | None:
        """Return the days left (rounded up) when a warning is due, once for each of `thresholds` and end."""
        days_left = -((now - self.ends_at) // timedelta(days=1))
        due = min((days for days in thresholds if days_left <= days), default=None)
        warned = self.expiry_warned_days
        if due is None or days_left < 1 or (warned is not None and warned <= due):
            return None
        self.expiry_warned_days = due
        return days_left

    def _take_period(self, period: tuple[datetime | None, datetime], at: datetime) -> None:
        """Take over the period that a provider tells of at `at`; without a start it is the one in force."""
        start, end = period
        known = self.period_facts_until
        # Of two facts of one moment, the period that ends later was bought last.
        if known is not None and (at < known or (at == known and end < self.current_period_end)):
            return
        if start is None:
            self._set_period(self.current_period_start, end)
            return
        self.period_facts_until = at
        self.anchor_day = start.astimezone(UTC).day
        self._set_period(start, end)

    def _set_period(self, start: datetime, end: datetime) -> None:
        if self.ended_at is not None:
            start, end = min(start, self.ended_at), self.ended_at
        if end != self.current_period_end:
            self.expiry_warned_days = None
        self.current_period_start, self.current_period_end = start, end
