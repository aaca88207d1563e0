"""The end of a tenant: closed at once, restorable for a while, then gone without a trace of it."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, update

from models.audit import AuditEntry
from models.base import Base, OutlivesTenant
from models.billing import ProviderInstruction, Subscription, SubscriptionStatus
from models.events import PLATFORM as PLATFORM_STREAM
from models.events import LoggedEvent
from models.provisioning import JobState, JobType, ProvisioningJob
from models.tenants import Role, Tenant, TenantStatus
from services.auth.views import SessionView
from services.closed_tenants import TenantDeleted
from services.identity import RoleRequired
from services.step_up import RECENT, StepUpRequired
from services.tenants.errors import DeletionNotRequested, DeletionUnderWay, NoTenantAccess
from services.tenants.export import exported_mappers
from services.tenants.views import DeletionView
from services.unit_of_work import TenantScope
from tests.support.identity import GRACE, PLATFORM, Identity, tenant_of


async def request(identity: Identity, who: SessionView, tenant_id: UUID) -> DeletionView:
    actor = await identity.actor(who)
    async with identity.units(TenantScope(tenant_id)) as uow:
        return await identity.tenants.deletion.request(uow, actor, tenant_id=tenant_id)


async def restore(identity: Identity, who: SessionView, tenant_id: UUID) -> None:
    actor = await identity.actor(who)
    async with identity.units(TenantScope(tenant_id)) as uow:
        await identity.tenants.deletion.restore(uow, actor, tenant_id=tenant_id)


async def jobs_of(identity: Identity, tenant_id: UUID) -> dict[JobType, JobState]:
    jobs = await identity.rows(select(ProvisioningJob).where(ProvisioningJob.tenant_id == tenant_id))
    return {job.job_type: job.state for job in jobs}


async def sweep(identity: Identity, times: int = 3) -> None:
    for _ in range(times):
        await identity.tenants.deletion.sweep()


async def exists(identity: Identity, tenant_id: UUID) -> bool:
    return bool(await identity.rows(select(Tenant).where(Tenant.id == tenant_id)))


async def change(identity: Identity, statement: object) -> None:
    async with identity.units(PLATFORM) as uow:
        await uow.session.execute(statement)  # type: ignore[call-overload]


async def test_asking_closes_the_tenant_at_once(identity: Identity) -> None:
    owner = await identity.sign_up()
    tenant_id = tenant_of(owner)
    identity.ears.events.clear()

    view = await request(identity, owner, tenant_id)
    again = await request(identity, owner, tenant_id)

    assert (view, view.due_at - identity.clock.now() < GRACE) == (again, True)
    closings = [event for event in identity.ears.events if event.tenant_id == PLATFORM_STREAM]
    assert [event.payload["code"] for event in closings] == ["TENANT_DELETED"]
    assert await jobs_of(identity, tenant_id) == {JobType.CREATE_SITE: JobState.CANCELLED}
    subscription = await identity.one(select(Subscription).where(Subscription.tenant_id == tenant_id))
    assert (subscription.status, subscription.cancel_at_period_end) == (SubscriptionStatus.TRIAL, True)
    assert [letter.subject.endswith("will be deleted") for letter in await identity.letters(owner.user.email)] == [True]
    async with identity.units(PLATFORM) as uow:
        with pytest.raises(TenantDeleted):
            await identity.auth.require_open_tenant(uow, tenant_id)
    actor = await identity.actor(owner)
    async with identity.units(TenantScope(tenant_id)) as uow:
        shown = await identity.tenants.show(uow, actor, tenant_id=tenant_id)
        assert shown.status is TenantStatus.CANCELLED
        assert await identity.tenants.deletion.show(uow, actor, tenant_id=tenant_id) == view


async def test_only_an_owner_who_has_just_proved_it_asks(identity: Identity) -> None:
    owner, stranger, admin = await identity.sign_up(), await identity.sign_up(), await identity.sign_up()
    tenant_id = tenant_of(owner)
    await identity.invite(owner, admin.user.email, Role.ADMIN)

    with pytest.raises(RoleRequired):
        await request(identity, admin, tenant_id)
    with pytest.raises(NoTenantAccess):
        await request(identity, stranger, tenant_id)
    with pytest.raises(DeletionNotRequested):
        await restore(identity, owner, tenant_id)
    identity.clock.offset += RECENT + timedelta(seconds=1)
    with pytest.raises(StepUpRequired):
        await request(identity, owner, tenant_id)

    assert await jobs_of(identity, tenant_id) == {JobType.CREATE_SITE: JobState.QUEUED}


async def test_until_its_time_it_can_be_restored_and_nothing_is_begun(identity: Identity) -> None:
    owner = await identity.sign_up()
    tenant_id = tenant_of(owner)
    await request(identity, owner, tenant_id)
    actor = await identity.actor(owner)
    provisioning = identity.tenants.deletion._provisioning
    with pytest.raises(TenantDeleted):
        async with identity.units(TenantScope(tenant_id)) as uow:
            await provisioning.create(uow, actor, job_type=JobType.BACKUP_SITE)
    await sweep(identity)

    await restore(identity, owner, tenant_id)

    async with identity.units(TenantScope(tenant_id)) as uow:
        await identity.auth.require_open_tenant(uow, tenant_id)
        await provisioning.create(uow, actor, job_type=JobType.CREATE_SITE)
    identity.clock.offset += GRACE
    await sweep(identity)
    assert await exists(identity, tenant_id)


async def test_after_its_time_every_row_is_gone_but_the_books(identity: Identity) -> None:
    owner, guest = await identity.sign_up(), await identity.sign_up()
    tenant_id, slug = tenant_of(owner), owner.current_tenant.slug if owner.current_tenant else ""
    await identity.invite(owner, guest.user.email)
    await identity.invite(owner, f"{uuid4().hex}@example.org")
    view = await request(identity, owner, tenant_id)
    identity.clock.offset += view.due_at - identity.clock.now() + timedelta(seconds=1)
    fresh = await identity.login(owner.user.email)
    with pytest.raises(DeletionUnderWay):
        await restore(identity, fresh, tenant_id)

    # Two processes sweep at once.
    for _ in range(3):
        await asyncio.gather(sweep(identity, 1), sweep(identity, 1))

    assert not await exists(identity, tenant_id)
    async with identity.units(PLATFORM) as uow:
        # The audit outlives the tenant (tests/services/test_audit.py), and so do the books (tests/services/reports).
        for mapper in (item for item in exported_mappers() if not issubclass(item.class_, AuditEntry | OutlivesTenant)):
            table = Base.metadata.tables[mapper.local_table.name]  # type: ignore[attr-defined]
            left = select(func.count()).select_from(table).where(table.c.tenant_id == tenant_id)
            assert await uow.session.scalar(left) == 0, table.name
    entry = await identity.one(
        select(AuditEntry).where(AuditEntry.action == "tenant.deleted", AuditEntry.subject_id == str(tenant_id))
    )
    assert (entry.tenant_id, entry.details) == (None, {"slug": slug})
    with pytest.raises(NoTenantAccess):
        await identity.actor(fresh)
    assert tenant_of(await identity.login(guest.user.email)) == tenant_of(guest)


async def test_a_site_is_taken_away_and_providers_are_told_before_the_rows_go(identity: Identity) -> None:
    owner = await identity.sign_up()
    tenant_id = tenant_of(owner)
    subscribed = {
        "status": SubscriptionStatus.ACTIVE,
        "payment_provider": "sandbox",
        "external_subscription_id": uuid4().hex,
    }
    await change(identity, update(Subscription).where(Subscription.tenant_id == tenant_id).values(**subscribed))
    await change(identity, update(Tenant).where(Tenant.id == tenant_id).values(erpnext_site_url="http://x.example"))
    await request(identity, owner, tenant_id)
    orders = select(ProviderInstruction).where(ProviderInstruction.tenant_id == tenant_id)
    assert [order.kind for order in await identity.rows(orders)] == ["cancel_later"]
    identity.clock.offset += GRACE + timedelta(seconds=1)

    await sweep(identity)

    assert (await jobs_of(identity, tenant_id))[JobType.DELETE_SITE] is JobState.QUEUED
    assert sorted(order.kind for order in await identity.rows(orders)) == ["cancel_later", "cancel_now"]
    assert await exists(identity, tenant_id)
    # The worker fails to remove the site; it is not tried again before an hour has gone.
    removal = (ProvisioningJob.tenant_id == tenant_id, ProvisioningJob.job_type == JobType.DELETE_SITE)
    failed = {"state": JobState.FAILED, "attempt": 1, "completed_at": identity.clock.now()}
    await change(identity, update(ProvisioningJob).where(*removal).values(**failed))
    await sweep(identity)
    assert [job.state for job in await identity.rows(select(ProvisioningJob).where(*removal))] == [JobState.FAILED]
    identity.clock.offset += timedelta(hours=1)
    await sweep(identity)
    again = await identity.one(select(ProvisioningJob).where(*removal, ProvisioningJob.state == JobState.QUEUED))
    done = {"state": JobState.SUCCEEDED, "attempt": 1, "completed_at": identity.clock.now()}
    await change(identity, update(ProvisioningJob).where(ProvisioningJob.id == again.id).values(**done))
    await change(identity, update(Tenant).where(Tenant.id == tenant_id).values(erpnext_site_url=None))
    await sweep(identity)
    assert await exists(identity, tenant_id), "the provider has not been told yet"
    told = update(ProviderInstruction).where(ProviderInstruction.tenant_id == tenant_id)
    await change(identity, told.values(done_at=identity.clock.now()))
    await sweep(identity)
    assert not await exists(identity, tenant_id)
    assert not await identity.rows(select(LoggedEvent).where(LoggedEvent.tenant_id == tenant_id))
