"""Sign-ins by phone as the clients of the second and third ancestor see them: bare, without an envelope.

The shapes are those of contract.md 2.3 and 2.5. Keys beyond those, such as a refresh token where the ancestors gave
none, are for clients that know of them; the others ignore them.
"""

from typing import Literal, Self
from uuid import UUID

from models.tenants import Role
from models.users import EmploymentType, User
from services.auth.views import SessionView
from services.tenants.views import View


class PhoneSessionView(View):
    """A sign-in; `tenant_id` is None for the platform's own people, who may belong to no tenant."""

    access_token: str
    refresh_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - a scheme, not a password
    user_id: UUID
    tenant_id: UUID | None
    is_new_user: bool

    @classmethod
    def of(cls, session: SessionView, *, is_new_user: bool) -> Self:
        return cls(
            access_token=session.access_token,
            refresh_token=session.refresh_token,
            user_id=session.user.id,
            tenant_id=session.current_tenant.id if session.current_tenant else None,
            is_new_user=is_new_user,
        )


class PhoneRegisteredView(View):
    """A sign-up by nothing but a phone; `token` is the access token."""

    token: str
    refresh_token: str
    tenant_id: UUID | None
    user_id: UUID

    @classmethod
    def of(cls, session: PhoneSessionView) -> Self:
        return cls(
            token=session.access_token,
            refresh_token=session.refresh_token,
            tenant_id=session.tenant_id,
            user_id=session.user_id,
        )


class PhoneConfirmedView(View):
    """A phone was proven; it signs nobody in."""

    confirmed: Literal[True] = True
    tenant_id: UUID | None


class PhoneKnownView(View):
    """Whether somebody has signed up with a phone."""

    exists: bool


class ProfileView(View):
    """The caller; `role` is the one in the tenant of the token. `phone` and `email` are None for who has none."""

    id: UUID
    phone: str | None
    email: str | None
    email_verified: bool
    first_name: str | None
    last_name: str | None
    employment_type: EmploymentType | None
    role: Role | None
    is_superuser: bool
    tenant_id: UUID | None

    @classmethod
    def of(cls, user: User, *, role: Role | None, tenant_id: UUID | None) -> Self:
        return cls(
            id=user.id,
            phone=user.phone,
            email=user.email,
            email_verified=user.email_verified_at is not None,
            first_name=user.first_name,
            last_name=user.last_name,
            employment_type=user.employment_type,
            role=role,
            is_superuser=user.is_superuser,
            tenant_id=tenant_id,
        )
