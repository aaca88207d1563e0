"""People and their sign-in sessions."""

from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from sqlalchemy import CheckConstraint, ColumnElement, ForeignKey, Index, String, false, func, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Identified, Timestamped, enum_column

# A retried refresh must not look like theft: the previous token is still honoured for this long (providers.md 1.6).
REFRESH_GRACE = timedelta(seconds=30)


class EmploymentType(StrEnum):
    """As what somebody works (contract.md 2.5): `ip` is a Russian sole trader, `ooo` a limited company."""

    INDIVIDUAL = "individual"
    SELF_EMPLOYED = "self_employed"
    IP = "ip"
    OOO = "ooo"


class User(Identified, Timestamped, Base):
    """A person, known by an e-mail address, a phone number, or both.

    E-mail addresses are unique without regard to case. A phone number is E.164, was proven by a code, and is unique.
    Whoever signs in by codes alone has no password.
    """

    __tablename__ = "users"
    __table_args__ = (CheckConstraint("email IS NOT NULL OR phone IS NOT NULL", name="reachable"),)

    email: Mapped[str | None] = mapped_column(String(255))
    # When the user has shown that letters to `email` reach them; None until then.
    email_verified_at: Mapped[datetime | None]
    phone: Mapped[str | None] = mapped_column(String(16), unique=True)
    hashed_password: Mapped[str | None] = mapped_column(String(255))
    full_name: Mapped[str] = mapped_column(String(255))
    first_name: Mapped[str | None] = mapped_column(String(100))
    last_name: Mapped[str | None] = mapped_column(String(100))
    employment_type: Mapped[EmploymentType | None] = mapped_column(enum_column(EmploymentType, name="employment_type"))
    is_active: Mapped[bool] = mapped_column(default=True)
    is_superuser: Mapped[bool] = mapped_column(default=False)
    # Edits the platform's content and may do nothing else; the platform_master of contract.md 2.7.
    is_platform_master: Mapped[bool] = mapped_column(default=False, server_default=false())
    locale: Mapped[str] = mapped_column(String(8), default="en")

    @property
    def is_platform_staff(self) -> bool:
        """Whether this is one of the platform's own people, who may belong to no tenant at all."""
        return self.is_superuser or self.is_platform_master

    @property
    def is_proven(self) -> bool:
        """Whether something that reaches the person is known: a verified address, or a phone, which always is."""
        return self.email_verified_at is not None or self.phone is not None

    @property
    def shown_email(self) -> str:
        """The address for the wire: released clients demand a text, so whoever has none has an empty one."""
        return self.email or ""

    @property
    def site_login(self) -> str:
        """The address by which a tenant's site knows the person; sites know nobody without one.

        Whoever has only a phone gets an address in a domain that can never exist (RFC 2606), so that no mail of a site
        goes astray.
        """
        return self.email or f"{(self.phone or '').removeprefix('+')}@phone.invalid"

    @classmethod
    def has_email(cls, email: str) -> ColumnElement[bool]:
        """Return the criterion that finds the one user of an address, whatever its case (contract.md 2.1)."""
        return func.lower(cls.email) == func.lower(email)


Index("uq_users_email_lower", func.lower(User.email), unique=True)


class RefreshVerdict(StrEnum):
    """What presenting a refresh token means."""

    ROTATE = "rotate"
    REUSED = "reused"


class UserSession(Identified, Base):
    """One sign-in: a family of refresh tokens of which only the newest is good.

    `current_jti` is the token to present next; `previous_jti` is honoured within `REFRESH_GRACE` of `rotated_at`.
    """

    __tablename__ = "user_sessions"
    __table_args__ = (
        Index("ix_user_sessions_user_id", "user_id", postgresql_where=text("revoked_at IS NULL")),
        Index(
            "ix_user_sessions_impersonated_by",
            "impersonated_by",
            postgresql_where=text("impersonated_by IS NOT NULL"),
        ),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    tenant_id: Mapped[UUID | None] = mapped_column(ForeignKey("tenants.id", ondelete="SET NULL"))
    current_jti: Mapped[str] = mapped_column(String(64))
    previous_jti: Mapped[str | None] = mapped_column(String(64))
    rotated_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_seen_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    # When the user last proved who they are in this session; None if never, as when an invitation led into it.
    authenticated_at: Mapped[datetime | None]
    # Which of the platform's people opened it in the user's name; None for the user's own.
    impersonated_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    revoked_at: Mapped[datetime | None]
    revoked_reason: Mapped[str | None] = mapped_column(String(50))
    user_agent: Mapped[str | None] = mapped_column(String(255))
    ip: Mapped[str | None] = mapped_column(String(64))

    def is_live(self, now: datetime) -> bool:
        return self.revoked_at is None and self.expires_at > now

    def judge(self, jti: str, *, now: datetime) -> RefreshVerdict:
        """Say whether a presented refresh token may be exchanged (providers.md 1.6)."""
        if jti == self.current_jti:
            return RefreshVerdict.ROTATE
        in_grace = self.rotated_at is not None and now <= self.rotated_at + REFRESH_GRACE
        if jti == self.previous_jti and in_grace:
            return RefreshVerdict.ROTATE
        return RefreshVerdict.REUSED

    def rotate(self, presented_jti: str, new_jti: str, *, now: datetime, expires_at: datetime) -> None:
        """Make `new_jti` the good token; a rotation within the grace keeps the moment it began."""
        if presented_jti == self.current_jti:
            self.previous_jti = self.current_jti
            self.rotated_at = now
        self.current_jti = new_jti
        self.last_seen_at = now
        self.expires_at = expires_at

    def revoke(self, reason: str, *, now: datetime) -> bool:
        """End the session; returns False when it had already ended."""
        if self.revoked_at is not None:
            return False
        self.revoked_at = now
        self.revoked_reason = reason
        return True


class TokenPurpose(StrEnum):
    """What an e-mailed one-time token is for; `EMAIL_CHANGE` also adds the first address of an account."""

    PASSWORD_RESET = "password_reset"  # noqa: S105 - a name, not a password
    EMAIL_VERIFICATION = "email_verification"
    EMAIL_CHANGE = "email_change"


class OneTimeToken(Identified, Base):
    """A token that was sent to a user and works once; only its SHA-256 is stored.

    `email` is the address that a token about addresses was sent to, and so the one that it proves.
    """

    __tablename__ = "one_time_tokens"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    purpose: Mapped[TokenPurpose] = mapped_column(enum_column(TokenPurpose, name="purpose"))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    email: Mapped[str | None] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class PendingRegistration(Identified, Base):
    """A sign-up that waits for the token of its letter; of token and password only hashes are stored.

    One is also written for an address that has an account: nobody is sent its token, and it goes unused.
    """

    __tablename__ = "pending_registrations"

    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    email: Mapped[str] = mapped_column(String(255))
    hashed_password: Mapped[str] = mapped_column(String(255))
    full_name: Mapped[str] = mapped_column(String(255))
    company_name: Mapped[str] = mapped_column(String(255))
    locale: Mapped[str] = mapped_column(String(8))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(index=True)
