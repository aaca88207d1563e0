"""What a user was told, kept until read and after."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, Text, func, text
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Identified, JsonObject, TenantOwned, enum_column


class NotificationType(StrEnum):
    """How it should look (contract.md 7.3)."""

    INFO = "info"
    SUCCESS = "success"
    WARNING = "warning"
    ERROR = "error"


class Notification(Identified, TenantOwned, Base):
    """A message to one user about one tenant."""

    __tablename__ = "notifications"
    __table_args__ = (
        Index("ix_notifications_user_id", "user_id", "tenant_id", "created_at"),
        Index(
            "ix_notifications_unread", "user_id", "tenant_id", "created_at", postgresql_where=text("read_at IS NULL")
        ),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    type: Mapped[NotificationType] = mapped_column(enum_column(NotificationType, name="type"))
    title: Mapped[str] = mapped_column(String(255))
    message: Mapped[str] = mapped_column(Text)
    data: Mapped[JsonObject] = mapped_column(default=dict)
    link: Mapped[str | None] = mapped_column(String(500))
    read_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    def mark_read(self, now: datetime) -> bool:
        """Mark as read; returns False when it already was."""
        if self.read_at is not None:
            return False
        self.read_at = now
        return True
