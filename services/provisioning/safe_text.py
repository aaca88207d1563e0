"""Making what commands print fit for a tenant's eyes: no addresses of our stores, no credentials, no paths of the host.

The driver has masked the secrets it knows of; this takes away what tells about the machine it runs on.
"""

import re
from typing import Final
from urllib.parse import urlsplit

# `key=value` pairs of a connection string and the like.
_CREDENTIAL: Final = re.compile(
    r"\b(\w*(?:password|passwd|pwd|secret|token))\s*[=:]\s*(?:'[^']*'|\"[^\"]*\"|\S+)", re.IGNORECASE
)
# An address, or an absolute path of two parts or more; addresses first, for they have paths in them.
_PLACE: Final = re.compile(
    r"(?P<address>\b[a-z][a-z0-9+.-]*://[^\s'\"<>]+)"
    r"|(?<![\w/.~-])/(?:[^\s/'\"<>()\[\]:;,|]+/)+[^\s/'\"<>()\[\]:;,|]*",
    re.IGNORECASE,
)
_WEB_SCHEMES: Final = frozenset({"http", "https"})


def safe_text(text: str, *, site_name: str) -> str:
    """Return `text` without connection strings, credentials and host paths; a path within the site keeps that end.

    >>> safe_text("cannot write /srv/data/sites/acme/site.json", site_name="acme")
    'cannot write acme/site.json'
    """

    def public_place(match: re.Match[str]) -> str:
        if match["address"]:
            return match[0] if _is_public(match[0]) else "[address]"
        parts = match[0].strip("/").split("/")
        return "/".join(parts[parts.index(site_name) :]) if site_name in parts else "[path]"

    return _PLACE.sub(public_place, _CREDENTIAL.sub(r"\1=[hidden]", text))


def _is_public(address: str) -> bool:
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    return parts.scheme.lower() in _WEB_SCHEMES and "@" not in parts.netloc
