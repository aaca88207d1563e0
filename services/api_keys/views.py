"""API keys as a tenant's owners and admins see them."""

from collections.abc import Iterable
from datetime import datetime
from typing import Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from models.api_keys import ApiKey, ApiKeyState
from services.permissions import KeyScope


class ApiKeyView(BaseModel):
    """A key without its secret; `prefix` is how it begins.

    `created_by` is None once that account is gone. `last_used_at` may be a minute old.
    """

    model_config = ConfigDict(frozen=True)

    id: UUID
    tenant_id: UUID
    name: str
    prefix: str
    scopes: list[KeyScope]
    state: ApiKeyState
    created_by: UUID | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None

    @classmethod
    def of(cls, key: ApiKey, *, now: datetime) -> Self:
        return cls(
            id=key.id,
            tenant_id=key.tenant_id,
            name=key.name,
            prefix=key.prefix,
            scopes=sorted(known_scopes(key.scopes)),
            state=key.state(now),
            created_by=key.created_by,
            created_at=key.created_at,
            expires_at=key.expires_at,
            last_used_at=key.last_used_at,
            revoked_at=key.revoked_at,
        )


class NewApiKeyView(ApiKeyView):
    """A key that was just made; `key` is told this once and never again."""

    key: str


def known_scopes(stored: Iterable[str]) -> frozenset[KeyScope]:
    """Return the scopes of a row; one that another release knows and this one does not gives nothing."""
    return frozenset(scope for scope in KeyScope if scope.value in set(stored))
