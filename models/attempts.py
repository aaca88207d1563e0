"""Attempts at what guards secrets, counted by the database while Redis is away."""

from datetime import datetime

from sqlalchemy import DateTime, String
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base


class AttemptWindow(Base):
    """The moments of the attempts that were allowed under one rule and key; older ones than the window count no more.

    Nothing of it outlives its window, so it is not worth a write-ahead log.
    """

    __tablename__ = "attempt_windows"
    __table_args__ = {"prefixes": ["UNLOGGED"]}  # noqa: RUF012 - the form that SQLAlchemy asks for

    # The SHA-256 of the rule and its key, which may be an address or a phone.
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    moments: Mapped[list[datetime]] = mapped_column(ARRAY(DateTime(timezone=True)))
    expires_at: Mapped[datetime] = mapped_column(index=True)
