"""Tenants as clients see them (contract.md 1.7, 2.2, 3.2)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from models.tenants import Invitation, InvitationState, Membership, Role, Tenant, TenantStatus
from services.billing.views import SubscriptionView


class View(BaseModel):
    """A shape of the wire; it never changes after it was made."""

    model_config = ConfigDict(frozen=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where somebody stands in a tenant, as far as it is shown to them; an API key has no role."""

    tenant: Tenant
    role: Role | None
    is_default: bool


class TenantView(View):
    """The tenant as the sign-in answers carry it."""

    id: UUID
    name: str
    slug: str
    status: TenantStatus
    erpnext_site_url: str | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, tenant: Tenant) -> Self:
        return cls(
            id=tenant.id,
            name=tenant.name,
            slug=tenant.slug,
            status=tenant.shown_status,
            erpnext_site_url=tenant.erpnext_site_url,
            created_at=tenant.created_at,
            updated_at=tenant.updated_at,
        )


class TenantDetailView(TenantView):
    """The tenant with its settings and the caller's place in it; an API key has no `role`."""

    settings: dict[str, Any]
    role: Role | None
    is_default: bool

    @classmethod
    def seen_by(cls, place: Membership | Place) -> Self:
        """Show the tenant of a place whose `tenant` is loaded."""
        tenant = place.tenant
        return cls(
            **TenantView.of(tenant).model_dump(),
            settings=tenant.settings,
            role=place.role,
            is_default=place.is_default,
        )


class CurrentTenantView(TenantDetailView):
    """The tenant of the caller's token with what it pays for; `limits` are in force, -1 means unlimited."""

    subscription: SubscriptionView | None
    limits: dict[str, Any]


class TenantStatusView(View):
    """Where the tenant stands, for clients that wait for its site."""

    tenant_id: UUID
    status: TenantStatus
    erpnext_site_url: str | None
    updated_at: datetime


class DeletionView(View):
    """A tenant that is to be deleted: until `due_at` its owner can restore it."""

    tenant_id: UUID
    due_at: datetime


class UserTenantView(View):
    """One of a user's tenants."""

    tenant_id: UUID
    tenant_name: str
    role: Role
    is_default: bool

    @classmethod
    def of(cls, membership: Membership) -> Self:
        return cls(
            tenant_id=membership.tenant_id,
            tenant_name=membership.tenant.name,
            role=membership.role,
            is_default=membership.is_default,
        )


class MemberView(View):
    """One of a tenant's users; `is_default` tells whether the user signs in to this tenant."""

    user_id: UUID
    email: str
    full_name: str
    role: Role
    is_default: bool
    joined_at: datetime

    @classmethod
    def of(cls, membership: Membership) -> Self:
        return cls(
            user_id=membership.user_id,
            email=membership.user.shown_email,
            full_name=membership.user.full_name,
            role=membership.role,
            is_default=membership.is_default,
            joined_at=membership.joined_at,
        )


class InvitationView(View):
    """A place offered; its token is known only to whoever got the letter."""

    id: UUID
    email: str
    role: Role
    state: InvitationState
    invited_by: UUID | None
    created_at: datetime
    expires_at: datetime
    accepted_at: datetime | None

    @classmethod
    def of(cls, invitation: Invitation, *, now: datetime) -> Self:
        return cls(
            id=invitation.id,
            email=invitation.email,
            role=invitation.role,
            state=invitation.shown_state(now),
            invited_by=invitation.invited_by,
            created_at=invitation.created_at,
            expires_at=invitation.expires_at,
            accepted_at=invitation.accepted_at,
        )


class OfferView(View):
    """What an invitation's letter says, for whoever holds its token; no `inviter_name` once the inviter is gone."""

    tenant_name: str
    inviter_name: str | None
    email: str
    state: InvitationState


class InvitedView(View):
    """What came of inviting: a known user is a member at once, anybody else has an invitation."""

    user_id: UUID | None
    role: Role
    invitation_id: UUID | None
