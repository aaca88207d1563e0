"""Slugs: lower-case ASCII names fit for a URL or a subdomain (contract.md 2.2)."""

import re
import secrets

from slugify import slugify

MAX_LENGTH = 63
_PATTERN = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def make_slug(name: str) -> str:
    """Transliterate a company name; a name without letters or digits gives `tenant-<8 hex>`."""
    slug = slugify(name, max_length=MAX_LENGTH - 8)
    return slug or f"tenant-{secrets.token_hex(4)}"


def is_slug(text: str) -> bool:
    """Tell whether `text` is a valid DNS label in lower case (1..63 characters)."""
    return _PATTERN.fullmatch(text) is not None
