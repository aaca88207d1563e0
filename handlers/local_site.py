"""Sites of the local recipe, as a browser sees them; mounted in development only.

This plays ERPNext's side of entering a site (contract.md 6): it redeems the token at our own public address, as the
real one does, and from then on knows the user by a cookie.
"""

import base64
import hashlib
import html
import secrets
from datetime import timedelta
from typing import Any, Final
from urllib.parse import quote

import jwt
from aiohttp import ClientError, web
from pydantic import BaseModel

from core.errors import DomainError, ErrorKind
from handlers.rest import Access, Call, Router
from services.provisioning import SiteNotFound
from services.provisioning.views import SiteView
from services.unit_of_work import PlatformScope

router = Router(tag="local sites", prefix="/sites")

_COOKIE: Final = "local_site_session"
_SESSION: Final = timedelta(hours=8)
_ALGORITHM: Final = "HS256"
# A restart signs everybody out of the local sites, which development can bear.
_KEY: Final = secrets.token_bytes(32)
_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:10vh auto;max-width:40rem;padding:0 1rem;color:#1f2933}"
    "h1{font-size:1.6rem}dl{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1.5rem}"
    "dt{color:#627d98}dd{margin:0;overflow-wrap:anywhere}"
)
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# What of the recipe's outputs is of interest to a person.
_FACTS: Final = {"database": "Database", "schema_version": "Schema version"}
_HTML: Final[dict[str, Any]] = {"answer": str, "access": Access.PUBLIC, "content_type": "text/html"}
_BY_SLUG: Final = PlatformScope("the address of a site names its tenant")


class EntranceRefused(DomainError):
    """Nobody is let in without a good token of this very site, or the cookie that one was exchanged for."""

    kind = ErrorKind.FORBIDDEN
    code = "PERMISSION_DENIED"
    message = "This entrance is not, or no longer, valid"


class LoginQuery(BaseModel):
    """What the orchestrator sends a browser here with."""

    token: str = ""
    redirect: str = "/desk"


@router.get("/{slug}", errors=(SiteNotFound,), **_HTML)
async def show_site(call: Call, slug: str) -> web.Response:
    """Show that the site is there."""
    site = await _site(call, slug)
    return _page(site.name, "<p>This site is up. Enter it from the orchestrator.</p>")


@router.get("/{slug}/api/method/erpmax.sso.login", errors=(SiteNotFound, EntranceRefused), status=302, **_HTML)
async def log_in(call: Call, slug: str, query: LoginQuery) -> web.Response:
    """Redeem a one-time token and let its user in."""
    site = await _site(call, slug)
    answer = await _redeem(call, query)
    # A token of another tenant is used up all the same, but opens nothing here.
    if answer.get("success") is not True or answer["data"]["tenant"]["slug"] != slug:
        return _refuse(call, site)
    where = {"Location": f"/sites/{quote(slug)}/desk", **_HEADERS}
    response = web.Response(text="Found", content_type="text/html", status=302, headers=where)
    await _remember(call, response, slug=slug, full_name=answer["data"]["full_name"])
    return response


@router.get("/{slug}/desk", errors=(SiteNotFound, EntranceRefused), **_HTML)
async def show_desk(call: Call, slug: str) -> web.Response:
    """Greet the user who entered and show what the site knows of itself."""
    site = await _site(call, slug)
    full_name = await _visitor(call, slug)
    if full_name is None:
        return _refuse(call, site)
    facts = {"Company": site.name, "Address": site.url, "Status": site.status, "Plan": site.plan or "none"}
    facts |= {title: site.facts[name] for name, title in _FACTS.items() if name in site.facts}
    rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts.items())
    return _page(f"Welcome, {full_name}", f"<dl>{rows}</dl>")


async def _site(call: Call, slug: str) -> SiteView:
    """Return the site, provided that it is one of those served here; raises SiteNotFound."""
    async with call.uow(_BY_SLUG) as uow:
        site = await call.context.services.provisioning.site(uow, slug=slug)
    if site.url != f"{call.context.public_url}/sites/{slug}":
        raise SiteNotFound
    return site


async def _redeem(call: Call, query: LoginQuery) -> dict[str, Any]:
    address = f"{call.context.public_url}/api/v1/sso/erpnext/callback"
    try:
        async with call.context.http.get(address, params=query.model_dump()) as response:
            if response.status != 200:
                return {}
            answer: dict[str, Any] = await response.json()
            return answer
    except (ClientError, TimeoutError):
        return {}


async def _remember(call: Call, response: web.Response, *, slug: str, full_name: str) -> None:
    async with call.uow(_BY_SLUG) as uow:
        expires = int((uow.now + _SESSION).timestamp())
    claims = {"aud": slug, "name": full_name, "exp": expires}
    response.set_cookie(
        _COOKIE,
        jwt.encode(claims, _KEY, algorithm=_ALGORITHM),
        path=f"/sites/{quote(slug)}",
        max_age=int(_SESSION.total_seconds()),
        httponly=True,
        samesite="Lax",
        secure=call.context.public_url.startswith("https://"),
    )


async def _visitor(call: Call, slug: str) -> str | None:
    cookie = call.request.cookies.get(_COOKIE, "")
    try:
        claims = jwt.decode(cookie, _KEY, algorithms=[_ALGORITHM], audience=slug)
    except jwt.PyJWTError:
        return None
    return str(claims["name"])


def _refuse(call: Call, site: SiteView) -> web.Response:
    """Answer a page to a browser; raises EntranceRefused to everybody else."""
    if "text/html" not in call.request.headers.get("Accept", ""):
        raise EntranceRefused
    return _page(site.name, f"<p>{EntranceRefused.message}. Enter from the orchestrator.</p>", status=403)


def _page(title: str, body: str, *, status: int = 200) -> web.Response:
    """Answer a page; `title` is plain text, `body` is HTML."""
    heading = html.escape(title)
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{heading}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{heading}</h1>{body}</body></html>"
    )
    return web.Response(text=text, status=status, content_type="text/html", headers=_HEADERS)
