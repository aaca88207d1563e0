"""What every table shares: naming of constraints, column types, and the mark of a tenant's own rows."""

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID, uuid4

from sqlalchemy import DateTime, Enum, ForeignKey, MetaData, Uuid, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

JsonObject = dict[str, Any]


def enum_column(members: type[StrEnum], *, name: str) -> Enum:
    """Return a text column that holds the lower-case wire values and a check constraint that guards them."""
    return Enum(
        members,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=32,
        values_callable=lambda kind: [member.value for member in kind],
    )


class Base(DeclarativeBase):
    """Declarative base: JSONB for objects, aware timestamps, constraint names that migrations can rely on."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: DateTime(timezone=True),
        UUID: Uuid(as_uuid=True),
        JsonObject: JSONB,
        list[str]: JSONB,
    }
    # What the database fills in comes back with the statement. Read later it would be a query in the middle of plain
    # code, which an async session refuses.
    __mapper_args__ = {"eager_defaults": True}  # noqa: RUF012 - SQLAlchemy declares it without ClassVar


class Identified:
    """A random UUID primary key."""

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)


class Timestamped:
    """When the row was made and last changed, by the database's clock."""

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())


class TenantOwned:
    """A row that belongs to one tenant.

    Every ORM statement over such a class is limited to the unit of work's tenant (services/unit_of_work.py).
    """

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))


class OutlivesTenant(TenantOwned):
    """A tenant's row that books are kept by, and that stays when the tenant is gone (docs/adr/0022).

    It points nowhere, so nothing takes it away. The platform alone can read it then, for nobody else has its scope.
    """

    tenant_id: Mapped[UUID] = mapped_column()
