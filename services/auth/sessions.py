"""Signing in, staying signed in and signing out (contract.md 2.1, 2.2; providers.md 1.6)."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, select, update

from core.errors import DomainError
from core.tokens import ExpiredToken, InvalidToken
from models.tenants import Membership
from models.users import RefreshVerdict, User, UserSession
from providers.passwords.hasher import PasswordHasher
from services.auth.announcer import announce
from services.auth.challenges import Challenges
from services.auth.errors import (
    AccountInactive,
    LoginRefused,
    RefreshExpired,
    RefreshRefused,
    RefreshRevoked,
    RefreshUserGone,
    TokenRevoked,
    UserHasNoTenants,
)
from services.auth.notices import SecurityNotices
from services.auth.tokens import Device, RefreshClaims, TokenDesk
from services.auth.views import ChallengeView, MeView, SessionView, SwitchView, TokensView
from services.identity import Principal, require_oneself
from services.standing import sessions_ended
from services.tenants.errors import NoTenantAccess
from services.tenants.members import home_of, lock_user, memberships_of
from services.tenants.views import TenantView
from services.unit_of_work import PlatformScope, RequestTrace, UnitOfWork, UnitOfWorkFactory

_SCOPE = PlatformScope("signing in comes before any tenant is known")
# How often a login looks again when the password is changed between looking it up and signing in.
_LOGIN_ATTEMPTS = 3
# How many who sign in are looked up side by side. They wait for a hasher next, so nobody gets in later for it, and a
# crowd takes neither all connections nor the loop's whole turn from everybody else.
_LOOKED_UP_AT_ONCE = 4


def _everybody(_: User) -> None:
    pass


@dataclass(frozen=True, slots=True)
class _Stored:
    user_id: UUID
    # None for whoever signs in by codes alone.
    hashed_password: str | None


class Sessions:
    """The use cases around one sign-in."""

    def __init__(
        self,
        *,
        units: UnitOfWorkFactory,
        hasher: PasswordHasher,
        desk: TokenDesk,
        challenges: Challenges,
        notices: SecurityNotices,
    ) -> None:
        self._units = units
        self._hasher = hasher
        self._desk = desk
        self._challenges = challenges
        self._notices = notices
        self._looking_up = asyncio.Semaphore(_LOOKED_UP_AT_ONCE)

    async def login(
        self,
        *,
        email: str,
        password: str,
        device: Device,
        trace: RequestTrace | None = None,
        admit: Callable[[User], None] = _everybody,
    ) -> SessionView | ChallengeView:
        """Check a password and open a session in the default tenant, else in the first.

        Whoever has a second factor gets a challenge instead, which `Challenges.answer` finishes. Takes
        the same time for an address that nobody has. `admit` raises for whoever may not come in here, once the
        password has proved right. Raises LoginRefused, AccountInactive, UserHasNoTenants.
        """
        return await self._check_password(
            User.has_email(email), password=password, device=device, trace=trace, admit=admit
        )

    async def login_by_phone(
        self,
        *,
        phone: str,
        password: str,
        device: Device,
        trace: RequestTrace | None = None,
        admit: Callable[[User], None] = _everybody,
    ) -> SessionView | ChallengeView:
        """Do what `login` does, for whoever is known by a phone (E.164)."""
        return await self._check_password(
            User.phone == phone, password=password, device=device, trace=trace, admit=admit
        )

    async def let_in(self, uow: UnitOfWork, user: User, *, device: Device) -> SessionView | ChallengeView:
        """Open a session for a locked user who has just proved who they are, or ask for their second factor.

        Raises AccountInactive and UserHasNoTenants.
        """
        if not user.is_active:
            raise AccountInactive
        places = await memberships_of(uow, user.id)
        place = home_of(places)
        # The platform's own people may belong to no tenant at all.
        if place is None and not user.is_platform_staff:
            raise UserHasNoTenants
        challenge = await self._challenges.open_if_needed(uow, user)
        if challenge is not None:
            return challenge
        tokens = self._desk.open(uow, user, place, device=device)
        return SessionView.build(tokens, user, places, place)

    async def welcome(self, uow: UnitOfWork, user: User, *, device: Device) -> SessionView:
        """Open the first session of a user made in this unit of work, who cannot have a second factor yet."""
        places = await memberships_of(uow, user.id)
        tokens = self._desk.open(uow, user, places[0], device=device)
        return SessionView.build(tokens, user, places, places[0])

    async def _check_password(
        self,
        known_as: ColumnElement[bool],
        *,
        password: str,
        device: Device,
        trace: RequestTrace | None,
        admit: Callable[[User], None],
    ) -> SessionView | ChallengeView:
        for _ in range(_LOGIN_ATTEMPTS):
            stored = await self._look_up(known_as, trace)
            # Outside any unit of work, so that a storm of logins holds no connection while it waits for a hasher.
            verdict = await self._hasher.verify(password, stored.hashed_password if stored else None)
            if stored is None or not verdict.matches:
                raise LoginRefused
            async with self._units(_SCOPE, trace=trace) as uow:
                user = await self._still_stored(uow, stored)
                if user is not None:
                    admit(user)
                    return await self._sign_in(uow, user, verdict.upgraded_hash, device)
        raise LoginRefused

    async def refresh(
        self, *, refresh_token: str, device: Device | None = None, trace: RequestTrace | None = None
    ) -> TokensView:
        """Exchange a refresh token for new tokens of the session's tenant; each token works once.

        `device` is where the session is seen now.

        A token that was exchanged before, other than a moment ago, ends the session. Raises RefreshRefused and its kin.
        """
        async with self._units(_SCOPE, trace=trace) as uow:
            outcome = await self._exchange(uow, self._read(uow, refresh_token), device)
        # Raised only now: leaving the unit of work by an exception would undo the session's end.
        if isinstance(outcome, DomainError):
            raise outcome
        return outcome

    async def logout(self, uow: UnitOfWork, actor: Principal) -> None:
        """End the caller's session: its access and refresh tokens are void at once."""
        session = await self._locked(uow, actor.session_id)
        if session is not None and session.revoke("logout", now=uow.now):
            uow.record(sessions_ended([session.id]))
            uow.audit(
                "session.closed",
                actor_id=actor.user_id,
                tenant_id=session.tenant_id,
                subject=("session", session.id),
            )

    async def me(self, uow: UnitOfWork, actor: Principal) -> MeView:
        """Show the caller with all tenants; needs a PlatformScope."""
        user = (await uow.session.scalars(select(User).where(User.id == actor.user_id))).one()
        places = await memberships_of(uow, user.id)
        return MeView.build(user, places, _place_in(places, actor.tenant_id))

    async def switch_tenant(self, uow: UnitOfWork, actor: Principal, *, tenant_id: UUID) -> SwitchView:
        """Move the caller's session to another tenant, which becomes the only default; needs a PlatformScope.

        Raises NoTenantAccess, TokenRevoked and Impersonated.
        """
        require_oneself(actor)
        await lock_user(uow, actor.user_id)
        place = _place_in(await memberships_of(uow, actor.user_id), tenant_id)
        if place is None:
            raise NoTenantAccess
        session = await self._locked(uow, actor.session_id)
        if session is None or not session.is_live(uow.now):
            raise TokenRevoked
        await _make_default(uow, place)
        user = (await uow.session.scalars(select(User).where(User.id == actor.user_id))).one()
        tokens = self._desk.renew(uow, session, user, place, presented_jti=session.current_jti)
        uow.audit(
            "session.switched",
            actor_id=actor.user_id,
            tenant_id=tenant_id,
            subject=("session", session.id),
            details={"from": str(actor.tenant_id)},
        )
        return SwitchView(**tokens.model_dump(), tenant=TenantView.of(place.tenant))

    async def _look_up(self, known_as: ColumnElement[bool], trace: RequestTrace | None) -> _Stored | None:
        async with self._looking_up, self._units(_SCOPE, trace=trace) as uow:
            user = await uow.session.scalar(select(User).where(known_as))
            return _Stored(user.id, user.hashed_password) if user is not None else None

    async def _still_stored(self, uow: UnitOfWork, stored: _Stored) -> User | None:
        # Locked and compared, so that a session cannot outlive the password reset that should have ended it.
        user: User | None = await uow.session.scalar(
            select(User)
            .where(User.id == stored.user_id, User.hashed_password == stored.hashed_password)
            .with_for_update(key_share=True)
        )
        return user

    async def _sign_in(
        self, uow: UnitOfWork, user: User, upgraded_hash: str | None, device: Device
    ) -> SessionView | ChallengeView:
        if upgraded_hash is not None:
            user.hashed_password = upgraded_hash
            user.updated_at = uow.now
        return await self.let_in(uow, user, device=device)

    def _read(self, uow: UnitOfWork, refresh_token: str) -> RefreshClaims:
        try:
            return self._desk.read_refresh(refresh_token, now=uow.now)
        except ExpiredToken as error:
            raise RefreshExpired from error
        except InvalidToken as error:
            raise RefreshRefused from error

    async def _exchange(
        self, uow: UnitOfWork, claims: RefreshClaims, device: Device | None
    ) -> TokensView | RefreshRevoked:
        session = await self._locked(uow, claims.session_id)
        if session is None or session.user_id != claims.user_id:
            raise RefreshUserGone
        if not session.is_live(uow.now):
            raise RefreshRevoked
        if session.judge(claims.jti, now=uow.now) is RefreshVerdict.REUSED:
            await self._end_reused(uow, session)
            return RefreshRevoked()
        user = await uow.session.scalar(select(User).where(User.id == session.user_id, User.is_active))
        if user is None:
            raise RefreshUserGone
        places = await memberships_of(uow, user.id)
        # The session's tenant may be lost meanwhile; then the user goes on in another one.
        place = _place_in(places, session.tenant_id) or home_of(places)
        if place is None and not user.is_platform_staff:
            raise UserHasNoTenants
        tokens = self._desk.renew(uow, session, user, place, presented_jti=claims.jti)
        if device is not None:
            self._desk.note_device(session, device)
        return tokens

    async def _end_reused(self, uow: UnitOfWork, session: UserSession) -> None:
        session.revoke("reuse", now=uow.now)
        uow.record(sessions_ended([session.id]))
        await announce(uow, session.user_id, "session_reused", session_id=session.id)
        await self._notices.warn(
            uow,
            session.user_id,
            "session_reused",
            tenant_id=session.tenant_id,
            device=session.user_agent or "-",
            ip=session.ip or "-",
        )
        uow.audit(
            "session.reuse_detected",
            actor_id=None,
            tenant_id=session.tenant_id,
            subject=("session", session.id),
        )

    async def _locked(self, uow: UnitOfWork, session_id: UUID) -> UserSession | None:
        session: UserSession | None = await uow.session.scalar(
            select(UserSession).where(UserSession.id == session_id).with_for_update()
        )
        return session


def _place_in(places: Sequence[Membership], tenant_id: UUID | None) -> Membership | None:
    return next((place for place in places if place.tenant_id == tenant_id), None)


async def _make_default(uow: UnitOfWork, place: Membership) -> None:
    # The earlier default goes first, for a user can never have two.
    await uow.session.execute(
        update(Membership)
        .where(Membership.user_id == place.user_id, Membership.id != place.id, Membership.is_default)
        .values(is_default=False)
    )
    place.is_default = True
