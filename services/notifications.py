"""Notifications: telling people what happened, and remembering what they have read (contract.md 7.3)."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict
from sqlalchemy import ColumnElement, func, select, update

from core.errors import NotFound
from core.pagination import Page, PageRequest
from models.notifications import Notification, NotificationType
from models.tenants import Membership, Role
from models.users import User
from services.events import NotificationCreated
from services.identity import Principal, require_tenant
from services.unit_of_work import UnitOfWork


class NotificationNotFound(NotFound):
    """There is no such notification, or it is not the caller's."""

    message = "Notification not found"


class NotificationView(BaseModel):
    """A notification as its reader sees it; the same keys as the event `notification:new`."""

    model_config = ConfigDict(frozen=True)

    id: UUID
    tenant_id: UUID
    user_id: UUID
    type: NotificationType
    title: str
    message: str
    data: dict[str, Any]
    link: str | None
    read: bool
    read_at: datetime | None
    created_at: datetime


class UnreadView(BaseModel):
    """How many notifications wait to be read, or how many were just marked as read."""

    model_config = ConfigDict(frozen=True)

    count: int


class NotificationService:
    """Everything about notifications. Readers see their own, about the tenant of their token."""

    async def notify(
        self,
        uow: UnitOfWork,
        *,
        tenant_id: UUID,
        user_ids: Iterable[UUID],
        type: NotificationType,  # noqa: A002 - the wire's own word
        title: str,
        message: str,
        data: Mapping[str, Any] | None = None,
        link: str | None = None,
    ) -> list[Notification]:
        """Tell each of `user_ids`: a row and an event, in the caller's transaction."""
        notifications = [
            Notification(
                id=uuid4(),
                tenant_id=tenant_id,
                user_id=user_id,
                type=type,
                title=title,
                message=message,
                data=dict(data or {}),
                link=link,
                created_at=uow.now,
            )
            for user_id in user_ids
        ]
        uow.session.add_all(notifications)
        for notification in notifications:
            uow.record(_event(notification))
        return notifications

    async def members(self, uow: UnitOfWork, tenant_id: UUID, *roles: Role) -> Sequence[UUID]:
        """Return the ids of the tenant's active people who have one of `roles`, in the order they joined."""
        statement = (
            select(Membership.user_id)
            .join(User, User.id == Membership.user_id)
            .where(Membership.tenant_id == tenant_id, Membership.role.in_(roles), User.is_active)
            .order_by(Membership.joined_at, Membership.id)
        )
        return (await uow.session.scalars(statement)).all()

    async def list(
        self, uow: UnitOfWork, actor: Principal, page: PageRequest, *, unread: bool | None = None
    ) -> Page[NotificationView]:
        """Show the caller's notifications, newest first; `unread` limits them to those waiting, or to those read."""
        wanted = [*_of(actor)]
        if unread is not None:
            wanted.append(Notification.read_at.is_(None) if unread else Notification.read_at.is_not(None))
        total = await uow.session.scalar(select(func.count()).select_from(Notification).where(*wanted))
        rows = await uow.session.scalars(
            select(Notification)
            .where(*wanted)
            .order_by(Notification.created_at.desc(), Notification.id.desc())
            .offset(page.offset)
            .limit(page.size)
        )
        return Page(items=[_view(row) for row in rows], total=total or 0, request=page)

    async def unread(self, uow: UnitOfWork, actor: Principal) -> UnreadView:
        """Count what the caller has not read."""
        waiting = select(func.count()).select_from(Notification).where(*_of(actor), Notification.read_at.is_(None))
        return UnreadView(count=await uow.session.scalar(waiting) or 0)

    async def mark_read(self, uow: UnitOfWork, actor: Principal, notification_id: UUID) -> NotificationView:
        """Mark one as read; the first reading counts. Raises NotificationNotFound."""
        statement = select(Notification).where(Notification.id == notification_id, *_of(actor)).with_for_update()
        notification = (await uow.session.scalars(statement)).one_or_none()
        if notification is None:
            raise NotificationNotFound
        notification.mark_read(uow.now)
        return _view(notification)

    async def mark_all_read(self, uow: UnitOfWork, actor: Principal) -> UnreadView:
        """Mark everything the caller has as read; return how many were waiting."""
        statement = (
            update(Notification)
            .where(*_of(actor), Notification.read_at.is_(None))
            .values(read_at=uow.now)
            .returning(Notification.id)
            .execution_options(synchronize_session=False)
        )
        return UnreadView(count=len((await uow.session.scalars(statement)).all()))


def _of(actor: Principal) -> tuple[ColumnElement[bool], ...]:
    return Notification.user_id == actor.user_id, Notification.tenant_id == require_tenant(actor)


def _event(notification: Notification) -> NotificationCreated:
    return NotificationCreated(
        tenant_id=notification.tenant_id,
        user_id=notification.user_id,
        id=notification.id,
        type=notification.type.value,
        title=notification.title,
        message=notification.message,
        data=notification.data,
        link=notification.link,
        created_at=notification.created_at,
    )


def _view(notification: Notification) -> NotificationView:
    return NotificationView(
        id=notification.id,
        tenant_id=notification.tenant_id,
        user_id=notification.user_id,
        type=notification.type,
        title=notification.title,
        message=notification.message,
        data=notification.data,
        link=notification.link,
        read=notification.read_at is not None,
        read_at=notification.read_at,
        created_at=notification.created_at,
    )
