"""The ring of keys: whom an API key names, with the database asked once a minute and not with each request.

What is remembered here is as good as what a signed token says: it was true when it was read, and whatever has changed
since is known to `services.standing`, which doubts it then. That must remember changes for longer than this does keys;
it does so for longer than any access token lives, which is at least a minute, and two more.
"""

import asyncio
import hmac
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select

from core.clock import Clock
from core.tokens import token_hash
from models.api_keys import ApiKey, ApiKeyState
from models.tenants import Tenant, TenantStatus
from services.api_keys.errors import ApiKeyExpired, ApiKeyRevoked
from services.api_keys.form import KeyText, read_key
from services.api_keys.views import known_scopes
from services.auth.errors import CredentialsRefused
from services.closed_tenants import TenantDeleted, TenantSuspended
from services.identity import Principal
from services.unit_of_work import PlatformScope, UnitOfWork, UnitOfWorkFactory

_FRESH = timedelta(minutes=1)
_REMEMBERED = 4096
# Made-up keys must be looked up too; however many come, the doors keep their connections.
_LOOKS_AT_ONCE = 4
_SCOPE = PlatformScope("a key names its tenant")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    principal: Principal
    expires_at: datetime | None
    read_at: datetime


class KeyRing:
    """Recognises keys; one for each process."""

    def __init__(self, units: UnitOfWorkFactory, clock: Clock) -> None:
        self._units = units
        self._clock = clock
        # By the hash of the whole key, so that no secret stays in memory.
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._looking = asyncio.Semaphore(_LOOKS_AT_ONCE)

    def is_at_hand(self, token: str) -> bool:
        """Tell whether a key can be read without asking the database."""
        # What has not the shape of a key may hold bytes that are no text, of which no hash can be made.
        return read_key(token) is not None and self._recall(token_hash(token)) is not None

    async def read(self, token: str) -> tuple[Principal, datetime | None]:
        """Return whom a key names and until when, if it ends; only to be believed when standing has no doubt.

        Raises what `authenticate` raises.
        """
        if read_key(token) is None:
            raise CredentialsRefused
        name = token_hash(token)
        known = self._recall(name)
        if known is None:
            async with self._looking:
                # Of many who came at once with one key, the first has looked for all.
                known = self._recall(name) or await self._look(name, token)
        if known.expires_at is not None and known.expires_at <= self._clock.now():
            raise ApiKeyExpired
        return known.principal, known.expires_at

    async def authenticate(self, uow: UnitOfWork, token: str) -> Principal:
        """Return whom a key names, as the database knows it. Needs a PlatformScope.

        Raises CredentialsRefused, ApiKeyRevoked, ApiKeyExpired, TenantSuspended and TenantDeleted.
        """
        return _principal(await _find(uow, token))

    async def _look(self, name: str, token: str) -> _Known:
        async with self._units(_SCOPE) as uow:
            key = await _find(uow, token)
            known = _Known(principal=_principal(key), expires_at=key.expires_at, read_at=uow.now)
        self._known[name] = known
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return known

    def _recall(self, name: str) -> _Known | None:
        known = self._known.get(name)
        return known if known is not None and self._clock.now() < known.read_at + _FRESH else None


async def _find(uow: UnitOfWork, token: str) -> ApiKey:
    shown = read_key(token)
    if shown is None:
        raise CredentialsRefused
    row = (
        await uow.session.execute(
            select(ApiKey, Tenant).join(Tenant, Tenant.id == ApiKey.tenant_id).where(ApiKey.prefix == shown.prefix)
        )
    ).one_or_none()
    if row is None or not _is_of(shown, row[0]):
        raise CredentialsRefused
    key, tenant = row
    state = key.state(uow.now)
    if state is ApiKeyState.REVOKED:
        raise ApiKeyRevoked
    if state is ApiKeyState.EXPIRED:
        raise ApiKeyExpired
    if tenant.deletion_due_at is not None:
        raise TenantDeleted
    if tenant.status is TenantStatus.SUSPENDED:
        raise TenantSuspended
    return key


def _is_of(shown: KeyText, key: ApiKey) -> bool:
    return hmac.compare_digest(shown.secret_hash, key.secret_hash)


def _principal(key: ApiKey) -> Principal:
    return Principal(
        user_id=key.id,
        session_id=key.id,
        tenant_id=key.tenant_id,
        role=None,
        is_superuser=False,
        scopes=known_scopes(key.scopes),
    )
