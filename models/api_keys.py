"""API keys: how a tenant's machines show who they are, without being anybody."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ColumnElement, ForeignKey, Index, String, and_, func, or_
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Identified, TenantOwned


class ApiKeyState(StrEnum):
    """Whether a key opens anything; `expired` is never stored."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


class ApiKey(Identified, TenantOwned, Base):
    """A key of a tenant: `prefix` is shown and finds it, and of its secret only the SHA-256 is stored.

    It belongs to the tenant and outlives the membership, and the account, of whoever made it. What it may do
    (`scopes`) is fixed when it is made.
    """

    __tablename__ = "api_keys"
    __table_args__ = (Index("ix_api_keys_tenant_id", "tenant_id", "created_at"),)

    name: Mapped[str] = mapped_column(String(100))
    prefix: Mapped[str] = mapped_column(String(16), unique=True)
    secret_hash: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[str]]
    created_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    # Written now and then, not with each use (services/api_keys/uses.py).
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

    @classmethod
    def is_open(cls, now: datetime) -> ColumnElement[bool]:
        """Return the criterion of keys that are neither revoked nor expired."""
        return and_(cls.revoked_at.is_(None), or_(cls.expires_at.is_(None), cls.expires_at > now))

    def state(self, now: datetime) -> ApiKeyState:
        """Return where the key stands."""
        if self.revoked_at is not None:
            return ApiKeyState.REVOKED
        expired = self.expires_at is not None and self.expires_at <= now
        return ApiKeyState.EXPIRED if expired else ApiKeyState.ACTIVE

    def revoke(self, now: datetime) -> bool:
        """End the key for good; returns False when it was revoked already."""
        if self.revoked_at is not None:
            return False
        self.revoked_at = now
        return True
