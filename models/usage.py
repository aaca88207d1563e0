"""What tenants use that no other table can tell: the calls that they make (contract.md 4.2)."""

from datetime import date

from sqlalchemy import BigInteger, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Identified, TenantOwned


class ApiUsage(Identified, TenantOwned, Base):
    """How many calls a tenant has made in the month (UTC) that begins on `month`."""

    __tablename__ = "api_usage"
    __table_args__ = (UniqueConstraint("tenant_id", "month"),)

    month: Mapped[date]
    calls: Mapped[int] = mapped_column(BigInteger)
