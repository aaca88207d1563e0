"""Entering ERPNext by a one-time token, for users and for sites (contract.md 6)."""

from aiohttp import web
from pydantic import BaseModel, RootModel

from core.errors import RateLimited
from handlers.envelope import Envelope
from handlers.rest import Access, Call, Router, raw
from services.closed_tenants import TenantSuspended
from services.sso import (
    SiteNotProvisioned,
    SsoAcceptedView,
    SsoRefusedView,
    SsoTicketView,
    SsoTokenNotFound,
    SsoValidityView,
)
from services.unit_of_work import PlatformScope

router = Router(tag="sso", prefix="/api/v1/sso")

_NO_STORE = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
_BY_TOKEN = PlatformScope("a one-time token names the tenant")


class TicketEnvelope(Envelope[SsoTicketView], SsoTicketView):
    """The ticket in the envelope and beside it, for clients that read no envelope (contract.md 1.7)."""


class CallbackAnswer(RootModel[SsoAcceptedView | SsoRefusedView]):
    """Who enters, or that nobody does; the status is 200 in both cases."""


class CallbackQuery(BaseModel):
    """The token, and where the site should lead the user."""

    token: str = ""
    redirect: str = "/desk"


class TokenQuery(BaseModel):
    """A token."""

    token: str


@router.post(
    "/erpnext/token",
    answer=TicketEnvelope,
    errors=(SiteNotProvisioned, RateLimited, TenantSuspended),
    aliases=("/api/v1/sso/token",),
)
async def issue_token(call: Call) -> web.Response:
    """Issue a token that lets the caller enter the tenant's site once."""
    await call.limit("sso_per_user", str(call.actor.user_id))
    async with call.tenant_uow() as uow:
        ticket = await call.context.services.sso.issue(uow, call.actor)
    response = call.ok(ticket, flat=("sso_url", "token", "expires_at", "expires_in"))
    response.headers.update(_NO_STORE)
    return response


@router.get("/erpnext/callback", answer=CallbackAnswer, access=Access.PUBLIC)
async def redeem_token(call: Call, query: CallbackQuery) -> web.Response:
    """Use a token up and say who enters; called by the site, behind the user's back."""
    async with call.uow(_BY_TOKEN) as uow:
        answer = await call.context.services.sso.redeem(uow, token=query.token, redirect=query.redirect)
    return raw(answer.model_dump(), headers=_NO_STORE)


@router.get(
    "/erpnext/validate/{token}",
    answer=SsoValidityView,
    access=Access.PUBLIC,
    errors=(SsoTokenNotFound,),
    rule="webhooks_per_ip",
)
async def validate_token(call: Call, token: str) -> web.Response:
    """Say whose a token is without using it up."""
    async with call.uow(_BY_TOKEN) as uow:
        view = await call.context.services.sso.validate(uow, token=token)
    return raw(view.model_dump(), headers=_NO_STORE)


@router.get(
    "/redirect",
    answer=str,
    access=Access.PUBLIC,
    status=302,
    errors=(SsoTokenNotFound, SiteNotProvisioned),
    rule="webhooks_per_ip",
    content_type="text/plain",
)
async def follow_token(call: Call, query: TokenQuery) -> web.Response:
    """Lead a browser to the site that a token is for."""
    async with call.uow(_BY_TOKEN) as uow:
        destination = await call.context.services.sso.destination(uow, token=query.token)
    return web.Response(text="Found", status=302, headers={"Location": destination, **_NO_STORE})
