"""What one tenant may more, or less, than its plan says."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Identified, TenantOwned


class EntitlementOverride(Identified, TenantOwned, Base):
    """An exception that an operator made: `value` is a limit (-1 means unlimited) or whether a feature is on.

    It holds up to `until`, or for good. One that is over stays until another one takes its place.
    """

    __tablename__ = "entitlement_overrides"
    __table_args__ = (
        UniqueConstraint("tenant_id", "name"),
        Index("ix_entitlement_overrides_until", "until", postgresql_where=text("until IS NOT NULL")),
    )

    name: Mapped[str] = mapped_column(String(100))
    value: Mapped[int | bool] = mapped_column(JSONB)
    until: Mapped[datetime | None]
    reason: Mapped[str] = mapped_column(String(500))
    created_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    def holds(self, now: datetime) -> bool:
        """Tell whether the exception is in force."""
        return self.until is None or now < self.until
