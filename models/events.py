"""The event log: every fact a tenant's people may hear of, numbered in commit order (realtime.md 3.4).

One stream is no tenant's: `PLATFORM` carries what the instances themselves must hear of, such as ended sessions.
"""

import secrets
from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Index, String, func
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, JsonObject, TenantOwned

PLATFORM = UUID(int=0)


def new_epoch() -> str:
    """Return a fresh name for one life of a stream; another epoch means that older positions are void."""
    return secrets.token_hex(4)


class EventStream(TenantOwned, Base):
    """The numbering of one stream. Its row lock is what makes number order equal commit order.

    `head` is the newest number, `floor` the newest that was pruned: the log holds what lies between. A stream may
    outlive its tenant, and the platform's has none, so that no foreign key ties it.
    """

    __tablename__ = "event_streams"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    epoch: Mapped[str] = mapped_column(String(16), default=new_epoch)
    head: Mapped[int] = mapped_column(BigInteger, default=0)
    floor: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")


class LoggedEvent(TenantOwned, Base):
    """One numbered event: where it is heard (`namespace`, `room`), its wire name and its payload."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_created_at", "created_at"),)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    id: Mapped[UUID] = mapped_column(unique=True)
    namespace: Mapped[str] = mapped_column(String(64))
    room: Mapped[str] = mapped_column(String(128))
    name: Mapped[str] = mapped_column(String(64))
    payload: Mapped[JsonObject]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
