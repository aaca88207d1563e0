"""Letters to send: rows written with the fact they tell of, sent afterwards by the worker."""

from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import Index, String, Text, func, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Identified, enum_column

# A server that is away for an afternoon should still get the letter; one that is gone should not be asked for ever.
MAX_ATTEMPTS = 8


class MailState(StrEnum):
    """`dead` letters have used up their attempts or were refused for good."""

    WAITING = "waiting"
    SENT = "sent"
    DEAD = "dead"


class OutboundMail(Identified, Base):
    """One letter; `body` is emptied once it is sent or given up, because it may hold a one-time token."""

    __tablename__ = "outbound_mails"
    __table_args__ = (
        Index("ix_outbound_mails_waiting", "next_attempt_at", postgresql_where=text("state = 'waiting'")),
    )

    recipient: Mapped[str] = mapped_column(String(255))
    subject: Mapped[str] = mapped_column(String(255))
    body: Mapped[str] = mapped_column(Text)
    state: Mapped[MailState] = mapped_column(enum_column(MailState, name="state"), default=MailState.WAITING)
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime]
    last_error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    sent_at: Mapped[datetime | None]

    def claim(self, *, now: datetime, lease: timedelta) -> bool:
        """Take the letter for one attempt; nobody else takes it within `lease`.

        Returns False when its attempts are used up, which makes it dead.
        """
        if self.attempts >= MAX_ATTEMPTS:
            self._bury()
            return False
        self.attempts += 1
        self.next_attempt_at = now + lease
        return True

    def mark_sent(self, *, now: datetime) -> None:
        """The letter has left; its text is forgotten."""
        self.state = MailState.SENT
        self.sent_at = now
        self.body = ""
        self.last_error = None

    def mark_failed(self, error: str, *, retry_at: datetime, permanent: bool) -> None:
        """An attempt has failed: wait until `retry_at`, or give up for good."""
        self.last_error = error
        self.next_attempt_at = retry_at
        if permanent or self.attempts >= MAX_ATTEMPTS:
            self._bury()

    def _bury(self) -> None:
        self.state = MailState.DEAD
        self.body = ""
