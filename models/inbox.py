"""The provider inbox: every signed webhook event, stored once before it is answered (providers.md 1.3)."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Identified, enum_column


class InboxState(StrEnum):
    """`received` waits to be applied; `handled` and `dead` are final until an operator resends."""

    RECEIVED = "received"
    HANDLED = "handled"
    DEAD = "dead"


class EventSource(StrEnum):
    """How an event came to us: its provider told it (`webhook`), or we asked.

    `poll`: about one purchase; `listing`: what has happened of late; `sweep`: about everything.
    """

    WEBHOOK = "webhook"
    POLL = "poll"
    LISTING = "listing"
    SWEEP = "sweep"


class ProviderEvent(Identified, Base):
    """A verified event as the provider sent it; unique on (provider, account, event_id).

    `payload` is empty when it is so old that its content was removed.
    """

    __tablename__ = "provider_events"
    __table_args__ = (
        UniqueConstraint("provider", "account", "event_id"),
        Index("ix_provider_events_waiting", "next_attempt_at", postgresql_where=text("state = 'received'")),
        Index(
            "ix_provider_events_integration_id", "integration_id", postgresql_where=text("integration_id IS NOT NULL")
        ),
        Index("ix_provider_events_dead", "received_at", postgresql_where=text("state = 'dead'")),
        Index(
            "ix_provider_events_reconciliation_id",
            "reconciliation_id",
            postgresql_where=text("reconciliation_id IS NOT NULL"),
        ),
    )

    provider: Mapped[str] = mapped_column(String(50))
    account: Mapped[str] = mapped_column(String(255), default="")
    # The merchant's account that has told it, whose id `account` is then; with the merchant it goes.
    integration_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("tenants_payment_integrations.id", ondelete="CASCADE")
    )
    event_id: Mapped[str] = mapped_column(String(255))
    type: Mapped[str] = mapped_column(String(255))
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    occurred_at: Mapped[datetime]
    received_at: Mapped[datetime] = mapped_column(server_default=func.now())
    state: Mapped[InboxState] = mapped_column(enum_column(InboxState, name="state"), default=InboxState.RECEIVED)
    attempts: Mapped[int] = mapped_column(default=0)
    # Those of the attempts that broke, rather than had to wait for something.
    faults: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    next_attempt_at: Mapped[datetime]
    last_error: Mapped[str | None] = mapped_column(Text)
    handled_at: Mapped[datetime | None]
    # When an operator last gave it a new chance; patience is counted from here.
    resent_at: Mapped[datetime | None]
    source: Mapped[EventSource] = mapped_column(
        enum_column(EventSource, name="source"), default=EventSource.WEBHOOK, server_default=EventSource.WEBHOOK.value
    )
    # The sweep that found it.
    reconciliation_id: Mapped[UUID | None] = mapped_column(ForeignKey("reconciliations.id", ondelete="SET NULL"))

    def mark_handled(self, now: datetime) -> None:
        """Note that everything the event told is in effect."""
        self.state = InboxState.HANDLED
        self.handled_at = now
        self.last_error = None

    def postpone(self, reason: str, *, now: datetime, wait: timedelta, is_fault: bool) -> None:
        """Try again after `wait`; `reason` never holds the payload."""
        self.attempts += 1
        self.faults += is_fault
        self.last_error = reason
        self.next_attempt_at = now + wait

    def bury(self, reason: str) -> None:
        """Give the event up until an operator looks at it."""
        self.attempts += 1
        self.last_error = reason
        self.state = InboxState.DEAD

    @property
    def is_emptied(self) -> bool:
        """Whether its content was removed, so that nobody can read any more what it told."""
        return not self.payload

    def resend(self, now: datetime) -> bool:
        """Give a dead event a new chance; returns False for one that is not dead."""
        if self.state is not InboxState.DEAD:
            return False
        self.state, self.attempts, self.faults = InboxState.RECEIVED, 0, 0
        self.resent_at = self.next_attempt_at = now
        return True
