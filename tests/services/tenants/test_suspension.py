"""Closing a tenant to its people and opening it again, and what that leaves in the audit log."""

import asyncio
from uuid import UUID

import pytest
from sqlalchemy import select

from models.audit import AuditEntry
from models.events import PLATFORM as PLATFORM_STREAM
from models.tenants import Tenant, TenantStatus
from services.auth.views import SessionView
from services.closed_tenants import TenantSuspended
from services.tenants.suspension import TenantNotFound
from tests.support.identity import PLATFORM, Identity, tenant_of
from tests.support.running import Orchestrator


def slug_of(view: SessionView) -> str:
    assert view.current_tenant is not None
    return view.current_tenant.slug


async def suspend(identity: Identity, slug: str, reason: str = "a bill that is not paid") -> bool:
    async with identity.units(PLATFORM) as uow:
        return await identity.tenants.suspension.suspend(uow, slug=slug, reason=reason)


async def reinstate(identity: Identity, slug: str) -> bool:
    async with identity.units(PLATFORM) as uow:
        return await identity.tenants.suspension.reinstate(uow, slug=slug)


async def set_up(identity: Identity, tenant_id: UUID, **values: object) -> None:
    async with identity.units(PLATFORM) as uow:
        tenant = await uow.session.get_one(Tenant, tenant_id)
        for name, value in values.items():
            setattr(tenant, name, value)


async def status_of(identity: Identity, tenant_id: UUID) -> TenantStatus:
    tenant: Tenant = await identity.one(select(Tenant).where(Tenant.id == tenant_id))
    return tenant.status


async def audited(identity: Identity, tenant_id: UUID) -> list[tuple[str, dict[str, object]]]:
    rows = await identity.rows(
        select(AuditEntry)
        .where(AuditEntry.tenant_id == tenant_id, AuditEntry.action.in_(("tenant.suspended", "tenant.reinstated")))
        .order_by(AuditEntry.id)
    )
    return [(row.action, row.details) for row in rows]


async def test_a_suspension_is_audited_and_told_to_every_instance(identity: Identity) -> None:
    view = await identity.sign_up()
    await set_up(identity, tenant_of(view), status=TenantStatus.ACTIVE)
    identity.ears.events.clear()
    assert await suspend(identity, slug_of(view)) is True
    assert await status_of(identity, tenant_of(view)) is TenantStatus.SUSPENDED
    [event] = [event for event in identity.ears.events if event.tenant_id == PLATFORM_STREAM]
    assert event.payload["change"] == "tenant_closed"
    assert (event.payload["in_tenant"], event.payload["code"]) == (str(tenant_of(view)), "TENANT_SUSPENDED")
    assert await audited(identity, tenant_of(view)) == [
        ("tenant.suspended", {"reason": "a bill that is not paid", "from": "active"})
    ]
    actor = await identity.actor(view)
    async with identity.units(PLATFORM) as uow:
        with pytest.raises(TenantSuspended):
            await identity.auth.require_open_tenant(uow, actor.tenant_id)


async def test_nobody_new_is_let_into_a_suspended_tenant(identity: Identity, orchestrator: Orchestrator) -> None:
    view, guest = await identity.sign_up(), await identity.sign_up()
    await suspend(identity, slug_of(view))
    actor = await identity.actor(view)

    with pytest.raises(TenantSuspended):
        await identity.invite(view, guest.user.email)
    async with identity.units(PLATFORM) as uow:
        with pytest.raises(TenantSuspended):
            await orchestrator.services.api_keys.create(
                uow, actor, tenant_id=tenant_of(view), name="1C", scopes=[], expires_at=None
            )


async def test_what_is_so_already_changes_nothing(identity: Identity) -> None:
    view = await identity.sign_up()
    assert await reinstate(identity, slug_of(view)) is False
    assert await suspend(identity, slug_of(view)) is True
    identity.ears.events.clear()
    assert await suspend(identity, slug_of(view), "another reason") is False
    assert identity.ears.events == []
    assert len(await audited(identity, tenant_of(view))) == 1


@pytest.mark.parametrize("before", [TenantStatus.PENDING, TenantStatus.PROVISIONING, TenantStatus.ACTIVE])
async def test_a_reinstated_tenant_is_what_it_was(identity: Identity, before: TenantStatus) -> None:
    view = await identity.sign_up()
    await set_up(identity, tenant_of(view), status=before)
    await suspend(identity, slug_of(view))
    assert await reinstate(identity, slug_of(view)) is True
    assert await status_of(identity, tenant_of(view)) is before
    assert (await audited(identity, tenant_of(view)))[-1] == ("tenant.reinstated", {"to": before.value})
    actor = await identity.actor(view)
    async with identity.units(PLATFORM) as uow:
        await identity.auth.require_open_tenant(uow, actor.tenant_id)


async def test_a_tenant_whose_site_came_meanwhile_is_active(identity: Identity) -> None:
    view = await identity.sign_up()
    await set_up(identity, tenant_of(view), status=TenantStatus.PROVISIONING)
    await suspend(identity, slug_of(view))
    await set_up(identity, tenant_of(view), erpnext_site_url="https://site.example.org")
    await reinstate(identity, slug_of(view))
    assert await status_of(identity, tenant_of(view)) is TenantStatus.ACTIVE


async def test_a_suspension_of_which_nothing_was_written_ends_in_waiting(identity: Identity) -> None:
    view = await identity.sign_up()
    await set_up(identity, tenant_of(view), status=TenantStatus.SUSPENDED)
    await reinstate(identity, slug_of(view))
    assert await status_of(identity, tenant_of(view)) is TenantStatus.PENDING


async def test_two_operators_at_once_suspend_once(identity: Identity) -> None:
    view = await identity.sign_up()
    assert sorted(await asyncio.gather(*(suspend(identity, slug_of(view)) for _ in range(4)))) == [False] * 3 + [True]
    assert len(await audited(identity, tenant_of(view))) == 1


async def test_nobody_has_this_slug(identity: Identity) -> None:
    for deed in (suspend, reinstate):
        with pytest.raises(TenantNotFound):
            await deed(identity, "no-such-tenant")
