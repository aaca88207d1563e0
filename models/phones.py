"""Codes sent to phones. They belong to people, who belong to no single tenant."""

from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Identified, enum_column

# How long a code is good and how many guesses it bears (contract.md 2.6).
CODE_LIFETIME = timedelta(seconds=300)
CODE_ATTEMPTS = 5


class PhoneCodePurpose(StrEnum):
    """What a code opens. Signing in and signing up are one: both prove that the phone is in one's hand."""

    SIGN_IN = "sign_in"


class PhoneCode(Identified, Base):
    """A code that was made for a phone; only its keyed hash is stored. A phone has at most one that is open.

    `identifier` is the number in E.164; `ip` is where the code was asked for.
    """

    __tablename__ = "phone_codes"
    __table_args__ = (
        Index(
            "uq_phone_codes_open", "purpose", "identifier", unique=True, postgresql_where=text("consumed_at IS NULL")
        ),
    )

    purpose: Mapped[PhoneCodePurpose] = mapped_column(enum_column(PhoneCodePurpose, name="purpose"))
    identifier: Mapped[str] = mapped_column(String(16))
    digest: Mapped[str] = mapped_column(String(64))
    attempts_left: Mapped[int]
    # The sender that brings it: the name of an adapter (providers/messengers).
    channel: Mapped[str] = mapped_column(String(32))
    ip: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    consumed_at: Mapped[datetime | None]
