"""Recognition: whom an access token names, for every door alike, and without asking the database each time."""

from datetime import datetime

from core.clock import Clock
from models.events import PLATFORM
from realtime.follower import Follower
from services.auth import AuthService
from services.identity import Principal
from services.standing import Standing
from services.unit_of_work import PlatformScope, UnitOfWorkFactory

# After this long without a look at the platform's stream, tokens are no longer taken at their word, in seconds.
_TRUST_S = 5.0
_SCOPE = PlatformScope("a token names the user before any tenant is known")


class Recognition:
    """Takes tokens at their word for as long as nothing has changed that may concern whom they name."""

    def __init__(
        self, *, units: UnitOfWorkFactory, auth: AuthService, standing: Standing, follower: Follower, clock: Clock
    ) -> None:
        self._units = units
        self._auth = auth
        self._standing = standing
        self._follower = follower
        self._clock = clock

    async def recognise(self, token: str) -> Principal:
        """Return whom a token names as things stand; raises what `read` and `prove` raise."""
        principal, _ = self.read(token)
        return await self.prove(principal, token)

    def read(self, token: str) -> tuple[Principal, datetime]:
        """Return whom a token names and until when; raises CredentialsRefused and TokenExpired."""
        return self._auth.recognise(token, now=self._clock.now())

    async def prove(self, principal: Principal, token: str, *, in_open_tenant: bool = False) -> Principal:
        """Return whom a token that was read names as things stand; only in doubt is the database asked.

        Raises what `AuthService.authenticate` raises, and, if the tenant has to be open, TenantSuspended.
        """
        if self._is_current() and not self._standing.doubts(principal):
            return principal
        while True:
            heard = self._standing.last_change(principal)
            async with self._units(_SCOPE) as uow:
                proved = await self._auth.authenticate(uow, token)
                if in_open_tenant:
                    await self._auth.require_open_tenant(uow, proved.tenant_id)
            if self._standing.last_change(principal) == heard:
                return proved
            # Something was heard while the database was asked, so that its answer may be of before.

    def _is_current(self) -> bool:
        # A change that has been announced but not been taken in yet may concern anybody. So whoever was told that a
        # session has ended finds it ended, also with the very next request.
        return self._follower.check_age_s() <= _TRUST_S and not self._follower.is_behind(PLATFORM)
