"""How a subscription ends: with its period as somebody decided, or for good as the provider tells."""

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Timestamped


class Ending(Timestamped):
    """The part of a subscription that knows of its end; all empty where none was decided or told."""

    cancel_at_period_end: Mapped[bool] = mapped_column(default=False)
    cancelled_at: Mapped[datetime | None]
    cancel_reason: Mapped[str | None] = mapped_column(String(500))
    cancel_facts_until: Mapped[datetime | None]
    # When we decided to let it end with its period.
    cancel_decided_at: Mapped[datetime | None]
    # When the provider ended it for good, by the provider's clock; None where the end was our own decision.
    ended_at: Mapped[datetime | None]
    # The smallest number of days left of which the tenant was warned, for the present end.
    expiry_warned_days: Mapped[int | None]

    def cancel_later(self, *, reason: str | None, now: datetime) -> bool:
        """Let the subscription end with its period (contract.md 4.4); returns False when that is so already."""
        if self.cancel_at_period_end:
            return False
        self.cancel_reason = reason
        # The provider counts whole seconds: its echo of this very decision must not look older than it.
        self.cancel_facts_until = now.replace(microsecond=0)
        self.cancel_decided_at = now
        self.plan_cancellation(now, planned=True)
        self.updated_at = now
        return True

    def reinstate(self, *, now: datetime) -> bool:
        """Take back that it ends with its period; returns False when it does not."""
        if not self.cancel_at_period_end:
            return False
        self.cancel_facts_until = now.replace(microsecond=0)
        self.plan_cancellation(now, planned=False)
        self.updated_at = now
        return True

    def plan_cancellation(self, at: datetime, *, planned: bool) -> None:
        """Take over that it is to end with its period, decided at `at`, or that it is not."""
        # Where the decision was ours, the provider only echoes it.
        self.cancel_decided_at = self.cancel_decided_at if planned else None
        self.cancelled_at = (self.cancel_decided_at or at) if planned else self.ended_at
        if planned == self.cancel_at_period_end:
            return
        self.cancel_at_period_end = planned
        self.cancel_reason = self.cancel_reason if planned else None
        # An end that was not coming before deserves its own warnings.
        self.expiry_warned_days = None
