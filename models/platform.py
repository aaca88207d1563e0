"""What the platform itself owns, and no tenant: the content that its public pages show (contract.md 3.3, 3.8)."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, JsonObject


class PlatformContent(Base):
    """One piece of content under its key, such as `hero_banner`; a newer one takes its place."""

    __tablename__ = "platform_content"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    content: Mapped[JsonObject]
    updated_at: Mapped[datetime]
    updated_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
