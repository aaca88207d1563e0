"""Where a payer may be sent back to: web pages and apps, never something that a browser would run."""

import re
from urllib.parse import urlsplit

MAX_LENGTH = 2048

# Schemes that run or show their own content, or reach into the payer's device, instead of opening a page or an app.
_UNSAFE_SCHEMES = frozenset(
    {
        "about",
        "blob",
        "cid",
        "chrome",
        "content",
        "data",
        "file",
        "filesystem",
        "ftp",
        "intent",
        "jar",
        "javascript",
        "mailto",
        "mid",
        "res",
        "sms",
        "tel",
        "vbscript",
        "view-source",
        "ws",
        "wss",
    }
)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
# Anything else would have to be escaped in a URL anyway; line breaks would end a header.
_URL = re.compile(r"[!-~]+")


def check_return_url(url: str) -> str:
    """Return `url` unchanged; raises ValueError when it is not safe to redirect to.

    Allowed are `http` and `https` with a host, and custom schemes of apps in the form `scheme://…`. The provider's
    placeholder `{CHECKOUT_SESSION_ID}` may stand in it.
    """
    if len(url) > MAX_LENGTH or _URL.fullmatch(url) is None or "\\" in url:
        raise ValueError(f"must be a URL of at most {MAX_LENGTH} printable ASCII characters")
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    is_absolute = url[len(scheme) :].startswith("://")
    if _SCHEME.fullmatch(scheme) is None or scheme in _UNSAFE_SCHEMES or not is_absolute:
        raise ValueError("must begin with http://, https:// or the scheme of an app such as myapp://")
    if scheme in ("http", "https") and not parts.hostname:
        raise ValueError("must name a host")
    return url
