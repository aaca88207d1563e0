"""Tenants, who belongs to them, and who is invited."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import DDL, ForeignKey, Index, String, UniqueConstraint, event, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from models.base import Base, Identified, JsonObject, TenantOwned, Timestamped, enum_column
from models.users import User


class TenantStatus(StrEnum):
    """Where a tenant stands (contract.md 3.1)."""

    PENDING = "pending"
    PROVISIONING = "provisioning"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    CANCELLED = "cancelled"


class Role(StrEnum):
    """A member's role (contract.md 2.7); `member` and `user` have equal rights and are kept as given."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    USER = "user"
    BUYER = "buyer"


class Tenant(Identified, Timestamped, Base):
    """A customer of the SaaS company: the thing that is billed, provisioned and watched."""

    __tablename__ = "tenants"

    name: Mapped[str] = mapped_column(String(255))
    slug: Mapped[str] = mapped_column(String(100), unique=True)
    status: Mapped[TenantStatus] = mapped_column(enum_column(TenantStatus, name="status"), default=TenantStatus.PENDING)
    erpnext_site_url: Mapped[str | None] = mapped_column(String(500))
    settings: Mapped[JsonObject] = mapped_column(default=dict)
    # When an owner has asked for its end: from this moment it is closed for good and taken away.
    deletion_due_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_tenants_deletion_due_at", "deletion_due_at", postgresql_where=text("deletion_due_at IS NOT NULL")),
    )

    @property
    def shown_status(self) -> TenantStatus:
        """The status as people should see it: what is to be deleted is cancelled."""
        return self.status if self.deletion_due_at is None else TenantStatus.CANCELLED

    def is_restorable(self, now: datetime) -> bool:
        """Tell whether the tenant is to be deleted and its owner may still think better of it."""
        return self.deletion_due_at is not None and now < self.deletion_due_at


class Membership(Identified, TenantOwned, Base):
    """A user's place in a tenant; at most one of a user's memberships is the default."""

    __tablename__ = "user_tenants"
    __table_args__ = (
        UniqueConstraint("user_id", "tenant_id"),
        Index("ix_user_tenants_tenant_id", "tenant_id", "joined_at"),
        Index("uq_user_tenants_default", "user_id", unique=True, postgresql_where=text("is_default")),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    role: Mapped[Role] = mapped_column(enum_column(Role, name="role"))
    is_default: Mapped[bool] = mapped_column(default=False)
    joined_at: Mapped[datetime] = mapped_column(server_default=func.now())

    user: Mapped[User] = relationship(lazy="raise")
    tenant: Mapped[Tenant] = relationship(lazy="raise")


# The last owner stays, whoever races (docs/adr/0015). Whoever takes an owner's place away takes the tenant's row first,
# so that two who would do it at once come one after the other, and the second sees what the first has left. A tenant
# that is deleted as a whole has no row any more, and its places go with it.
KEEP_OWNER_FUNCTION = """
CREATE FUNCTION keep_an_owner() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM tenants WHERE id = OLD.tenant_id FOR NO KEY UPDATE;
    IF FOUND AND NOT EXISTS (SELECT 1 FROM user_tenants WHERE tenant_id = OLD.tenant_id AND role = 'owner') THEN
        RAISE EXCEPTION 'tenant % would have no owner', OLD.tenant_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'ck_user_tenants_owner_left', TABLE = 'user_tenants';
    END IF;
    RETURN NULL;
END $$
"""
KEEP_OWNER_TRIGGER = """
CREATE CONSTRAINT TRIGGER keep_an_owner AFTER DELETE OR UPDATE OF role, tenant_id ON user_tenants
DEFERRABLE INITIALLY IMMEDIATE FOR EACH ROW WHEN (OLD.role = 'owner') EXECUTE FUNCTION keep_an_owner()
"""
for _statement in (KEEP_OWNER_FUNCTION, KEEP_OWNER_TRIGGER):
    event.listen(Membership.__table__, "after_create", DDL(_statement.replace("%", "%%")))  # type: ignore[no-untyped-call]


class InvitationState(StrEnum):
    """Where an invitation stands; `expired` is written when somebody tries it too late."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REVOKED = "revoked"
    EXPIRED = "expired"


class Invitation(Identified, TenantOwned, Base):
    """A place offered to an e-mail address that no user has yet (contract.md 3.2)."""

    __tablename__ = "invitations"
    __table_args__ = (
        Index("ix_invitations_tenant_id", "tenant_id", "created_at"),
        Index(
            "uq_invitations_pending",
            "tenant_id",
            text("lower(email)"),
            unique=True,
            postgresql_where=text("state = 'pending'"),
        ),
    )

    email: Mapped[str] = mapped_column(String(255))
    role: Mapped[Role] = mapped_column(enum_column(Role, name="role"))
    state: Mapped[InvitationState] = mapped_column(
        enum_column(InvitationState, name="state"), default=InvitationState.PENDING
    )
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    invited_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    accepted_at: Mapped[datetime | None]

    def shown_state(self, now: datetime) -> InvitationState:
        """Return the state as people should see it: a pending one whose time is over has expired."""
        return InvitationState.EXPIRED if self._is_over(now) else self.state

    def expire(self, now: datetime) -> bool:
        """Close an invitation whose time is over; returns False when there is nothing to close."""
        if not self._is_over(now):
            return False
        self.state = InvitationState.EXPIRED
        return True

    def accept(self, now: datetime) -> None:
        """Take the place that is offered."""
        self.state = InvitationState.ACCEPTED
        self.accepted_at = now

    def revoke(self) -> bool:
        """Take the offer back, also one whose time is over; returns False when it was closed already."""
        if self.state is not InvitationState.PENDING:
            return False
        self.state = InvitationState.REVOKED
        return True

    def _is_over(self, now: datetime) -> bool:
        return self.state is InvitationState.PENDING and self.expires_at <= now
