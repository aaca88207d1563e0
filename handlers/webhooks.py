"""Webhooks of payment providers (contract.md 4.3, 4.6): verify, store once, answer. The signature is the identity."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from aiohttp import web

from core.addresses import counted_address
from core.errors import RateLimited
from handlers.envelope import Envelope, ListEnvelope, MessageEnvelope
from handlers.parsing import PayloadTooLarge, read_bytes
from handlers.rest import Access, Call, PageQuery, Router
from models.inbox import InboxState
from providers.payments import BadPayload, BadSignature, ProviderUnavailable
from services.billing.errors import ProviderEventEmptied, ProviderEventNotDead, ProviderEventNotFound, WebhookUnknown
from services.billing.provider_events import ProviderEventView
from services.identity import SuperuserRequired
from services.unit_of_work import PlatformScope

router = Router(tag="webhooks", prefix="/api/v1/billing")

# Many times the largest event that a provider sends.
_MAX_BYTES = 512 * 1024
_REFUSALS = (BadSignature, BadPayload, WebhookUnknown, PayloadTooLarge)
_ERRORS = (*_REFUSALS, ProviderUnavailable, RateLimited)
_RULE = "webhooks_per_ip"
_SCOPE = PlatformScope("an event of a provider belongs to no tenant before it is applied")


class EventQuery(PageQuery):
    """Which events to show."""

    state: InboxState = InboxState.DEAD


@router.post(
    "/webhook",
    answer=MessageEnvelope,
    access=Access.PUBLIC,
    errors=_ERRORS,
    aliases=("/api/billing/webhook",),
)
async def receive_any(call: Call) -> web.Response:
    """Take an event from whichever payment provider has signed it."""
    return await _receive(call, call.context.services.billing.sender(call.request.headers))


@router.post("/webhook/{provider}", answer=MessageEnvelope, access=Access.PUBLIC, errors=_ERRORS)
async def receive(call: Call, provider: str) -> web.Response:
    """Take an event from the payment provider named in the path."""
    return await _receive(call, provider)


@router.get(
    "/provider-events",
    answer=ListEnvelope[ProviderEventView],
    access=Access.USER,
    errors=(SuperuserRequired,),
)
async def list_events(call: Call, query: EventQuery) -> web.Response:
    """Show the events of payment providers that are in a state, unless told otherwise the dead ones; for superusers."""
    async with call.uow(_SCOPE) as uow:
        page = await call.context.services.billing.provider_events(uow, call.actor, query.request(), state=query.state)
    return call.page(page)


@router.post(
    "/provider-events/{event_id}/resend",
    answer=Envelope[ProviderEventView],
    access=Access.USER,
    errors=(SuperuserRequired, ProviderEventNotFound, ProviderEventNotDead, ProviderEventEmptied),
)
async def resend_event(call: Call, event_id: UUID) -> web.Response:
    """Let a dead event be tried again; for superusers. `event_id` is ours, the `id` of the list."""
    async with call.uow(_SCOPE) as uow:
        view = await call.context.services.billing.resend(uow, call.actor, row_id=event_id)
    return call.ok(view)


async def _receive(call: Call, provider: str) -> web.Response:
    async with refusals_limited(call):
        body = await raw_body(call.request)
        await call.context.services.billing.receive(provider, body=body, headers=call.request.headers, trace=call.trace)
    return call.message("Webhook received")


@asynccontextmanager
async def refusals_limited(call: Call) -> AsyncIterator[None]:
    """Count by the client's address what is refused inside; raises RateLimited for one that had too many refused.

    What cannot be checked now counts too, for strangers can have a certificate looked for that is not there. What is
    taken does not count: a provider delivers everybody's events, and all of them again, from a few addresses.
    """
    address = counted_address(call.trace.ip or "")
    # Before the body is read, so that whoever guesses costs us little.
    await call.refuse_over(_RULE, address)
    try:
        yield
    except (*_REFUSALS, ProviderUnavailable):
        await call.limit(_RULE, address)
        raise


async def raw_body(request: web.Request) -> bytes:
    """Return the exact bytes, for nothing else is what was signed; raises PayloadTooLarge."""
    if (request.content_length or 0) > _MAX_BYTES:
        raise PayloadTooLarge
    body = await read_bytes(request)
    if len(body) > _MAX_BYTES:
        raise PayloadTooLarge
    return body
