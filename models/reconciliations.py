"""Comparing what we hold with what providers hold: what was listed of late, and sweeps of everything."""

from datetime import date, datetime, timedelta
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Identified, enum_column


class ProviderFeed(Identified, Base):
    """How far a list of what has happened was read; one row for each account that has such a list.

    `integration_id` names the merchant's account whose list it is, None for the platform's own. `next_at` is when it is
    read again, or until when whoever reads it now is left alone.
    """

    __tablename__ = "provider_feeds"
    __table_args__ = (
        Index("uq_provider_feeds_provider", "provider", unique=True, postgresql_where=text("integration_id IS NULL")),
        UniqueConstraint("integration_id"),
    )

    provider: Mapped[str] = mapped_column(String(50))
    integration_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("tenants_payment_integrations.id", ondelete="CASCADE")
    )
    read_until: Mapped[datetime | None]
    next_at: Mapped[datetime]
    # How often in a row it could not be read, and why.
    failures: Mapped[int] = mapped_column(default=0)
    last_error: Mapped[str | None] = mapped_column(Text)

    def note_read(self, until: datetime, *, next_at: datetime) -> None:
        """Note that all of it up to `until` was read."""
        # A reader that was given up for dead may come back after its successor.
        self.read_until = until if self.read_until is None else max(until, self.read_until)
        self.next_at, self.failures, self.last_error = next_at, 0, None

    def note_failure(self, reason: str, *, next_at: datetime) -> None:
        """Note that it could not be read; what was not read stays to be read."""
        self.next_at, self.last_error = next_at, reason
        self.failures += 1


class ReconciliationState(StrEnum):
    """`running` until everything was compared; `failed` when the provider was away for too long."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class ReconciliationStage(StrEnum):
    """What a sweep is comparing, in this order: the platform's own account first, then the invoices of merchants'."""

    EVENTS = "events"
    PURCHASES = "purchases"
    SUBSCRIPTIONS = "subscriptions"
    FEES = "fees"
    MERCHANTS = "merchants"

    @property
    def next(self) -> "ReconciliationStage | None":
        """What comes after this, None after the last."""
        stages = list(ReconciliationStage)
        place = stages.index(self) + 1
        return stages[place] if place < len(stages) else None


class Reconciliation(Identified, Base):
    """A sweep of everything that one provider holds, for us and for merchants: how far it is, and what it has found.

    `checked` counts what was looked at, `found` what nobody had told us of, and `changed` what of that made a
    difference. Of each provider one sweep runs at a time, and one is the night's.
    """

    __tablename__ = "reconciliations"
    __table_args__ = (
        UniqueConstraint("provider", "nightly_on"),
        Index("uq_reconciliations_running", "provider", unique=True, postgresql_where=text("state = 'running'")),
        Index("ix_reconciliations_started_at", "started_at"),
    )

    provider: Mapped[str] = mapped_column(String(50))
    state: Mapped[ReconciliationState] = mapped_column(enum_column(ReconciliationState, name="state"))
    stage: Mapped[ReconciliationStage] = mapped_column(enum_column(ReconciliationStage, name="stage"))
    # Where the stage goes on: the provider's own word for it, or the id of our last row.
    cursor: Mapped[str | None] = mapped_column(Text)
    requested_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    nightly_on: Mapped[date | None]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    checked: Mapped[int] = mapped_column(default=0)
    found: Mapped[int] = mapped_column(default=0)
    changed: Mapped[int] = mapped_column(default=0)
    # Counts whoever took it up; only the last of them may write.
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime]
    last_error: Mapped[str | None] = mapped_column(Text)

    def claim(self, *, now: datetime, lease: timedelta) -> int:
        """Take it up for a while in which nobody else does; returns the number that writing takes."""
        self.attempts += 1
        self.next_attempt_at = now + lease
        return self.attempts

    def advance(self, cursor: str | None, *, checked: int, found: int, now: datetime) -> None:
        """Note a part that was compared; `cursor` None ends the stage, and the last stage ends the sweep."""
        self.checked += checked
        self.found += found
        self.cursor, self.last_error = cursor, None
        if cursor is not None:
            return
        following = self.stage.next
        if following is None:
            self.state, self.finished_at = ReconciliationState.DONE, now
        else:
            self.stage = following

    def postpone(self, reason: str, *, now: datetime, wait: timedelta, patience: timedelta) -> None:
        """Try again after `wait`, or give up when it has taken longer than `patience`."""
        self.last_error, self.next_attempt_at = reason, now + wait
        if now - self.started_at > patience:
            self.state, self.finished_at = ReconciliationState.FAILED, now
