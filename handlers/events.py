"""The event log over REST: what a client that has no socket, or has lost its place, may have missed."""

from typing import Annotated, Literal

from aiohttp import web
from pydantic import BaseModel, Field

from handlers.envelope import Envelope
from handlers.rest import Call, Router
from realtime.position import Position
from services.history import MAX_PAGE, HistoryPage, PositionLost
from services.permissions import KeyScope

router = Router(tag="events", prefix="/api/v1/events")


class EventsQuery(BaseModel):
    """After which number to go on. With the `epoch` it was learned with, a restored log is noticed."""

    after_seq: Annotated[int, Field(ge=0, lt=2**63)]
    epoch: Annotated[str, Field(max_length=32)] = ""
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 500
    namespace: Literal["/notifications", "/provisioning", "/billing"] | None = None


@router.get("", answer=Envelope[HistoryPage], errors=(PositionLost,), scope=KeyScope.EVENTS_READ)
async def list_events(call: Call, query: EventsQuery) -> web.Response:
    """List what the caller may see of the tenant's events after a position, in order.

    410 POSITION_LOST tells that not all of them are known any more: load the present state and go on from `head`.
    """
    position = Position(query.epoch, query.after_seq)
    page = await call.context.services.history.page(call.actor, position, limit=query.limit, namespace=query.namespace)
    return call.ok(page)
