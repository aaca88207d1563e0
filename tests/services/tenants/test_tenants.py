"""Showing and changing tenants."""

from dataclasses import replace
from uuid import uuid4

import pytest
from sqlalchemy import select

from core.pagination import PageRequest
from models.audit import AuditEntry
from models.billing import Subscription
from models.tenants import Role, Tenant
from services.identity import Impersonated, NoTenantInToken, Principal, RoleRequired
from services.tenants import TenantChanges
from services.tenants.errors import NoTenantAccess
from services.unit_of_work import TenantScope
from tests.support.identity import PLATFORM, Identity, tenant_of


async def test_the_current_tenant_comes_with_its_subscription(identity: Identity) -> None:
    view = await identity.sign_up()
    actor, tenant_id = await identity.actor(view), tenant_of(view)

    async with identity.units(TenantScope(tenant_id)) as uow:
        current = await identity.tenants.current(uow, actor)

    assert (current.id, current.role, current.is_default) == (tenant_id, Role.OWNER, True)
    assert current.subscription is not None
    assert (current.subscription.tenant_id, current.subscription.plan.slug) == (tenant_id, "trial")
    assert current.limits == current.subscription.plan.limits
    assert current.limits["users"] > 0


async def test_a_tenant_without_a_subscription_may_have_next_to_nothing(identity: Identity) -> None:
    view = await identity.sign_up()
    actor, tenant_id = await identity.actor(view), tenant_of(view)
    async with identity.units(TenantScope(tenant_id)) as uow:
        await uow.session.delete((await uow.session.scalars(select(Subscription))).one())

    async with identity.units(TenantScope(tenant_id)) as uow:
        current = await identity.tenants.current(uow, actor)

    assert current.subscription is None
    assert current.limits == {
        "users": 1, "max_users": 1, "storage_gb": 0, "max_storage_gb": 0, "sites": 0, "subdomains": 1,
        "api_calls_per_month": -1, "products": 0, "staff": 0, "domains": 0,
    }  # fmt: skip


async def test_without_a_tenant_in_the_token_none_is_current(identity: Identity) -> None:
    email = f"root-{uuid4().hex}@example.org"
    async with identity.units(PLATFORM) as uow:
        await identity.auth.create_superuser(uow, email=email, password="open sesame", full_name="Root")
    actor = await identity.actor(await identity.login(email, "open sesame"))

    with pytest.raises(NoTenantInToken, match="No tenant in token"):
        async with identity.units(PLATFORM) as uow:
            await identity.tenants.current(uow, actor)


async def test_only_ones_own_tenants_are_listed_newest_first(identity: Identity) -> None:
    mine, *others = [await identity.sign_up() for _ in range(4)]
    for host in others[:2]:
        await identity.invite(host, mine.user.email, Role.ADMIN)
    actor = await identity.actor(mine)

    async with identity.units(PLATFORM) as uow:
        page = await identity.tenants.list(uow, actor, PageRequest(page=1, size=2))
        rest = await identity.tenants.list(uow, actor, PageRequest(page=2, size=2))

    shown = [(view.id, view.role, view.is_default) for view in (*page.items, *rest.items)]
    assert shown == [
        (tenant_of(others[1]), Role.ADMIN, False),
        (tenant_of(others[0]), Role.ADMIN, False),
        (tenant_of(mine), Role.OWNER, True),
    ]
    assert (page.total, rest.total) == (3, 3)


async def test_changes_are_kept_and_audited(identity: Identity) -> None:
    view = await identity.sign_up()
    actor, tenant_id = await identity.actor(view), tenant_of(view)

    shown = []
    for changes in (
        TenantChanges(name="Renamed", settings={"theme": {"dark": True}, "rate": 1.5}),
        TenantChanges(settings={"currency": "EUR"}),
        TenantChanges(),
        TenantChanges(settings={}),
    ):
        async with identity.units(TenantScope(tenant_id)) as uow:
            after = await identity.tenants.update(uow, actor, tenant_id=tenant_id, changes=changes)
        shown.append((after.name, after.settings, after.updated_at > after.created_at))

    assert shown == [
        ("Renamed", {"theme": {"dark": True}, "rate": 1.5}, True),
        ("Renamed", {"currency": "EUR"}, True),
        ("Renamed", {"currency": "EUR"}, True),
        ("Renamed", {}, True),
    ]
    stored = await identity.one(select(Tenant).where(Tenant.id == tenant_id))
    assert (stored.name, stored.settings) == ("Renamed", {})
    entries = await identity.rows(
        select(AuditEntry)
        .where(AuditEntry.tenant_id == tenant_id, AuditEntry.action == "tenant.updated")
        .order_by(AuditEntry.id)
    )
    assert [entry.details for entry in entries] == [
        {
            "before": {"name": view.tenants[0].tenant_name, "settings": {}},
            "after": {"name": "Renamed", "settings": {"theme": {"dark": True}, "rate": 1.5}},
        },
        {"before": {"settings": {"theme": {"dark": True}, "rate": 1.5}}, "after": {"settings": {"currency": "EUR"}}},
        {"before": {"settings": {"currency": "EUR"}}, "after": {"settings": {}}},
    ]


async def test_only_owners_and_admins_change_a_tenant(identity: Identity) -> None:
    host, guest, stranger = [await identity.sign_up() for _ in range(3)]
    await identity.invite(host, guest.user.email, Role.USER)
    tenant_id, changes = tenant_of(host), TenantChanges(name="Stolen")

    for who, error in ((guest, RoleRequired), (stranger, NoTenantAccess)):
        actor = await identity.actor(who)
        with pytest.raises(error):
            async with identity.units(TenantScope(tenant_id)) as uow:
                await identity.tenants.update(uow, actor, tenant_id=tenant_id, changes=changes)
    assert (await identity.one(select(Tenant).where(Tenant.id == tenant_id))).name != "Stolen"


async def test_where_everybody_enters_the_site_is_for_owners_in_person(identity: Identity) -> None:
    host, guest = [await identity.sign_up() for _ in range(2)]
    await identity.invite(host, guest.user.email, Role.ADMIN)
    tenant_id, owner = tenant_of(host), await identity.actor(host)
    admin = replace(await identity.actor(guest), tenant_id=tenant_id, role=Role.ADMIN)
    entrance = {"sso_url_template": "{site}/in?token={token}"}

    async def change(actor: Principal, settings: dict[str, str]) -> None:
        async with identity.units(TenantScope(tenant_id)) as uow:
            await identity.tenants.update(uow, actor, tenant_id=tenant_id, changes=TenantChanges(settings=settings))

    with pytest.raises(RoleRequired):
        await change(admin, entrance)
    with pytest.raises(Impersonated):
        await change(replace(owner, impersonator_id=uuid4()), entrance)
    await change(owner, entrance)
    with pytest.raises(RoleRequired):
        await change(admin, {})
    await change(admin, {**entrance, "currency": "EUR"})

    stored = await identity.one(select(Tenant).where(Tenant.id == tenant_id))
    assert stored.settings == {**entrance, "currency": "EUR"}


async def test_a_member_sees_the_tenant_and_its_status(identity: Identity) -> None:
    host, guest, stranger = [await identity.sign_up() for _ in range(3)]
    await identity.invite(host, guest.user.email, Role.MEMBER)
    tenant_id, actor = tenant_of(host), await identity.actor(guest)

    async with identity.units(TenantScope(tenant_id)) as uow:
        shown = await identity.tenants.show(uow, actor, tenant_id=tenant_id)
        status = await identity.tenants.status(uow, actor, tenant_id=tenant_id)

    assert (shown.id, shown.role) == (tenant_id, Role.MEMBER)
    assert (status.tenant_id, status.status, status.erpnext_site_url) == (tenant_id, shown.status, None)
    actor = await identity.actor(stranger)
    for use_case in (identity.tenants.show, identity.tenants.status):
        with pytest.raises(NoTenantAccess):
            async with identity.units(TenantScope(tenant_id)) as uow:
                await use_case(uow, actor, tenant_id=tenant_id)
