"""The page of one paper, for whoever has its link: no sign-in, nothing but this paper, and its PDF file."""

import html
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any, Final

from aiohttp import web

from core.i18n import TEXTS
from handlers.documents import pdf_of
from handlers.rest import Access, Call, Router
from services.documents.errors import DocumentNotFound
from services.documents.sheet import Pair, Party, Sheet, sheet_of
from services.documents.views import DocumentView
from services.unit_of_work import PlatformScope

router = Router(tag="hosted documents", prefix="/invoices")

_FOLDER: Final = Path(__file__).resolve().parent.parent / "web" / "document"
_PAGE: Final = Template((_FOLDER / "page.html").read_text(encoding="utf-8"))
_MISSING: Final = Template((_FOLDER / "missing.html").read_text(encoding="utf-8"))
_STYLE: Final = (_FOLDER / "page.css").read_text(encoding="utf-8")

_PUBLIC: Final[dict[str, Any]] = {"access": Access.PUBLIC, "rule": "documents_per_ip"}
_HEADERS: Final = {
    "Cache-Control": "private, no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    # The address is all that a stranger needs, so it must reach nobody else, search engines included.
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
}
_SCOPE: Final = PlatformScope("whoever has the link of a paper is known by it alone")


@router.get("/page.css", answer=str, access=Access.PUBLIC, content_type="text/css")
async def show_style(_: Call) -> web.Response:
    """Give the page its looks."""
    return web.Response(text=_STYLE, content_type="text/css", headers={"X-Content-Type-Options": "nosniff"})


@router.get("/{token}", answer=str, content_type="text/html", errors=(DocumentNotFound,), **_PUBLIC)
async def show_page(call: Call, token: str) -> web.Response:
    """Show an invoice to whoever has its link."""
    try:
        view = await _view(call, token)
    except DocumentNotFound:
        return _refuse(call)
    sheet = sheet_of(view)
    return _answer(_render(sheet, token), sheet.locale)


@router.get("/{token}/pdf", answer=bytes, content_type="application/pdf", errors=(DocumentNotFound,), **_PUBLIC)
async def download(call: Call, token: str) -> web.Response:
    """Download it as a PDF file."""
    response = await pdf_of(call, await _view(call, token))
    response.headers.update({name: _HEADERS[name] for name in ("Referrer-Policy", "X-Robots-Tag")})
    return response


async def _view(call: Call, token: str) -> DocumentView:
    async with call.uow(_SCOPE) as uow:
        return await call.context.services.documents.hosted(uow, token)


def _refuse(call: Call) -> web.Response:
    """Answer a page to a browser; raises DocumentNotFound to everybody else."""
    if "text/html" not in call.request.headers.get("Accept", ""):
        raise DocumentNotFound
    language = TEXTS.negotiate(call.request.headers.get("Accept-Language"))
    text = html.escape(TEXTS.text("documents.label.missing", language))
    return _answer(_MISSING.substitute(lang=language, text=text), language, status=404)


def _answer(text: str, language: str, *, status: int = 200) -> web.Response:
    return web.Response(
        text=text, status=status, content_type="text/html", headers={**_HEADERS, "Content-Language": language}
    )


def _render(sheet: Sheet, token: str) -> str:
    return _PAGE.substitute(
        lang=sheet.locale,
        title=html.escape(sheet.title),
        status=html.escape(sheet.status),
        facts=_pairs(sheet.facts),
        parties=_party(sheet.issuer) + _party(sheet.buyer),
        columns=_cells("th", sheet.columns),
        rows="".join(f"<tr>{_cells('td', row)}</tr>" for row in sheet.rows),
        totals=_pairs(sheet.totals),
        pdf=html.escape(f"/invoices/{token}/pdf", quote=True),
        download=html.escape(sheet.download),
    )


def _pairs(pairs: Sequence[Pair]) -> str:
    return "".join(f"<dt>{html.escape(label)}</dt><dd>{html.escape(value)}</dd>" for label, value in pairs)


def _party(party: Party) -> str:
    name = f"<p><strong>{html.escape(party.name)}</strong></p>"
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in party.lines)
    return f"<section><h2>{html.escape(party.label)}</h2>{name}{lines}</section>"


def _cells(tag: str, texts: Sequence[str]) -> str:
    return "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts)
