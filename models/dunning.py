"""Dunning: what time does to a subscription that is not paid (providers.md 1.1)."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.orm import Mapped, mapped_column

LAST_WORD = timedelta(days=1)
"""How long after the last attempt its outcome is waited for."""


class Dunning:
    """The part of a subscription that counts the attempts to collect what is overdue.

    `overdue_since` is set by our clock while the subscription is past due; `dunned` is how many of the attempts have
    been made since.
    """

    overdue_since: Mapped[datetime | None]
    dunned: Mapped[int] = mapped_column(default=0, server_default=text("0"))

    def note_overdue(self, *, is_overdue: bool, now: datetime) -> None:
        """Begin to count, or stop."""
        if not is_overdue:
            self.overdue_since, self.dunned = None, 0
        elif self.overdue_since is None:
            self.overdue_since, self.dunned = now, 0

    def dun(self, pauses: Sequence[timedelta], *, now: datetime) -> bool:
        """Count the attempts that are due by now, all of those that were missed as one; tells whether to make one."""
        due = sum(1 for at in self._attempts(pauses) if at <= now)
        if due <= self.dunned:
            return False
        self.dunned = due
        return True

    def is_given_up(self, pauses: Sequence[timedelta], *, now: datetime) -> bool:
        """Tell whether the last attempt has been made and nothing came of it."""
        if self.overdue_since is None:
            return False
        return self.dunned >= len(pauses) and now >= self.overdue_since + patience(pauses)

    def _attempts(self, pauses: Sequence[timedelta]) -> list[datetime]:
        if self.overdue_since is None:
            return []
        return [self.overdue_since + sum(pauses[: place + 1], timedelta()) for place in range(len(pauses))]


def patience(pauses: Sequence[timedelta]) -> timedelta:
    """Return how long a subscription stays past due before it ends."""
    return sum(pauses, timedelta()) + LAST_WORD
