"""The second factor: an authenticator app, and codes for when it is lost."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Identified

# How many wrong codes in a row a user has, however many sign-ins they are spread over, and how long they count.
MAX_FAILURES = 10
FAILURES_KEPT = timedelta(minutes=15)
# How many codes may be tried for one sign-in.
MAX_ATTEMPTS = 5


class SecondFactor(Base):
    """A user's authenticator app; it counts from `confirmed_at` on. The secret is stored encrypted.

    `last_counter` is the time step of the code that was accepted last: it and those before it are used up.
    """

    __tablename__ = "second_factors"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    secret: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    confirmed_at: Mapped[datetime | None]
    last_counter: Mapped[int | None] = mapped_column(BigInteger)
    failures: Mapped[int] = mapped_column(default=0, server_default="0")
    failed_at: Mapped[datetime | None]

    def locked_for(self, now: datetime) -> timedelta | None:
        """Return for how long no code is looked at any more, after too many wrong ones."""
        if self.failures < MAX_FAILURES or self.failed_at is None:
            return None
        left = self.failed_at + FAILURES_KEPT - now
        return left if left > timedelta() else None

    def fail(self, now: datetime) -> None:
        """Count a wrong code; those of long ago count no more."""
        if self.failed_at is not None and self.failed_at + FAILURES_KEPT <= now:
            self.failures = 0
        self.failures += 1
        self.failed_at = now

    def succeed(self) -> None:
        """Forget the wrong codes."""
        self.failures = 0
        self.failed_at = None


class RecoveryCode(Identified, Base):
    """A code that takes the place of the app, once; only its keyed hash is stored."""

    __tablename__ = "recovery_codes"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    digest: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class SignInChallenge(Identified, Base):
    """A sign-in whose password was right and whose second factor is waited for."""

    __tablename__ = "sign_in_challenges"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]

    def is_open(self, now: datetime) -> bool:
        return self.used_at is None and self.expires_at > now and self.attempts < MAX_ATTEMPTS
