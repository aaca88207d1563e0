"""Webhooks of payment providers (contract.md 4.3): verify, store once, answer. The signature is the identity."""

from aiohttp import web

from handlers.envelope import MessageEnvelope
from handlers.rest import Access, Call, PayloadTooLarge, Router, read_bytes
from providers.payments import BadPayload, BadSignature
from services.billing.errors import WebhookUnknown
from services.unit_of_work import PlatformScope

router = Router(tag="webhooks", prefix="/api/v1/billing")

# Many times the largest event that a provider sends.
_MAX_BYTES = 512 * 1024
_SCOPE = PlatformScope("a webhook names its tenant only once it is applied")


@router.post(
    "/webhook/stripe",
    answer=MessageEnvelope,
    access=Access.PUBLIC,
    errors=(BadSignature, BadPayload, PayloadTooLarge),
    aliases=("/api/v1/billing/webhook",),
    rule="webhooks_per_ip",
)
async def receive_stripe(call: Call) -> web.Response:
    """Take an event from Stripe."""
    return await _receive(call, "stripe")


@router.post(
    "/webhook/{provider}",
    answer=MessageEnvelope,
    access=Access.PUBLIC,
    errors=(BadSignature, BadPayload, WebhookUnknown, PayloadTooLarge),
    rule="webhooks_per_ip",
)
async def receive(call: Call, provider: str) -> web.Response:
    """Take an event from the payment provider named in the path."""
    return await _receive(call, provider)


async def _receive(call: Call, provider: str) -> web.Response:
    body = await raw_body(call.request)
    async with call.uow(_SCOPE) as uow:
        await call.context.services.billing.receive(uow, provider, body=body, headers=call.request.headers)
    return call.message("Webhook received")


async def raw_body(request: web.Request) -> bytes:
    """Return the exact bytes, for nothing else is what was signed; raises PayloadTooLarge."""
    if (request.content_length or 0) > _MAX_BYTES:
        raise PayloadTooLarge
    body = await read_bytes(request)
    if len(body) > _MAX_BYTES:
        raise PayloadTooLarge
    return body
