"""Choosing a tenant's slug: its company's name, or that with the first free number (contract.md 2.2, 3.4)."""

import secrets

from sqlalchemy import select

from core.slugs import make_slug
from models.tenants import Tenant
from services.unit_of_work import UnitOfWork

# A slug is also the tenant's first subdomain, and these lead elsewhere (contract.md 3.4).
RESERVED = frozenset(
    (
        "admin", "api", "app", "assets", "billing", "docs", "ftp", "gateway", "health", "localhost", "mail", "static",
        "support", "ws", "www",
    )
)  # fmt: skip
_MIN_LENGTH = 3
_LAST_SUFFIX = 1000
_WINDOW = 50


async def free_slug(uow: UnitOfWork, name: str) -> str:
    """Return a slug for a company's name that no committed tenant has: `acme`, `acme-1`, … `acme-1000`.

    After a thousand namesakes the suffix is random. Whoever writes it must still expect to lose a race.
    """
    base = make_slug(name)
    unusable = base in RESERVED or len(base) < _MIN_LENGTH
    candidates = [] if unusable else [base]
    candidates += [f"{base}-{suffix}" for suffix in range(1, _LAST_SUFFIX + 1)]
    for start in range(0, len(candidates), _WINDOW):
        window = candidates[start : start + _WINDOW]
        taken = set(await uow.session.scalars(select(Tenant.slug).where(Tenant.slug.in_(window))))
        free = next((slug for slug in window if slug not in taken), None)
        if free is not None:
            return free
    return f"{base}-{secrets.token_hex(4)}"
