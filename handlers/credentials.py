"""Credentials: where a request carries its access token or API key, and that no other site has made it send one along.

A browser adds a cookie to whatever any page has it ask for. So where a cookie alone authenticates, a request that may
change something must come from one of our own pages: browsers name the page in `Origin` (Fetch standard, 3.1) or say in
`Sec-Fetch-Site` that it was ours (W3C Fetch Metadata).
"""

from collections.abc import Collection

from aiohttp import hdrs, web

from core.errors import DomainError, ErrorKind
from services.api_keys.form import is_key
from services.auth.errors import CredentialsRefused
from services.identity import NotAuthenticated

COOKIE = "access_token"
KEY_HEADER = "X-API-Key"
_SAFE_METHODS = frozenset((hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS))


class CrossSiteRefused(DomainError):
    """A cookie came with a request that no page of ours has made."""

    kind = ErrorKind.FORBIDDEN
    code = "CROSS_SITE_REFUSED"
    message = "A request that is authenticated by a cookie must come from this site"


def access_token(request: web.Request, *, origins: Collection[str]) -> str:
    """Return the token of the Authorization header, else the key of X-API-Key, or else the token of the cookie.

    `origins` are those of our own pages. Raises NotAuthenticated, and CrossSiteRefused for a cookie from elsewhere.
    """
    header = request.headers.get(hdrs.AUTHORIZATION)
    key = request.headers.get(KEY_HEADER, "").strip()
    if header is None and key:
        return _key(key)
    token = _bearer(header) if header is not None else _in_cookie(request.cookies.get(COOKIE, ""))
    if header is None and request.method not in _SAFE_METHODS and not _is_ours(request, origins):
        raise CrossSiteRefused
    return token


def shows_credentials(request: web.Request) -> bool:
    """Tell whether a header of the request says who sends it, rightly or not."""
    return any(request.headers.get(name, "").strip() for name in (hdrs.AUTHORIZATION, KEY_HEADER))


def _key(text: str) -> str:
    if not is_key(text):
        raise CredentialsRefused
    return text


def _in_cookie(text: str) -> str:
    """Return the token of a cookie, which the released clients write with `Bearer ` before it, and others without."""
    bare = text.strip()
    return _bearer(text) if not bare or " " in bare else bare


def _bearer(text: str) -> str:
    scheme, _, token = text.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise NotAuthenticated
    return token.strip()


def _is_ours(request: web.Request, origins: Collection[str]) -> bool:
    origin = request.headers.get(hdrs.ORIGIN)
    return origin in origins if origin is not None else request.headers.get("Sec-Fetch-Site") == "same-origin"
