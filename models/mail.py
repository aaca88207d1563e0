"""Letters to send: rows written with the fact they tell of, sent afterwards by the worker."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import Index, String, Text, func, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Identified, enum_column


class MailState(StrEnum):
    """`dead` letters have used up their attempts."""

    WAITING = "waiting"
    SENT = "sent"
    DEAD = "dead"


class OutboundMail(Identified, Base):
    """One letter; `body` is emptied once it is sent, because it may hold a one-time token."""

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
