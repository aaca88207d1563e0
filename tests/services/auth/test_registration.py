"""Signing up: everything or nothing, once per address, and a slug of one's own."""

import asyncio
import re
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import func, select

from models.audit import AuditEntry
from models.billing import Subscription, SubscriptionStatus
from models.provisioning import JobType, ProvisioningJob
from models.tenants import Membership, Role, Tenant, TenantStatus
from models.users import User, UserSession
from services.auth.errors import EmailTaken
from services.auth.views import SessionView
from tests.support.identity import PLATFORM, Identity, tenant_of


class Trouble(Exception):
    pass


def unique_email() -> str:
    return f"new-{uuid4().hex}@example.org"


async def test_everything_is_written_at_once(identity: Identity) -> None:
    view = await identity.sign_up(email=unique_email(), company="Lemon & Söhne", locale="ru")

    tenant_id, user_id = tenant_of(view), view.user.id
    user = await identity.one(select(User).where(User.id == user_id))
    assert (user.is_active, user.is_superuser, user.locale) == (True, False, "ru")
    assert user.hashed_password.startswith("$argon2id$")
    tenant = await identity.one(select(Tenant).where(Tenant.id == tenant_id))
    assert (tenant.name, tenant.status) == ("Lemon & Söhne", TenantStatus.PROVISIONING)
    assert tenant.slug.startswith("lemon-sohne")
    place = await identity.one(select(Membership).where(Membership.tenant_id == tenant_id))
    assert (place.user_id, place.role, place.is_default) == (user_id, Role.OWNER, True)
    subscription = await identity.one(select(Subscription).where(Subscription.tenant_id == tenant_id))
    assert subscription.status is SubscriptionStatus.TRIAL
    assert subscription.trial_ends_at - subscription.current_period_start == timedelta(days=14)
    job = await identity.one(select(ProvisioningJob).where(ProvisioningJob.tenant_id == tenant_id))
    assert (job.job_type, job.requested_by) == (JobType.CREATE_SITE, user_id)
    session = await identity.one(select(UserSession).where(UserSession.user_id == user_id))
    assert (session.tenant_id, session.user_agent, session.ip) == (tenant_id, "test", "127.0.0.1")
    actions = await identity.rows(select(AuditEntry.action).where(AuditEntry.tenant_id == tenant_id))
    assert {"user.registered", "tenant.created", "session.opened"} <= set(actions)
    assert ("provisioning.run", job.id) in [(task.name, task.row_id) for task in identity.ears.tasks]


async def test_trouble_at_the_end_leaves_nothing(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    email = unique_email()

    async def fail(*_: object, **__: object) -> None:
        raise Trouble

    monkeypatch.setattr(identity.tenants._provisioning, "enqueue", fail)
    with pytest.raises(Trouble):
        await identity.sign_up(email=email, company=f"Gone {email}")

    assert await identity.rows(select(User.id).where(User.email == email)) == []
    assert await identity.rows(select(Tenant.id).where(Tenant.name == f"Gone {email}")) == []
    assert identity.ears.tasks == []


async def test_an_address_signs_up_once_whatever_its_case(identity: Identity) -> None:
    name = uuid4().hex
    spellings = [f"{name}@example.org", f"{name.upper()}@example.org", f"{name.title()}@Example.org"] * 2

    outcomes = await asyncio.gather(*(identity.sign_up(email=email) for email in spellings), return_exceptions=True)

    assert sum(isinstance(outcome, SessionView) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, EmailTaken) for outcome in outcomes) == len(spellings) - 1
    users = await identity.rows(select(User.id).where(func.lower(User.email) == f"{name}@example.org"))
    assert len(users) == 1


async def test_namesakes_at_once_get_slugs_of_their_own(identity: Identity) -> None:
    name = f"acme {uuid4().hex[:8]}"

    views = await asyncio.gather(*(identity.sign_up(company=name) for _ in range(5)))

    base = name.replace(" ", "-")
    slugs = {view.current_tenant.slug for view in views if view.current_tenant}
    assert slugs == {base, *(f"{base}-{number}" for number in range(1, 5))}


@pytest.mark.parametrize(
    ("company", "pattern"),
    [
        ("Ромашка и Ко", r"romashka-i-ko(-\d+)?"),
        ("★ ♥ ★", r"tenant-[0-9a-f]{8}"),
        ("Admin", r"admin-\d+"),
        ("HP", r"hp-\d+"),
    ],
    ids=["other script", "symbols only", "reserved", "too short"],
)
async def test_a_slug_fits_a_subdomain(identity: Identity, company: str, pattern: str) -> None:
    view = await identity.sign_up(company=company)

    assert view.current_tenant is not None
    assert re.fullmatch(pattern, view.current_tenant.slug)


async def test_more_than_a_thousand_namesakes_get_a_random_suffix(identity: Identity) -> None:
    base = f"popular-{uuid4().hex[:8]}"
    taken = [base, *(f"{base}-{number}" for number in range(1, 1001))]
    async with identity.units(PLATFORM) as uow:
        uow.session.add_all(Tenant(name="Taken", slug=slug, status=TenantStatus.CANCELLED) for slug in taken)

    view = await identity.sign_up(company=base)

    assert view.current_tenant is not None
    assert re.fullmatch(rf"{base}-[0-9a-f]{{8}}", view.current_tenant.slug)


async def test_seeding_twice_changes_nothing(identity: Identity) -> None:
    email, slug = unique_email(), f"seed-{uuid4().hex[:8]}"

    async def seed() -> tuple[User, Tenant]:
        async with identity.units(PLATFORM) as uow:
            user = await identity.auth.ensure_user(
                uow, email=email, password="password", full_name="Test User", is_superuser=True
            )
            return user, await identity.tenants.ensure_tenant(uow, name="Test Company", slug=slug, owner=user)

    (user, tenant), (again, same) = await seed(), await seed()

    assert (user.id, tenant.id) == (again.id, same.id)
    assert user.is_superuser
    assert tenant.status is TenantStatus.ACTIVE
    place = await identity.one(select(Membership).where(Membership.tenant_id == tenant.id))
    assert (place.user_id, place.role, place.is_default) == (user.id, Role.OWNER, True)
    subscription = await identity.one(select(Subscription).where(Subscription.tenant_id == tenant.id))
    assert subscription.status is SubscriptionStatus.TRIAL
    assert await identity.rows(select(ProvisioningJob.id).where(ProvisioningJob.tenant_id == tenant.id)) == []
    assert (await identity.login(email, "password")).current_tenant is not None


async def test_two_processes_may_seed_at_once(identity: Identity) -> None:
    email, slug = unique_email(), f"seed-{uuid4().hex[:8]}"

    async def seed() -> tuple[User, Tenant]:
        async with identity.units(PLATFORM) as uow:
            user = await identity.auth.ensure_user(
                uow, email=email, password="password", full_name="Test User", is_superuser=False
            )
            return user, await identity.tenants.ensure_tenant(uow, name="Test Company", slug=slug, owner=user)

    outcomes = await asyncio.gather(*(seed() for _ in range(4)))

    assert len({user.id for user, _ in outcomes}) == 1
    assert len({tenant.id for _, tenant in outcomes}) == 1


async def test_a_superuser_needs_no_tenant(identity: Identity) -> None:
    email = unique_email()
    async with identity.units(PLATFORM) as uow:
        await identity.auth.create_superuser(uow, email=email, password="open sesame", full_name="Root")

    view = await identity.login(email, "open sesame")

    assert view.user.is_superuser
    assert (view.tenants, view.current_tenant) == ([], None)
    actor = await identity.actor(view)
    assert (actor.is_superuser, actor.tenant_id, actor.role) == (True, None, None)
    refreshed = await identity.auth.sessions.refresh(refresh_token=view.refresh_token)
    assert (await identity.actor(refreshed.access_token)).tenant_id is None

    with pytest.raises(EmailTaken):
        async with identity.units(PLATFORM) as uow:
            await identity.auth.create_superuser(uow, email=email.upper(), password="other", full_name="Root")
