"""The tokens of a sign-in: issued for a session's row, read back into what they claim (contract.md 2.1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from core.tokens import InvalidToken, TokenSigner
from models.tenants import Membership, Role
from models.users import User, UserSession
from services.auth.views import TokensView
from services.unit_of_work import UnitOfWork

_USER_AGENT_LENGTH = 255
_SUPERUSER = "super_admin"
_MASTER = "platform_master"
# For how long one of the platform's people may act in somebody's name before they have to ask again.
_IMPERSONATION = timedelta(minutes=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Where somebody signs in from, as far as it tells."""

    user_agent: str | None = None
    ip: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessClaims:
    """What a valid access token says; `role` is the one in the tenant when it was issued.

    `impersonator_id` (`imp`) names whoever acts in the user's name.
    """

    user_id: UUID
    session_id: UUID
    tenant_id: UUID | None
    role: Role | None
    is_superuser: bool
    impersonator_id: UUID | None
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshClaims:
    """What a valid refresh token says; `jti` is its place in the session's family."""

    user_id: UUID
    session_id: UUID
    jti: str


class TokenDesk:
    """Opens sessions and issues their tokens."""

    def __init__(self, signer: TokenSigner, *, access_lifetime: timedelta, refresh_lifetime: timedelta) -> None:
        self._signer = signer
        self._access_lifetime = access_lifetime
        self._refresh_lifetime = refresh_lifetime

    def open(
        self, uow: UnitOfWork, user: User, place: Membership | None, *, device: Device, proved: bool = True
    ) -> TokensView:
        """Begin a session of `user` in the tenant of `place` and issue its first tokens.

        `proved` tells whether they have just proved who they are.
        """
        session = UserSession(
            id=uuid4(),
            user_id=user.id,
            tenant_id=place.tenant_id if place else None,
            current_jti=uuid4().hex,
            created_at=uow.now,
            last_seen_at=uow.now,
            expires_at=uow.now + self._refresh_lifetime,
            authenticated_at=uow.now if proved else None,
        )
        self.note_device(session, device)
        uow.session.add(session)
        uow.audit(
            "session.opened",
            actor_id=user.id,
            tenant_id=session.tenant_id,
            subject=("session", session.id),
        )
        return self._issue(uow.now, session, user, place)

    def impersonate(
        self, uow: UnitOfWork, user: User, place: Membership | None, *, by: UUID, device: Device
    ) -> tuple[UserSession, str]:
        """Begin a session of `user` in which `by` acts; returns it and its access token, which nothing renews.

        Nobody has proved to be the user, so that the session can do nothing that needs a step-up.
        """
        # Instances remember that a session has ended for as long as any token of their own lifetime is good.
        lifetime = min(_IMPERSONATION, self._access_lifetime)
        session = UserSession(
            id=uuid4(),
            user_id=user.id,
            tenant_id=place.tenant_id if place else None,
            # No refresh token with this number is ever issued.
            current_jti=uuid4().hex,
            created_at=uow.now,
            last_seen_at=uow.now,
            expires_at=uow.now + lifetime,
            impersonated_by=by,
        )
        self.note_device(session, device)
        uow.session.add(session)
        return session, self._issue_access(uow.now, session, user, place, lifetime=lifetime)

    def renew(
        self, uow: UnitOfWork, session: UserSession, user: User, place: Membership | None, *, presented_jti: str
    ) -> TokensView:
        """Exchange the refresh token `presented_jti` of a locked session for new tokens in the tenant of `place`."""
        session.tenant_id = place.tenant_id if place else None
        session.rotate(presented_jti, uuid4().hex, now=uow.now, expires_at=uow.now + self._refresh_lifetime)
        return self._issue(uow.now, session, user, place)

    def note_device(self, session: UserSession, device: Device) -> None:
        """Remember where a session is used from."""
        session.user_agent = device.user_agent[:_USER_AGENT_LENGTH] if device.user_agent else None
        session.ip = device.ip

    def read_access(self, token: str, *, now: datetime) -> AccessClaims:
        """Return what an access token says; raises ExpiredToken or InvalidToken."""
        claims = self._signer.read(_ascii(token), "access", now=now)
        # Partners of the second ancestor know the tenant's claim by its shorter name.
        tenant = claims.get("tenant_id") or claims.get("tenant")
        impersonator = claims.get("imp")
        return AccessClaims(
            user_id=_uuid(claims["sub"]),
            session_id=_uuid(claims.get("sid")),
            tenant_id=None if tenant is None else _uuid(tenant),
            role=_role(claims.get("role")),
            is_superuser=claims.get("platform_role") == _SUPERUSER,
            impersonator_id=None if impersonator is None else _uuid(impersonator),
            expires_at=datetime.fromtimestamp(claims["exp"], UTC),
        )

    def read_refresh(self, token: str, *, now: datetime) -> RefreshClaims:
        """Return what a refresh token says; raises ExpiredToken or InvalidToken."""
        claims = self._signer.read(_ascii(token), "refresh", now=now)
        return RefreshClaims(
            user_id=_uuid(claims["sub"]), session_id=_uuid(claims.get("sid")), jti=_text(claims, "jti")
        )

    def issue_challenge(self, user_id: UUID, challenge_id: UUID, *, now: datetime, lifetime: timedelta) -> str:
        """Return the token of a challenge, which opens nothing by itself."""
        claims: dict[str, str | None] = {"challenge": str(challenge_id)}
        return self._signer.issue("challenge", user_id, now=now, lifetime=lifetime, claims=claims)

    def read_challenge(self, token: str, *, now: datetime) -> tuple[UUID, UUID]:
        """Return the user and the challenge that a token names; raises InvalidToken."""
        claims = self._signer.read(_ascii(token), "challenge", now=now)
        return _uuid(claims["sub"]), _uuid(claims.get("challenge"))

    def _issue(self, now: datetime, session: UserSession, user: User, place: Membership | None) -> TokensView:
        access = self._issue_access(now, session, user, place, lifetime=self._access_lifetime)
        refresh = self._signer.issue(
            "refresh",
            user.id,
            now=now,
            lifetime=self._refresh_lifetime,
            claims={"sid": str(session.id), "jti": session.current_jti},
        )
        return TokensView(access_token=access, refresh_token=refresh)

    def _issue_access(
        self, now: datetime, session: UserSession, user: User, place: Membership | None, *, lifetime: timedelta
    ) -> str:
        tenant_id = str(place.tenant_id) if place else None
        claims = {
            "sid": str(session.id),
            "tenant_id": tenant_id,
            "tenant": tenant_id,
            "role": place.role.value if place else None,
            "platform_role": _platform_role(user),
        }
        if session.impersonated_by is not None:
            claims["imp"] = str(session.impersonated_by)
        return self._signer.issue("access", user.id, now=now, lifetime=lifetime, claims=claims)


def read_bearer(text: str) -> str:
    """Return the token of `Bearer <token>`, or of the bare token that some socket clients send."""
    scheme, _, rest = text.strip().partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else text.strip()


def _platform_role(user: User) -> str | None:
    if user.is_superuser:
        return _SUPERUSER
    return _MASTER if user.is_platform_master else None


def _ascii(token: str) -> str:
    # A header may carry bytes that are no text at all; the library would fail on them rather than refuse.
    if not token.isascii():
        raise InvalidToken("not a token")
    return token


def _uuid(value: object) -> UUID:
    try:
        return UUID(str(value))
    except ValueError as error:
        raise InvalidToken("malformed id") from error


def _role(value: object) -> Role | None:
    try:
        return None if value is None else Role(str(value))
    except ValueError as error:
        raise InvalidToken("unknown role") from error


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str):
        raise InvalidToken(f"malformed {name}")
    return value
