"""The site a tenant's jobs are about: how it is addressed, and what is known of it."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from models.billing import Subscription
from models.entitlements import Entitlements, with_twins
from models.provisioning import JobState, JobType, ProvisioningJob
from models.tenants import Membership, Role, Tenant
from providers.provisioning.contract import Limit, SiteTarget
from services.provisioning.errors import SiteNotFound
from services.provisioning.views import SiteView
from services.unit_of_work import UnitOfWork

_PLACE: Final = "{slug}"
# What a site is made for when its tenant has no subscription.
_NO_PLAN: Final = "none"


class SiteAddresses:
    """Turns a slug into the address and the name of a site; `template` has `{slug}` in its host or its path."""

    def __init__(self, template: str) -> None:
        if _PLACE not in template:
            raise ValueError("the template of site addresses must contain {slug}")
        self._template = template
        host = urlsplit(template).hostname or ""
        self._name_template = host if _PLACE in host else _PLACE

    def url(self, slug: str) -> str:
        """Return the address under which a browser finds the site."""
        return self._template.replace(_PLACE, slug)

    def name(self, slug: str) -> str:
        """Return the name under which the recipe knows the site: its host when each site has one, else the slug."""
        return self._name_template.replace(_PLACE, slug)


async def site_target(
    uow: UnitOfWork, tenant: Tenant, addresses: SiteAddresses, *, entitlements: Entitlements
) -> SiteTarget:
    """Describe the tenant's site to the driver; raises InvalidTarget when a command could misread a part of it."""
    return SiteTarget(
        tenant_id=tenant.id,
        slug=tenant.slug,
        site_name=addresses.name(tenant.slug),
        site_url=tenant.erpnext_site_url or addresses.url(tenant.slug),
        plan=entitlements.plan.slug if entitlements.plan is not None else _NO_PLAN,
        limits=_limits(with_twins(entitlements.limits)),
        admin_email=await _owner_email(uow, tenant),
    )


async def site_view(uow: UnitOfWork, *, slug: str) -> SiteView:
    """Show the site of the tenant with this slug; needs a PlatformScope. Raises SiteNotFound when there is none."""
    tenant = (await uow.session.scalars(select(Tenant).where(Tenant.slug == slug))).one_or_none()
    if tenant is None or tenant.erpnext_site_url is None:
        raise SiteNotFound
    subscription = await _subscription(uow, tenant)
    made = select(ProvisioningJob).where(
        ProvisioningJob.tenant_id == tenant.id,
        ProvisioningJob.job_type == JobType.CREATE_SITE,
        ProvisioningJob.state == JobState.SUCCEEDED,
    )
    job = (await uow.session.scalars(made.order_by(ProvisioningJob.completed_at.desc()).limit(1))).one_or_none()
    return SiteView(
        tenant_id=tenant.id,
        name=tenant.name,
        slug=tenant.slug,
        url=tenant.erpnext_site_url,
        status=tenant.status,
        plan=subscription.plan.name if subscription else None,
        facts={str(key): str(value) for key, value in job.result.items()} if job else {},
    )


async def _subscription(uow: UnitOfWork, tenant: Tenant) -> Subscription | None:
    statement = select(Subscription).where(Subscription.tenant_id == tenant.id)
    return (await uow.session.scalars(statement.options(joinedload(Subscription.plan)))).one_or_none()


async def _owner_email(uow: UnitOfWork, tenant: Tenant) -> str | None:
    owners = select(Membership).where(Membership.tenant_id == tenant.id, Membership.role == Role.OWNER)
    oldest = owners.options(joinedload(Membership.user)).order_by(Membership.joined_at, Membership.id).limit(1)
    owner = (await uow.session.scalars(oldest)).one_or_none()
    return owner.user.site_login if owner else None


def _limits(limits: Mapping[str, object]) -> dict[str, Limit]:
    return {name: value for name, value in limits.items() if value is None or isinstance(value, bool | int | str)}
