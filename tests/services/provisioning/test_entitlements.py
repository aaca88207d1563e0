"""Sites and backups are made for as long as the plan has room for them."""

import asyncio

import pytest

from models.provisioning import JobState, JobType
from services.entitlements.errors import PlanLimitReached
from tests.services.provisioning.support import Person, Workshop, step

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
