"""Messengers: whose chat is whose phone, links that lead into a bot, and what a bot or a gateway shall deliver.

All of it is about people, so none of it belongs to a tenant. `messenger` is the name that clients use (`telegram`,
`max`); `sender` is the name of an adapter (providers/messengers).
"""

from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Identified, enum_column

# For how long a link leads into the bot, and the chat it opened still gets its code.
LINK_LIFETIME = timedelta(minutes=15)
# More than a messenger that is away for a moment needs; a code has expired by then.
MAX_ATTEMPTS = 8


class MessengerContact(Identified, Base):
    """A chat whose owner has shown, by the messenger's own button, that the phone is theirs."""

    __tablename__ = "messenger_contacts"
    __table_args__ = (UniqueConstraint("messenger", "address"), UniqueConstraint("messenger", "phone"))

    messenger: Mapped[str] = mapped_column(String(32))
    address: Mapped[str] = mapped_column(String(255))
    phone: Mapped[str] = mapped_column(String(16))
    verified_at: Mapped[datetime]


class MessengerLink(Identified, Base):
    """A link that opens the bot for somebody who signs in with `phone`; works once, and only its hash is stored.

    `address` is the chat that it was opened in; `finished_at` is when that chat got its code.
    """

    __tablename__ = "messenger_links"
    __table_args__ = (Index("ix_messenger_links_address", "messenger", "address"),)

    messenger: Mapped[str] = mapped_column(String(32))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    phone: Mapped[str] = mapped_column(String(16))
    locale: Mapped[str] = mapped_column(String(8))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    used_at: Mapped[datetime | None]
    address: Mapped[str | None] = mapped_column(String(255))
    finished_at: Mapped[datetime | None]


class MessengerUpdate(Base):
    """An update that has been dealt with, so that one delivered again does nothing."""

    __tablename__ = "messenger_updates"

    messenger: Mapped[str] = mapped_column(String(32), primary_key=True)
    update_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    received_at: Mapped[datetime] = mapped_column(index=True)


class MessageKind(StrEnum):
    """A code; a question for the phone number, with a button under it; or only a text."""

    CODE = "code"
    QUESTION = "question"
    TEXT = "text"


class MessageState(StrEnum):
    """`dead` messages came too late, were refused for good or were replaced by a newer one."""

    WAITING = "waiting"
    SENT = "sent"
    DEAD = "dead"


class MessengerMessage(Identified, Base):
    """What a messenger shall deliver, written with the fact it tells of and sent afterwards by the worker.

    `text` is a key of the catalogue. `sealed_code` is encrypted, and emptied once the message is sent or given up.
    """

    __tablename__ = "messenger_messages"
    __table_args__ = (
        Index("ix_messenger_messages_waiting", "next_attempt_at", postgresql_where=text("state = 'waiting'")),
        Index("ix_messenger_messages_phone", "phone", "created_at"),
    )

    kind: Mapped[MessageKind] = mapped_column(enum_column(MessageKind, name="kind"))
    sender: Mapped[str] = mapped_column(String(32))
    phone: Mapped[str | None] = mapped_column(String(16))
    address: Mapped[str | None] = mapped_column(String(255))
    text: Mapped[str] = mapped_column(String(64))
    locale: Mapped[str] = mapped_column(String(8))
    sealed_code: Mapped[str] = mapped_column(Text, default="")
    state: Mapped[MessageState] = mapped_column(enum_column(MessageState, name="state"), default=MessageState.WAITING)
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(index=True)
    sent_at: Mapped[datetime | None]
    reference: Mapped[str | None] = mapped_column(String(255))
    last_error: Mapped[str | None] = mapped_column(String(64))

    def claim(self, *, now: datetime, lease: timedelta) -> bool:
        """Take the message for one attempt; nobody else takes it within `lease`. False when it is too late for one."""
        if self.attempts >= MAX_ATTEMPTS or now >= self.expires_at:
            self.bury(self.last_error or "expired")
            return False
        self.attempts += 1
        self.next_attempt_at = now + lease
        return True

    def mark_sent(self, reference: str, *, now: datetime) -> None:
        """The messenger has taken it; the code is forgotten."""
        self.state = MessageState.SENT
        self.sent_at = now
        self.reference = reference
        self.sealed_code = ""
        self.last_error = None

    def postpone(self, error: str, *, retry_at: datetime) -> None:
        """An attempt has failed; try again unless that would be too late."""
        self.last_error = error
        self.next_attempt_at = retry_at
        if self.attempts >= MAX_ATTEMPTS or retry_at >= self.expires_at:
            self.bury(error)

    def turn(self, sender: str, *, now: datetime) -> None:
        """Take another road: by a sender that finds people by their phone."""
        self.sender = sender
        self.address = None
        self.attempts = 0
        self.next_attempt_at = now

    def bury(self, error: str) -> None:
        """Give up; the code is forgotten."""
        self.state = MessageState.DEAD
        self.last_error = error
        self.sealed_code = ""
