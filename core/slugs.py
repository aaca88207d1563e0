"""Slugs: lower-case ASCII names fit for a URL or a subdomain (contract.md 2.2)."""

import secrets

from slugify import slugify

# A DNS label has 63 characters (RFC 1035, 2.3.4); a hyphen and up to eight more may follow.
_MAX_LENGTH = 63 - 9


def make_slug(name: str) -> str:
    """Transliterate a company name; a name without letters or digits gives `tenant-<8 hex>`."""
    slug = slugify(name, max_length=_MAX_LENGTH)
    return slug or f"tenant-{secrets.token_hex(4)}"
