"""The sandbox's hosted payment page; mounted in development only.

It plays the payment provider to the end: a press of a button POSTs a signed event to our own webhook route over HTTP,
and only then is the payer sent back.
"""

import html
import re
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from aiohttp import ClientError, web
from pydantic import BaseModel

from core.errors import InvalidInput, Unavailable
from core.i18n import TEXTS
from core.json import decimal_text
from handlers.parsing import PayloadTooLarge, read_bytes
from handlers.rest import Access, Call, Router
from models.billing import CheckoutState
from providers.payments.sandbox_session import SandboxSessionUnknown
from services.billing.sandbox import SandboxAction, SandboxEvent, SandboxPage, SandboxSessionClosed
from services.unit_of_work import PlatformScope

router = Router(tag="sandbox", prefix="/sandbox")

_FOLDER: Final = Path(__file__).resolve().parent.parent / "web" / "sandbox"
_PAGE: Final = Template((_FOLDER / "pay.html").read_text(encoding="utf-8"))
_OPEN: Final = Template((_FOLDER / "open.html").read_text(encoding="utf-8"))
_CLOSED: Final = Template((_FOLDER / "closed.html").read_text(encoding="utf-8"))
_STYLE: Final = (_FOLDER / "pay.css").read_text(encoding="utf-8")

_HTML: Final[dict[str, Any]] = {"answer": str, "access": Access.PUBLIC, "content_type": "text/html"}
_HEADERS: Final = {
    "Cache-Control": "no-store",
    # The address of the page is all that a payer needs, so it must reach nobody else.
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_HOST: Final = re.compile(r"[a-z0-9.-]+(?::[0-9]+)?|\[[0-9a-f:]+\](?::[0-9]+)?")
_SCOPE: Final = PlatformScope("the payer is known by the address of the page alone")


class PageAddress(BaseModel):
    """What the address of a page carries; `lang` chooses a language instead of the browser's."""

    token: str = ""
    lang: str = ""


@router.get("/pay.css", answer=str, access=Access.PUBLIC, content_type="text/css")
async def show_style(_: Call) -> web.Response:
    """Give the page its looks."""
    return web.Response(text=_STYLE, content_type="text/css", headers={"X-Content-Type-Options": "nosniff"})


@router.get("/pay/{session_id}", errors=(SandboxSessionUnknown,), **_HTML)
async def show_page(call: Call, session_id: str, query: PageAddress) -> web.Response:
    """Show the purchase and what can be done with it."""
    async with call.uow(_SCOPE) as uow:
        page = await call.context.services.billing.sandbox.page(uow, session_id=session_id, token=query.token)
    language = query.lang if query.lang in TEXTS.locales else _browser_language(call)
    return web.Response(
        text=_render(page, language),
        content_type="text/html",
        headers={**_HEADERS, "Content-Security-Policy": _policy(page), "Content-Language": language},
    )


@router.post(
    "/pay/{session_id}",
    status=303,
    errors=(SandboxSessionUnknown, SandboxSessionClosed, PayloadTooLarge),
    **_HTML,
)
async def act(call: Call, session_id: str, query: PageAddress) -> web.Response:
    """Pay, decline or expire, and send the payer back."""
    action = await _action(call.request)
    async with call.uow(_SCOPE) as uow:
        event = await call.context.services.billing.sandbox.act(uow, action, session_id=session_id, token=query.token)
    await _deliver(call, event)
    where = {**_HEADERS, "Location": event.return_url}
    return web.Response(text="See other", content_type="text/html", status=303, headers=where)


async def _action(request: web.Request) -> SandboxAction:
    # Parsed by hand: the form holds one field, and whatever else is sent must lead to the refusal below.
    form = dict(parse_qsl((await read_bytes(request)).decode("utf-8", "replace")))
    try:
        return SandboxAction(form.get("action", ""))
    except ValueError as error:
        problem = {"field": "body -> action", "message": "must be pay, decline or expire", "type": "enum"}
        raise InvalidInput(details={"errors": [problem]}) from error


async def _deliver(call: Call, event: SandboxEvent) -> None:
    """Bring the event to our own webhook route as a stranger would; raises Unavailable when it is not taken."""
    address = f"{call.context.public_url}/api/v1/billing/webhook/sandbox"
    try:
        async with call.context.http.post(address, data=event.body, headers=event.headers) as response:
            if response.status == 200:
                return
    except (ClientError, TimeoutError) as error:
        raise Unavailable from error
    raise Unavailable


def _browser_language(call: Call) -> str:
    return TEXTS.negotiate(call.request.headers.get("Accept-Language"))


def _render(page: SandboxPage, language: str) -> str:
    def text(key: str) -> str:
        return TEXTS.text(f"sandbox.{key}", language)

    if page.state is CheckoutState.PENDING:
        buttons = {key: text(key) for key in ("pay", "decline", "expire", "hint")}
        content = _OPEN.substitute(_escaped(buttons))
    else:
        paid = page.state is CheckoutState.PAID
        content = _CLOSED.substitute(
            _escaped(
                {
                    "state": text(page.state.value),
                    "return_url": page.success_url if paid else page.cancel_url,
                    "go_back": text("go_back"),
                }
            )
        )
    shown = {
        "lang": language,
        "title": text("title"),
        "warning": text("warning"),
        "plan_label": text("plan"),
        "plan": page.plan_name,
        "period_label": text("period"),
        "period": text(page.billing_period.value),
        "email_label": text("email"),
        "email": page.customer_email or "-",
        "amount_label": text("amount"),
        "amount": decimal_text(page.amount),
        "currency": page.currency,
        "session_id": page.session_id,
    }
    return _PAGE.substitute(_escaped(shown), content=content.strip())


def _escaped(values: Mapping[str, str]) -> dict[str, str]:
    return {name: html.escape(value, quote=True) for name, value in values.items()}


def _policy(page: SandboxPage) -> str:
    # Browsers apply `form-action` to the redirect that answers the form as well, so the way back is allowed too.
    targets = " ".join(sorted({_source(page.success_url), _source(page.cancel_url)}))
    return (
        f"default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self' {targets}"
    )


def _source(url: str) -> str:
    """Return a URL's origin as a policy names it, or its scheme where the host could not stand in a header."""
    parts = urlsplit(url)
    if parts.scheme in ("http", "https") and _HOST.fullmatch(parts.netloc.lower()):
        return f"{parts.scheme}://{parts.netloc.lower()}"
    return f"{parts.scheme}:"
