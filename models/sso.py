"""One-time tokens that let a member enter the tenant's ERPNext instance (contract.md 6, providers.md 1.7)."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, func
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Identified, TenantOwned


class SsoToken(Identified, TenantOwned, Base):
    """A token that is redeemed at most once; only its SHA-256 is stored."""

    __tablename__ = "sso_tokens"
    __table_args__ = (Index("ix_sso_tokens_expires_at", "expires_at"),)

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    redeemed_at: Mapped[datetime | None]
