"""Entering a tenant's ERPNext by a one-time token (contract.md 6, providers.md 1.7)."""

from datetime import datetime, timedelta
from typing import Final, Literal
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Select, delete, select, update

from core.errors import DomainError, ErrorKind, NotFound
from core.tokens import new_opaque_token, token_hash
from models.sso import SsoToken
from models.tenants import Membership, Tenant, TenantStatus
from models.users import User
from services.closed_tenants import require_not_suspended
from services.identity import Principal, require_oneself, require_permission, require_tenant
from services.permissions import HOLDERS, Permission
from services.unit_of_work import PlatformScope, UnitOfWork, UnitOfWorkFactory

# The key of a tenant's settings under which its own entrance stands (contract.md 5.4).
OWN_TEMPLATE: Final = "sso_url_template"
_PLACE: Final = "{token}"
_SITE: Final = "{site}"
_HOME: Final = "/desk"
_MAX_REDIRECT: Final = 2000
# Long enough to look into what went wrong yesterday; the audit trail stays.
_KEEP_EXPIRED: Final = timedelta(days=1)


class SiteNotProvisioned(DomainError):
    """The tenant has no site that could be entered."""

    kind = ErrorKind.FORBIDDEN
    code = "PROVISIONING_ERROR"
    message = "ERPNext site not provisioned yet"


class SsoTokenNotFound(NotFound):
    """The token was never issued, is used, or is too old."""

    message = "Token not found or expired"


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class SsoTicketView(_View):
    """Where to send the user's browser; `expires_in` is in seconds."""

    sso_url: str
    token: str
    expires_at: datetime
    expires_in: int


class SsoUserView(_View):
    """Who enters."""

    id: UUID
    email: str
    full_name: str


class SsoTenantView(_View):
    """Whose site is entered."""

    id: UUID
    name: str
    slug: str


class SsoIdentityView(_View):
    """The first ancestor's nested keys and the written report's flat ones in one object (contract.md 5.4)."""

    user: SsoUserView
    tenant: SsoTenantView
    user_id: UUID
    tenant_id: UUID
    email: str
    full_name: str


class SsoAcceptedView(_View):
    """The token was good and is used up; the site logs the user in and goes to `redirect`."""

    success: Literal[True] = True
    data: SsoIdentityView
    redirect: str


class SsoRefusedView(_View):
    """The token was not good; the site's code expects this with status 200."""

    success: Literal[False] = False
    error: str = "Invalid or expired SSO token"
    redirect: str = "/login"


class SsoValidityView(_View):
    """The token could be redeemed now."""

    valid: Literal[True] = True
    user_id: UUID
    tenant_id: UUID
    created_at: datetime


class SsoService:
    """Issues tokens to members and redeems them for sites.

    `sso_url_template` has `{site}` and `{token}` in it. A tenant's setting of the same name goes before it, provided
    that it begins with `{site}/`: whoever sets it must not lead the others' tokens anywhere else.
    `development` lets a tenant without a site enter a mock of one.
    """

    def __init__(
        self, units: UnitOfWorkFactory, *, sso_url_template: str, lifetime: timedelta, development: bool
    ) -> None:
        self._units = units
        self._template = sso_url_template
        self._lifetime = lifetime
        self._development = development

    async def issue(self, uow: UnitOfWork, actor: Principal) -> SsoTicketView:
        """Issue a token that lets the caller enter the site of their token's tenant once.

        Raises SiteNotProvisioned, TenantSuspended and Impersonated.
        """
        tenant_id = require_tenant(actor)
        require_permission(actor.role, Permission.SITE_ENTER)
        # A sign-in at the site knows nothing of who really acts, and lasts.
        require_oneself(actor)
        await require_not_suspended(uow, tenant_id)
        tenant = (await uow.session.scalars(select(Tenant).where(Tenant.id == tenant_id))).one()
        site = self._site_of(tenant)
        token = new_opaque_token()
        row = SsoToken(
            tenant_id=tenant.id,
            user_id=actor.user_id,
            token_hash=token_hash(token),
            created_at=uow.now,
            expires_at=uow.now + self._lifetime,
        )
        uow.session.add(row)
        uow.audit("sso.issued", actor_id=actor.user_id, tenant_id=tenant.id, subject=("tenant", tenant.id))
        return SsoTicketView(
            sso_url=self._entrance(tenant, site, token),
            token=token,
            expires_at=row.expires_at,
            expires_in=int(self._lifetime.total_seconds()),
        )

    async def redeem(self, uow: UnitOfWork, *, token: str, redirect: str) -> SsoAcceptedView | SsoRefusedView:
        """Use a token up and say who enters; needs a PlatformScope. Of any number of callers exactly one succeeds."""
        # The one statement that decides: whoever changes the row first has redeemed it.
        statement = (
            update(SsoToken)
            .where(
                SsoToken.token_hash == token_hash(token), SsoToken.redeemed_at.is_(None), SsoToken.expires_at > uow.now
            )
            .values(redeemed_at=uow.now)
            .returning(SsoToken.user_id, SsoToken.tenant_id)
            .execution_options(synchronize_session=False)
        )
        redeemed = (await uow.session.execute(statement)).one_or_none()
        if redeemed is None:
            return SsoRefusedView()
        found = (await uow.session.execute(_entrant(redeemed.user_id, redeemed.tenant_id))).one_or_none()
        # The token is used up in any case: its owner may have been locked out since it was issued.
        verb = "sso.refused" if found is None else "sso.redeemed"
        uow.audit(verb, actor_id=redeemed.user_id, tenant_id=redeemed.tenant_id, subject=("tenant", redeemed.tenant_id))
        if found is None:
            return SsoRefusedView()
        user, tenant = found
        return SsoAcceptedView(data=_identity(user, tenant), redirect=safe_redirect(redirect))

    async def validate(self, uow: UnitOfWork, *, token: str) -> SsoValidityView:
        """Say whose a token is without using it up; needs a PlatformScope. Raises SsoTokenNotFound."""
        row, _, _ = await self._open_token(uow, token)
        return SsoValidityView(user_id=row.user_id, tenant_id=row.tenant_id, created_at=row.created_at)

    async def destination(self, uow: UnitOfWork, *, token: str) -> str:
        """Return the address at which a token is to be redeemed; needs a PlatformScope. Raises SsoTokenNotFound."""
        _, _, tenant = await self._open_token(uow, token)
        return self._entrance(tenant, self._site_of(tenant), token)

    async def sweep(self) -> int:
        """Remove tokens that expired long ago; return how many."""
        async with self._units(PlatformScope("expired tokens of every tenant are removed")) as uow:
            statement = (
                delete(SsoToken)
                .where(SsoToken.expires_at <= uow.now - _KEEP_EXPIRED)
                .returning(SsoToken.id)
                .execution_options(synchronize_session=False)
            )
            return len((await uow.session.scalars(statement)).all())

    async def _open_token(self, uow: UnitOfWork, token: str) -> tuple[SsoToken, User, Tenant]:
        unused = select(SsoToken).where(
            SsoToken.token_hash == token_hash(token), SsoToken.redeemed_at.is_(None), SsoToken.expires_at > uow.now
        )
        row = (await uow.session.scalars(unused)).one_or_none()
        if row is None:
            raise SsoTokenNotFound
        found = (await uow.session.execute(_entrant(row.user_id, row.tenant_id))).one_or_none()
        if found is None:
            raise SsoTokenNotFound
        return row, found[0], found[1]

    def _site_of(self, tenant: Tenant) -> str:
        if tenant.erpnext_site_url:
            return tenant.erpnext_site_url.rstrip("/")
        if self._development:
            return f"https://{tenant.slug}.erpnext.mock.local"
        raise SiteNotProvisioned

    def _entrance(self, tenant: Tenant, site: str, token: str) -> str:
        own = tenant.settings.get(OWN_TEMPLATE)
        at_home = isinstance(own, str) and own.startswith(f"{_SITE}/")
        # Plain replacement: a tenant's template must not reach anything that str.format would let it reach.
        for template in (own if at_home else None, self._template):
            if template is not None and _PLACE in template:
                address = template.replace(_SITE, site).replace(_PLACE, token)
                if _is_web_address(address):
                    return address
        raise SiteNotProvisioned


def safe_redirect(path: str) -> str:
    """Return `path` if a browser would stay on the same site with it, else the site's home.

    >>> safe_redirect("//evil.example")
    '/desk'
    """
    # Browsers drop tabs and line ends inside an address and read a backslash as a slash.
    inside = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if inside and len(path) <= _MAX_REDIRECT else _HOME


def _is_web_address(address: str) -> bool:
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and address.isprintable()


def _entrant(user_id: UUID, tenant_id: UUID) -> Select[User, Tenant]:
    """Select the user and the tenant, provided that the user may still enter it."""
    return (
        select(User, Tenant)
        .join(Membership, Membership.user_id == User.id)
        .join(Tenant, Tenant.id == Membership.tenant_id)
        .where(
            User.id == user_id,
            Tenant.id == tenant_id,
            User.is_active,
            Tenant.status != TenantStatus.SUSPENDED,
            Membership.role.in_(HOLDERS[Permission.SITE_ENTER]),
        )
    )


def _identity(user: User, tenant: Tenant) -> SsoIdentityView:
    return SsoIdentityView(
        user=SsoUserView(id=user.id, email=user.site_login, full_name=user.full_name),
        tenant=SsoTenantView(id=tenant.id, name=tenant.name, slug=tenant.slug),
        user_id=user.id,
        tenant_id=tenant.id,
        email=user.site_login,
        full_name=user.full_name,
    )
