"""Webhooks of the messengers' bots: the secret in the header is the identity, and an update counts once."""

from aiohttp import web
from pydantic import BaseModel

from core.addresses import counted_address
from handlers.parsing import PayloadTooLarge
from handlers.rest import Access, Call, Router, raw
from handlers.webhooks import raw_body
from providers.messengers import UpdateNotProven, UpdateUnreadable
from services.phones.errors import MessengerUnknown
from services.unit_of_work import PlatformScope

router = Router(tag="webhooks", prefix="/api/v1/messengers")

_SCOPE = PlatformScope("people who write to a bot belong to no tenant there")


class Taken(BaseModel):
    """The update was taken."""

    ok: bool = True


@router.post(
    "/{messenger}/webhook",
    answer=Taken,
    access=Access.PUBLIC,
    errors=(MessengerUnknown, UpdateNotProven, UpdateUnreadable, PayloadTooLarge),
)
async def receive(call: Call, messenger: str) -> web.Response:
    """Take an update from the bot of a messenger, `telegram` or `max`; there is none whose bot is not set up."""
    body = await raw_body(call.request)
    try:
        async with call.uow(_SCOPE) as uow:
            await call.context.services.phones.bots.receive(uow, messenger, body=body, headers=call.request.headers)
    except UpdateNotProven:
        # Only these are limited: a messenger delivers everybody's updates from a few addresses.
        await call.limit("webhooks_per_ip", counted_address(call.trace.ip or ""))
        raise
    return raw(Taken().model_dump())
