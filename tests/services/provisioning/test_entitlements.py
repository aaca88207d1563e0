"""Sites and backups are made for as long as the plan has room for them."""

import asyncio

import pytest

from models.overrides import EntitlementOverride
from models.provisioning import JobState, JobType, ProvisioningStep, line_place
from services.entitlements.errors import PlanLimitReached
from tests.services.provisioning.support import PLATFORM, Person, Workshop, step

JOBS = {"create_site": [step("make")], "backup_site": [step("back_up")], "delete_site": [step("take")]}


async def paying(workshop: Workshop, **limits: int) -> Person:
    owner = await workshop.owner()
    await workshop.subscribe(owner, plan="own", limits=limits)
    return owner


async def test_a_plan_without_sites_makes_none(workshop: Workshop) -> None:
    service, owner = workshop.worker(JOBS), await paying(workshop, sites=0)
    with pytest.raises(PlanLimitReached) as refusal:
        await workshop.queue(service, owner)
    assert refusal.value.details == {"limit": "sites", "used": 0, "allowed": 0}


async def test_the_site_that_is_there_is_made_again_whatever_the_plan(workshop: Workshop) -> None:
    service, owner = workshop.worker(JOBS), await paying(workshop, sites=0)
    await workshop.change_tenant(owner, erpnext_site_url="https://acme.example.test")
    job_id = await workshop.queue(service, owner)
    await service.run(job_id)
    assert (await workshop.job(job_id)).state is JobState.SUCCEEDED


async def test_of_many_at_once_all_make_the_same_one_site(workshop: Workshop) -> None:
    service, owner = workshop.worker(JOBS), await paying(workshop, sites=1)
    await asyncio.gather(*(workshop.queue(service, owner) for _ in range(4)))


async def test_a_job_that_would_make_a_site_is_not_taken_up_again(workshop: Workshop) -> None:
    service, owner = workshop.worker(JOBS), await workshop.owner()
    job_id = await workshop.queue(service, owner)
    await workshop.cancel(service, owner, job_id)
    await workshop.subscribe(owner, plan="own", limits={"sites": 0})
    with pytest.raises(PlanLimitReached):
        await workshop.retry(service, owner, job_id)


async def test_backups_are_made_while_there_is_room_for_them(workshop: Workshop) -> None:
    service, owner = workshop.worker(JOBS), await paying(workshop, storage_gb=2)
    sizes = ("1980000000", "nonsense", "20000000")
    for size in sizes:
        job_id = await workshop.queue(service, owner, JobType.BACKUP_SITE)
        await service.run(job_id)
        await workshop.change_job(job_id, result={"backup_bytes": size})
    with pytest.raises(PlanLimitReached) as refusal:
        await workshop.queue(service, owner, JobType.BACKUP_SITE)
    assert {name: str(value) for name, value in refusal.value.details.items()} == {
        "limit": "storage_gb", "used": "2.00", "allowed": "2",
    }  # fmt: skip


async def test_of_many_backups_asked_for_at_once_no_more_are_made_than_there_is_room_for(workshop: Workshop) -> None:
    service, owner = workshop.worker(JOBS), await paying(workshop, storage_gb=2)
    jobs = await asyncio.gather(*(workshop.queue(service, owner, JobType.BACKUP_SITE) for _ in range(4)))
    line = sorted([await workshop.job(job_id) for job_id in jobs], key=line_place)
    for job in line:
        await service.run(job.id)
        await workshop.change_job(job.id, result={"backup_bytes": "1000000000"})
    ended = [await workshop.job(job.id) for job in line]
    assert [job.state for job in ended] == [JobState.SUCCEEDED] * 2 + [JobState.FAILED] * 2
    assert {job.error for job in ended[2:]} == {"The plan has no room for another one"}
    for job in ended[2:]:
        assert not any(step.is_begun for step in await workshop.steps(job.id))
    with pytest.raises(PlanLimitReached):
        await workshop.retry(service, owner, ended[2].id)
    await workshop.change_job(ended[0].id, result={"backup_bytes": "500000000"})
    await workshop.retry(service, owner, ended[2].id)
    await service.run(ended[2].id)
    assert (await workshop.job(ended[2].id)).state is JobState.SUCCEEDED


async def test_a_backup_that_was_begun_is_finished_whatever_the_plan(workshop: Workshop) -> None:
    service, owner = workshop.worker(JOBS), await paying(workshop, storage_gb=2)
    job_id = await workshop.queue(service, owner, JobType.BACKUP_SITE)
    (only,) = await workshop.steps(job_id)
    async with workshop.units(PLATFORM) as uow:
        (await uow.session.get_one(ProvisioningStep, only.id)).begin(uow.now)
        uow.session.add(
            EntitlementOverride(tenant_id=owner.tenant.id, name="storage_gb", value=0, reason="the tests' own")
        )
    await service.run(job_id)
    assert (await workshop.job(job_id)).state is JobState.SUCCEEDED
