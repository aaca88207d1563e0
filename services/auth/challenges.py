"""Challenges: a sign-in whose password was right waits for the second factor; and proving again who one is."""

from datetime import timedelta
from uuid import uuid4

from sqlalchemy import delete, select, update

from core.errors import DomainError, InvalidInput
from core.tokens import InvalidToken
from models.second_factors import SignInChallenge
from models.users import User, UserSession
from providers.passwords.hasher import PasswordHasher
from services.auth.errors import ChallengeRefused, WrongPassword
from services.auth.second_factor import SecondFactors
from services.auth.tokens import Device, TokenDesk
from services.auth.views import ChallengeView, SessionView
from services.identity import Principal, require_oneself
from services.tenants.members import home_of, lock_user, memberships_of
from services.unit_of_work import PlatformScope, RequestTrace, UnitOfWork, UnitOfWorkFactory

LIFETIME = timedelta(minutes=5)
_SCOPE = PlatformScope("signing in comes before any tenant is known")


class Challenges:
    """Asks for the second factor of whoever has one: at a sign-in, and before what cannot be undone."""

    def __init__(
        self, *, units: UnitOfWorkFactory, hasher: PasswordHasher, desk: TokenDesk, factors: SecondFactors
    ) -> None:
        self._units = units
        self._hasher = hasher
        self._desk = desk
        self._factors = factors

    async def open_if_needed(self, uow: UnitOfWork, user: User) -> ChallengeView | None:
        """Return the challenge for a locked user who has a second factor; None lets them in at once.

        Every way to sign in has to ask this before it opens a session.
        """
        if await self._factors.confirmed(uow, user.id) is None:
            return None
        # Those of before that nobody answered are of no use any more.
        await uow.session.execute(
            delete(SignInChallenge).where(SignInChallenge.user_id == user.id, SignInChallenge.expires_at <= uow.now)
        )
        challenge = SignInChallenge(
            id=uuid4(), user_id=user.id, attempts=0, created_at=uow.now, expires_at=uow.now + LIFETIME
        )
        uow.session.add(challenge)
        uow.audit("session.challenged", actor_id=user.id, tenant_id=None, subject=("user", user.id))
        token = self._desk.issue_challenge(user.id, challenge.id, now=uow.now, lifetime=LIFETIME)
        return ChallengeView(challenge_token=token, expires_in=int(LIFETIME.total_seconds()))

    async def answer(
        self, *, challenge_token: str, code: str, device: Device, trace: RequestTrace | None = None
    ) -> SessionView:
        """Finish a sign-in by a code of the app or a recovery code.

        Raises ChallengeRefused, WrongCode, RateLimited.
        """
        async with self._units(_SCOPE, trace=trace) as uow:
            outcome = await self._answer(uow, challenge_token, code, device)
        # Raised only now: leaving the unit of work by an exception would undo the count of attempts.
        if isinstance(outcome, DomainError):
            raise outcome
        return outcome

    async def step_up(
        self, actor: Principal, *, password: str | None, code: str | None, trace: RequestTrace | None = None
    ) -> None:
        """Prove who one is in the session that one has: by a code if there is a second factor, else by the password.

        Raises WrongPassword, WrongCode, RateLimited, Impersonated, and InvalidInput when the proof that is needed was
        not given.
        """
        require_oneself(actor)
        async with self._units(_SCOPE, trace=trace) as uow:
            stored = await uow.session.scalar(select(User.hashed_password).where(User.id == actor.user_id))
            needs_code = await self._factors.confirmed(uow, actor.user_id) is not None
        proof = _given("code", code) if needs_code else _given("password", password)
        if not needs_code and not (await self._hasher.verify(proof, stored)).matches:
            raise WrongPassword
        async with self._units(_SCOPE, trace=trace) as uow:
            await lock_user(uow, actor.user_id)
            factor = await self._factors.confirmed(uow, actor.user_id)
            problem: DomainError | None = None
            if factor is not None:
                # Switched on a moment ago, it asks for a code that was not given.
                problem = await self._factors.judge(uow, factor, proof if needs_code else "")
            if problem is None:
                await self._note(uow, actor)
        if problem is not None:
            raise problem

    async def _answer(
        self, uow: UnitOfWork, challenge_token: str, code: str, device: Device
    ) -> SessionView | DomainError:
        try:
            user_id, challenge_id = self._desk.read_challenge(challenge_token, now=uow.now)
        except InvalidToken:
            return ChallengeRefused()
        await lock_user(uow, user_id)
        factor = await self._factors.confirmed(uow, user_id)
        challenge = await uow.session.scalar(
            select(SignInChallenge)
            .where(SignInChallenge.id == challenge_id, SignInChallenge.user_id == user_id)
            .with_for_update()
        )
        if factor is None or challenge is None or not challenge.is_open(uow.now):
            return ChallengeRefused()
        challenge.attempts += 1
        problem = await self._factors.judge(uow, factor, code)
        if problem is not None:
            return problem
        challenge.used_at = uow.now
        user = await uow.session.scalar(select(User).where(User.id == user_id, User.is_active))
        places = await memberships_of(uow, user_id)
        place = home_of(places)
        if user is None or (place is None and not user.is_platform_staff):
            return ChallengeRefused()
        tokens = self._desk.open(uow, user, place, device=device)
        return SessionView.build(tokens, user, places, place)

    async def _note(self, uow: UnitOfWork, actor: Principal) -> None:
        await uow.session.execute(
            update(UserSession)
            .where(UserSession.id == actor.session_id, UserSession.revoked_at.is_(None))
            .values(authenticated_at=uow.now)
        )
        uow.audit(
            "session.stepped_up",
            actor_id=actor.user_id,
            tenant_id=actor.tenant_id,
            subject=("session", actor.session_id),
        )


def _given(name: str, value: str | None) -> str:
    if value is None:
        missing = {"field": f"body -> {name}", "message": "Field required", "type": "missing"}
        raise InvalidInput(details={"errors": [missing]})
    return value
