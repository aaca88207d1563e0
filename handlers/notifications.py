"""Notifications over REST (contract.md 7.3, appendix A)."""

from typing import Annotated
from uuid import UUID

from aiohttp import web
from pydantic import BeforeValidator

from handlers.envelope import Envelope, ListEnvelope
from handlers.rest import Call, PageQuery, Router
from services.notifications import NotificationNotFound, NotificationView, UnreadView

router = Router(tag="notifications", prefix="/api/v1/notifications")


class NotificationsQuery(PageQuery):
    """Which notifications to list: those not yet read, those read, or, without `unread`, all."""

    # A client that leaves the value out means no filter.
    unread: Annotated[bool | None, BeforeValidator(lambda value: None if value == "" else value)] = None


@router.get("", answer=ListEnvelope[NotificationView])
async def list_notifications(call: Call, query: NotificationsQuery) -> web.Response:
    """List the caller's notifications about the tenant, newest first."""
    async with call.tenant_uow() as uow:
        page = await call.context.services.notifications.list(uow, call.actor, query.request(), unread=query.unread)
    return call.page(page)


@router.get("/unread-count", answer=Envelope[UnreadView])
async def count_unread(call: Call) -> web.Response:
    """Count the notifications that wait to be read."""
    async with call.tenant_uow() as uow:
        view = await call.context.services.notifications.unread(uow, call.actor)
    return call.ok(view)


@router.post("/read-all", answer=Envelope[UnreadView])
async def read_all(call: Call) -> web.Response:
    """Mark everything as read; `count` tells how many were waiting."""
    async with call.tenant_uow() as uow:
        view = await call.context.services.notifications.mark_all_read(uow, call.actor)
    return call.ok(view)


@router.post("/{notification_id}/read", answer=Envelope[NotificationView], errors=(NotificationNotFound,))
async def read_notification(call: Call, notification_id: UUID) -> web.Response:
    """Mark one as read."""
    async with call.tenant_uow() as uow:
        view = await call.context.services.notifications.mark_read(uow, call.actor, notification_id)
    return call.ok(view)
