"""Recognition: whom an access token or an API key names, for every door alike, mostly without asking the database."""

from datetime import datetime

from core.clock import Clock
from models.events import PLATFORM
from realtime.follower import Follower
from services.api_keys.form import is_key
from services.api_keys.ring import KeyRing
from services.api_keys.uses import Uses
from services.auth import AuthService
from services.identity import Principal, require_scope
from services.permissions import KeyScope
from services.standing import Standing
from services.unit_of_work import PlatformScope, UnitOfWork, UnitOfWorkFactory

# After this long without a look at the platform's stream, tokens are no longer taken at their word, in seconds.
_TRUST_S = 5.0
_SCOPE = PlatformScope("a token names the user before any tenant is known")


class Recognition:
    """Takes tokens and keys at their word for as long as nothing has changed that may concern whom they name."""

    def __init__(
        self, *, units: UnitOfWorkFactory, auth: AuthService, standing: Standing, follower: Follower, clock: Clock
    ) -> None:
        self._units = units
        self._auth = auth
        self._ring = KeyRing(units, clock)
        self._standing = standing
        self._follower = follower
        self._clock = clock
        self.uses = Uses(units, clock)

    async def recognise(self, token: str, *, scope: KeyScope | None = None) -> Principal:
        """Return whom a token names as things stand; an API key only if it has `scope`, and never without one.

        Raises what `read` and `prove` raise, ApiKeyRefused and ScopeRequired.
        """
        principal, _ = await self.read(token)
        proved = await self.prove(principal, token)
        require_scope(proved, scope)
        return proved

    def must_look(self, token: str) -> bool:
        """Tell whether the database must be asked merely to read a token: an API key that was not seen lately."""
        return is_key(token) and not self._ring.is_at_hand(token)

    async def read(self, token: str) -> tuple[Principal, datetime | None]:
        """Return whom a token names and until when, None for a key without an end.

        Raises CredentialsRefused and TokenExpired, and of a key what `KeyRing.read` raises.
        """
        if is_key(token):
            return await self._ring.read(token)
        return self._auth.recognise(token, now=self._clock.now())

    async def prove(self, principal: Principal, token: str, *, in_open_tenant: bool = False) -> Principal:
        """Return whom a token that was read names as things stand; only in doubt is the database asked.

        Raises what `AuthService.authenticate` and `KeyRing.authenticate` raise, and, if the tenant has to be open,
        TenantSuspended and TenantDeleted.
        """
        proved = principal
        if not self._is_believed(principal):
            proved = await self._look(principal, token, in_open_tenant=in_open_tenant)
        if proved.key_id is not None:
            self.uses.note(proved.key_id)
        return proved

    def _is_believed(self, principal: Principal) -> bool:
        return self._is_current() and not self._standing.doubts(principal)

    async def _look(self, principal: Principal, token: str, *, in_open_tenant: bool) -> Principal:
        while True:
            heard = self._standing.last_change(principal)
            async with self._units(_SCOPE) as uow:
                proved = await self._authenticate(uow, principal, token)
                if in_open_tenant:
                    await self._auth.require_open_tenant(uow, proved.tenant_id)
            if self._standing.last_change(principal) == heard:
                return proved
            # Something was heard while the database was asked, so that its answer may be of before.

    async def _authenticate(self, uow: UnitOfWork, principal: Principal, token: str) -> Principal:
        if principal.key_id is not None:
            return await self._ring.authenticate(uow, token)
        return await self._auth.authenticate(uow, token)

    def _is_current(self) -> bool:
        # A change that has been announced but not been taken in yet may concern anybody. So whoever was told that a
        # session has ended finds it ended, also with the very next request.
        return self._follower.check_age_s() <= _TRUST_S and not self._follower.is_behind(PLATFORM)
