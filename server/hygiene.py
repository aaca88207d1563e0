"""The headers that every answer carries unless it has better ones of its own (OWASP secure headers project)."""

from collections.abc import Awaitable, Callable

from aiohttp import web

_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    # What we answer is data; the pages for people have policies of their own (handlers/pages.py).
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
_A_YEAR = "max-age=31536000"


def protect(*, https: bool) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Return a signal handler that completes the headers; with `https` browsers are told never to come without."""
    headers = {**_ALWAYS, "Strict-Transport-Security": _A_YEAR} if https else _ALWAYS

    async def complete(request: web.Request, response: web.StreamResponse) -> None:
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        if request.path.startswith("/api/"):
            # An answer of the API is for whoever asked, and for now.
            response.headers.setdefault("Cache-Control", "no-store")

    return complete
