"""What the platform's people see, mostly in the bare forms of the second ancestor (contract.md 3.6 to 3.8)."""

from datetime import datetime
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import ConfigDict, Field

from core.pagination import Page
from models.tenants import Tenant
from models.users import User
from services.tenants.views import TenantView, View

PlatformRole = Literal["super_admin", "platform_master", "user"]


class ManagedUserView(View):
    """A user as the second ancestor showed one; `role` is the one on the platform, not in a tenant."""

    id: UUID
    phone: str | None
    phone_verified: bool
    role: PlatformRole
    created_at: datetime

    @classmethod
    def of(cls, user: User) -> Self:
        return cls(**_flat(user))


class ListedUserView(ManagedUserView):
    """The same with what an operator needs besides."""

    email: str
    email_verified: bool
    full_name: str
    is_active: bool

    @classmethod
    def of(cls, user: User) -> Self:
        return cls(
            **_flat(user),
            email=user.shown_email,
            email_verified=user.email_verified_at is not None,
            full_name=user.full_name,
            is_active=user.is_active,
        )


class UserListView(View):
    """A page of users; `total` counts all that were asked for."""

    users: list[ListedUserView]
    total: int
    page: int
    size: int
    pages: int

    @classmethod
    def of(cls, page: Page[ListedUserView]) -> Self:
        asked = page.request
        return cls(users=list(page.items), total=page.total, page=asked.page, size=asked.size, pages=page.pages)


class ListedTenantView(TenantView):
    """A tenant, how many people belong to it, and when it will be deleted, if an owner has asked for that."""

    members: int
    deletion_due_at: datetime | None

    @classmethod
    def seen(cls, tenant: Tenant, *, members: int) -> Self:
        shown = TenantView.of(tenant).model_dump()
        return cls(**shown, members=members, deletion_due_at=tenant.deletion_due_at)


class ImpersonationView(View):
    """An access token to act in somebody's name, good until `expires_at`; there is no refresh token."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - a scheme, not a password
    expires_at: datetime
    session_id: UUID
    user_id: UUID
    tenant_id: UUID | None


class TariffView(View):
    """What the public pages say of a price; `price` is a text."""

    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True)

    id: str
    name: str
    price: str
    period: str = ""
    description: str = ""
    features: list[str] = Field(default_factory=list)
    popular: bool = False
    active: bool = True


class TariffListView(View):
    """All tariffs."""

    tariffs: list[TariffView]


class ContentPieceView(View):
    """Content, and since when it is so."""

    content: dict[str, Any]
    updated_at: datetime


class ContentView(ContentPieceView):
    """The same, and by whom; None for content that nobody wrote."""

    updated_by: UUID | None


class PublicContentView(View):
    """What the public pages need; None for what nobody has written yet."""

    hero_banner: ContentPieceView | None
    telegram_settings: ContentPieceView | None


class ContentWrittenView(View):
    """Content was written."""

    status: Literal["ok"] = "ok"
    key: str
    updated_at: datetime


class UploadView(View):
    """A file that is kept: `url` is a path on this server, `filename` what the sender calls it, `size` in bytes."""

    url: str
    filename: str
    size: int
    type: str


class DoneView(View):
    """The second ancestor's way to say that a deed is done."""

    status: Literal["ok"] = "ok"
    message: str


def _flat(user: User) -> dict[str, Any]:
    role: PlatformRole = (
        "super_admin" if user.is_superuser else "platform_master" if user.is_platform_master else "user"
    )
    return {
        "id": user.id,
        "phone": user.phone,
        # No phone gets into an account without the code that proves it.
        "phone_verified": user.phone is not None,
        "role": role,
        "created_at": user.created_at,
    }
