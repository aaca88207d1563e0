"""The pages for people: API documents, ReDoc, the live dashboard, the letters that ask for something, all served by us.

The files lie in `web/`; `web/vendor/README.md` tells where the libraries come from. Everything a page loads has an
address with the hash of all these files in it, so that browsers may keep it for ever and a new release is seen at once.
The Content-Security-Policy of each page allows our own files only: what a library would fetch elsewhere is refused.
"""

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

Show = Callable[[web.Request], Awaitable[web.StreamResponse]]

WEB = Path(__file__).resolve().parent.parent / "web"

# The hosted page of the sandbox has a door of its own (handlers/sandbox.py).
_FOLDERS = (
    *("dashboard", "docs", "finish-registration", "invitation", "letters", "redoc", "reset-password", "vendor"),
    "verify-email",
)
# Named here and not guessed: the tables of the machine differ, and browsers obey `nosniff`.
_CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    # The licences of the libraries go wherever the libraries go.
    "": "text/plain; charset=utf-8",
}
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"

_SAME_ORIGIN = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One HTML file and what its libraries need beyond our own files; `{nonce}` in a policy is new in each answer."""

    paths: tuple[str, ...]
    file: str
    policy: Mapping[str, str] = field(default_factory=dict)
    referrer: str = "same-origin"


PAGES = (
    Page(paths=("/docs", "/docs/"), file="docs/index.html"),
    # ReDoc writes <style> elements: with the nonce that it is given and, before it can know that, the one of its scroll
    # bars, first empty and then filled, which is told by its hashes. Its search index lives in a worker from a blob.
    Page(
        paths=("/redoc", "/redoc/"),
        file="redoc/index.html",
        policy={
            "style-src": "'self' 'nonce-{nonce}' 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' "
            "'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='",
            "worker-src": "blob:",
        },
    ),
    Page(paths=("/dashboard", "/dashboard/"), file="dashboard/index.html"),
    # The addresses of these carry the token of a letter, which must reach nobody else.
    Page(paths=("/reset-password",), file="reset-password/index.html", referrer="no-referrer"),
    Page(paths=("/verify-email",), file="verify-email/index.html", referrer="no-referrer"),
    Page(paths=("/finish-registration",), file="finish-registration/index.html", referrer="no-referrer"),
    Page(paths=("/invitations", "/invitations/{token}"), file="invitation/index.html", referrer="no-referrer"),
)


def mount_pages(app: web.Application) -> None:
    """Add the pages and the files that they load to `app`."""
    files = _files()
    release = _release(files)
    for page in PAGES:
        show = _page(page, release)
        for path in page.paths:
            app.router.add_get(path, show)
    app.router.add_get("/assets/{release}/{path:.+}", _asset(files, release))


def _files() -> dict[str, Path]:
    """Find what may be served, by address: a path that is not in this table leads nowhere."""
    found = (file for folder in _FOLDERS for file in (WEB / folder).rglob("*") if file.is_file())
    return {file.relative_to(WEB).as_posix(): file for file in found if file.suffix in _CONTENT_TYPES}


def _release(files: Mapping[str, Path]) -> str:
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.encode())
        digest.update(files[name].read_bytes())
    return digest.hexdigest()[:16]


def _page(page: Page, release: str) -> Show:
    text = (WEB / page.file).read_text(encoding="utf-8").replace("{assets}", f"/assets/{release}")
    policy = "; ".join(f"{name} {sources}" for name, sources in {**_SAME_ORIGIN, **page.policy}.items())

    async def show(_: web.Request) -> web.Response:
        nonce = secrets.token_urlsafe(16)
        return web.Response(
            text=text.replace("{nonce}", nonce),
            content_type="text/html",
            headers={
                "Cache-Control": _ASK_AGAIN,
                "Content-Security-Policy": policy.replace("{nonce}", nonce),
                "Referrer-Policy": page.referrer,
                "X-Content-Type-Options": "nosniff",
            },
        )

    return show


def _asset(files: Mapping[str, Path], release: str) -> Show:
    async def send(request: web.Request) -> web.StreamResponse:
        file = files.get(request.match_info["path"])
        if file is None:
            raise web.HTTPNotFound
        # While a new release is rolled out, a page of the other one may ask us: it is served, but not kept.
        current = request.match_info["release"] == release
        return web.FileResponse(
            file,
            headers={
                "Cache-Control": _FOR_EVER if current else _ASK_AGAIN,
                "Content-Type": _CONTENT_TYPES[file.suffix],
                "X-Content-Type-Options": "nosniff",
            },
        )

    return send
