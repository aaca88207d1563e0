"""Standing: whether a token may still be taken at its word, without asking the database each time.

Whatever takes something from somebody records an `AuthorityChanged` in the same transaction. It goes to the platform's
stream, which every instance follows in order, and each keeps those of the last while: longer than any token lives.
Whom one of them concerns is not refused for it, but looked up in the database, which knows best.
"""

from collections import deque
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal
from uuid import UUID

import structlog
from pydantic import ValidationError

from models.events import PLATFORM
from models.tenants import Role
from services.events import DomainEvent
from services.identity import Principal

Change = Literal["sessions_ended", "place_changed", "tenant_closed"]
# Clocks of instances may differ by this much, and a transaction may be open for as long.
LEEWAY = timedelta(minutes=1)

logger = structlog.get_logger(__name__)


class AuthorityChanged(DomainEvent):
    """Somebody may do less than their tokens say, or something else. `code` tells clients why.

    `sessions_ended` names sessions; `place_changed` a user of a tenant with the new role, or none; `tenant_closed`
    a tenant that is closed to sockets and API keys for now (services/closed_tenants.py).
    """

    event: ClassVar[str] = "authority:changed"
    namespace: ClassVar[str] = ""

    tenant_id: UUID = PLATFORM
    change: Change
    code: str
    session_ids: tuple[UUID, ...] = ()
    in_tenant: UUID | None = None
    user_id: UUID | None = None
    role: Role | None = None

    def room(self) -> str:
        return ""


def sessions_ended(session_ids: Iterable[UUID], *, code: str = "SESSION_REVOKED") -> AuthorityChanged:
    """Say that these sessions are over."""
    return AuthorityChanged(change="sessions_ended", code=code, session_ids=tuple(session_ids))


def place_changed(tenant_id: UUID, user_id: UUID, role: Role | None) -> AuthorityChanged:
    """Say that a user has another role in a tenant, or none any more."""
    code = "TENANT_ACCESS_REVOKED" if role is None else "ROLE_CHANGED"
    return AuthorityChanged(change="place_changed", code=code, in_tenant=tenant_id, user_id=user_id, role=role)


def tenant_closed(tenant_id: UUID, *, code: str = "TENANT_SUSPENDED") -> AuthorityChanged:
    """Say that a tenant is closed to sockets and API keys."""
    return AuthorityChanged(change="tenant_closed", code=code, in_tenant=tenant_id)


class Standing:
    """What one instance remembers of the changes of the last while."""

    def __init__(self, *, memory: timedelta) -> None:
        self._memory = memory + 2 * LEEWAY
        self._changes: deque[tuple[datetime, int, tuple[object, ...]]] = deque()
        self._count = 0
        self._blind = False
        # For whom or what it concerns, which change was the last.
        self._last: dict[object, int] = {}

    @property
    def memory(self) -> timedelta:
        """How far back the changes must be known for a token to be believed."""
        return self._memory

    def note(self, payload: dict[str, Any], at: datetime) -> AuthorityChanged | None:
        """Take in a change of the platform's stream and return it; those too old to matter are forgotten.

        What another release has written and this one does not understand is left out, or nothing after it in the
        stream would ever be heard.
        """
        try:
            change = AuthorityChanged.model_validate(payload)
        except ValidationError:
            logger.exception("change of authority not understood", payload=payload)
            return None
        keys = _keys(change)
        self._count += 1
        self._changes.append((at, self._count, keys))
        self._last.update((key, self._count) for key in keys)
        self._forget(before=at - self._memory)
        return change

    def doubts(self, principal: Principal) -> bool:
        """Tell whether something has changed that may concern the principal."""
        return self._blind or self.last_change(principal) > 0

    def distrust(self) -> None:
        """Doubt everybody from now on: the stream was restored, and what it may have lost is not known."""
        self._blind = True

    def last_change(self, principal: Principal) -> int:
        """Return the number of the last change that may concern the principal, 0 if there is none.

        Numbers grow; they are this instance's own.
        """
        last = self._last
        if not last:
            return 0
        tenant_id = principal.tenant_id
        concerned = (principal.session_id, tenant_id, (tenant_id, principal.user_id))
        return max(last.get(key, 0) for key in concerned)

    def _forget(self, before: datetime) -> None:
        while self._changes and self._changes[0][0] < before:
            _, number, keys = self._changes.popleft()
            for key in keys:
                if self._last.get(key) == number:
                    del self._last[key]


def _keys(change: AuthorityChanged) -> tuple[object, ...]:
    if change.change == "sessions_ended":
        return change.session_ids
    if change.change == "place_changed":
        return ((change.in_tenant, change.user_id),)
    return (change.in_tenant,)
