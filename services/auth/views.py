"""Users and sign-ins as clients see them (contract.md 1.7, 2.2)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Self
from uuid import UUID

from models.tenants import Membership
from models.users import User, UserSession
from services.tenants.views import TenantView, UserTenantView, View


class UserView(View):
    """The user; `default_tenant_id` is where signing in leads."""

    id: UUID
    email: str
    # Whether a letter to it was answered; false for whoever has no address.
    email_verified: bool
    phone: str | None
    full_name: str
    is_active: bool
    is_superuser: bool
    default_tenant_id: UUID | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, user: User, memberships: Sequence[Membership]) -> Self:
        return cls(
            id=user.id,
            email=user.shown_email,
            email_verified=user.email_verified_at is not None,
            phone=user.phone,
            full_name=user.full_name,
            is_active=user.is_active,
            is_superuser=user.is_superuser,
            default_tenant_id=next((place.tenant_id for place in memberships if place.is_default), None),
            created_at=user.created_at,
            updated_at=user.updated_at,
        )


class TokensView(View):
    """A pair of tokens; the refresh token is good for one exchange."""

    access_token: str
    refresh_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - a scheme, not a password


class SessionView(TokensView):
    """A sign-in: the tokens and all that a client needs to show its first screen."""

    user: UserView
    tenants: list[UserTenantView]
    current_tenant: TenantView | None

    @classmethod
    def build(
        cls, tokens: TokensView, user: User, memberships: Sequence[Membership], current: Membership | None
    ) -> Self:
        return cls(
            access_token=tokens.access_token,
            refresh_token=tokens.refresh_token,
            user=UserView.of(user, memberships),
            tenants=[UserTenantView.of(place) for place in memberships],
            current_tenant=TenantView.of(current.tenant) if current else None,
        )


class ChallengeView(View):
    """A sign-in that waits for the second factor; the token is good for one answer within `expires_in` seconds."""

    status: Literal["2fa_required"] = "2fa_required"
    challenge_token: str
    expires_in: int
    methods: tuple[Literal["totp", "recovery_code"], ...] = ("totp", "recovery_code")


class SecondFactorView(View):
    """Whether the user has a second factor, and since when."""

    enabled: bool
    confirmed_at: datetime | None
    recovery_codes_left: int


class EnrolmentView(View):
    """What an authenticator app is set up with: the secret, its address, and that as a QR code (an `<svg>` element)."""

    secret: str
    provisioning_uri: str
    qr_svg: str


class RecoveryCodesView(View):
    """The codes that take the place of the app, each once; they are shown only now."""

    recovery_codes: list[str]


class DeviceView(View):
    """Where the user is signed in: `device` is what the client calls itself, `current` the session that asks.

    `impersonated` marks a session in which one of the platform's people acts in the user's name.
    """

    id: UUID
    device: str | None
    ip: str | None
    tenant_id: UUID | None
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    current: bool
    impersonated: bool

    @classmethod
    def of(cls, session: UserSession, *, current: bool) -> Self:
        return cls(
            id=session.id,
            device=session.user_agent,
            ip=session.ip,
            tenant_id=session.tenant_id,
            created_at=session.created_at,
            last_seen_at=session.last_seen_at,
            expires_at=session.expires_at,
            current=current,
            impersonated=session.impersonated_by is not None,
        )


class SwitchView(TokensView):
    """Tokens for another tenant of the user's."""

    tenant: TenantView


class MeView(UserView):
    """The user flat and again as `user`, for clients of both forms, with the tenants (contract.md 1.7, 5.4)."""

    user: UserView
    tenants: list[UserTenantView]
    current_tenant: TenantView | None

    @classmethod
    def build(cls, user: User, memberships: Sequence[Membership], current: Membership | None) -> Self:
        shown = UserView.of(user, memberships)
        return cls(
            **shown.model_dump(),
            user=shown,
            tenants=[UserTenantView.of(place) for place in memberships],
            current_tenant=TenantView.of(current.tenant) if current else None,
        )
