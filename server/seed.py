"""Seed data: the plans, and in development the two demo accounts of contract.md 2.2.

Running it again changes nothing.
"""

from datetime import timedelta

from services.registry import Services
from services.unit_of_work import PlatformScope, UnitOfWorkFactory

DEMO_ACCOUNTS = (
    # (e-mail, password, full name, tenant, slug, superuser, days of a plan that was given away)
    ("test@example.com", "password", "Test User", "Test Company", "test-company", False, 0),
    ("admin@example.com", "admin123", "Admin User", "Admin Company", "admin-company", True, 365),
)
_GIVEN_PLAN = "business"


async def seed(units: UnitOfWorkFactory, services: Services, *, demo: bool, sites: bool = False) -> None:
    """Make sure that the plans exist and, when `demo` is set, the demo accounts; `sites` orders their sites too."""
    scope = PlatformScope("seed data belongs to the platform")
    async with units(scope) as uow:
        await services.billing.seed_plans(uow)
    if not demo:
        return
    for email, password, full_name, company, slug, superuser, days in DEMO_ACCOUNTS:
        async with units(scope) as uow:
            user = await services.auth.ensure_user(
                uow, email=email, password=password, full_name=full_name, is_superuser=superuser
            )
            tenant = await services.tenants.ensure_tenant(uow, name=company, slug=slug, owner=user)
            if days:
                until = uow.now + timedelta(days=days)
                await services.billing.grant(uow, tenant, plan_slug=_GIVEN_PLAN, until=until)
            if sites:
                # Flushed so that the tenant's row can be locked.
                await uow.session.flush()
                await services.provisioning.ensure_site(uow, tenant_id=tenant.id, requested_by=user.id)
