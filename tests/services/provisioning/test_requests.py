"""What people may ask of provisioning, and what they see."""

import asyncio
from uuid import UUID, uuid4

import pytest

from core.pagination import PageRequest
from models.provisioning import JobState, JobType
from models.tenants import Role
from services.identity import RoleRequired
from services.provisioning import JobFilter, JobNotFound, JobNotRetryable, SiteNotFound, TooManyJobs
from services.unit_of_work import TenantScope
from tests.services.provisioning.support import MAX_WAITING, PLATFORM, Person, Workshop, step

EVERY_KIND = {kind.value: [step(kind.value)] for kind in JobType}


async def listed(workshop: Workshop, person: Person, only: JobFilter, page: PageRequest) -> tuple[list[UUID], int]:
    service = workshop.worker(EVERY_KIND)
    async with workshop.units(TenantScope(person.tenant.id)) as uow:
        found = await service.list(uow, person.actor, page, only=only)
    return [job.id for job in found.items], found.total


async def test_jobs_are_listed_newest_first_within_the_tenant(workshop: Workshop) -> None:
    service = workshop.worker(EVERY_KIND)
    owner, stranger = await workshop.owner(), await workshop.owner()
    first = await workshop.queue(service, owner)
    second = await workshop.queue(service, owner, JobType.BACKUP_SITE)
    await workshop.queue(service, stranger)
    await service.run(first)
    await workshop.cancel(service, owner, second)
    third = await workshop.queue(service, owner, JobType.BACKUP_SITE)

    everything = PageRequest()
    assert await listed(workshop, owner, JobFilter(), everything) == ([third, second, first], 3)
    assert await listed(workshop, owner, JobFilter(), PageRequest(page=2, size=2)) == ([first], 3)
    failed = JobFilter(states=(JobState.FAILED, JobState.CANCELLED))
    assert await listed(workshop, owner, failed, everything) == ([second], 1)
    backups = JobFilter(job_type=JobType.BACKUP_SITE)
    assert await listed(workshop, owner, backups, everything) == ([third, second], 2)
    both = JobFilter(states=(JobState.QUEUED,), job_type=JobType.BACKUP_SITE)
    assert await listed(workshop, owner, both, everything) == ([third], 1)


async def test_only_managers_change_anything(workshop: Workshop) -> None:
    service = workshop.worker(EVERY_KIND)
    owner = await workshop.owner()
    member, admin = [await workshop.member(owner.tenant, role) for role in (Role.MEMBER, Role.ADMIN)]
    job_id = await workshop.queue(service, admin)

    for refused in (
        workshop.queue(service, member),
        workshop.cancel(service, member, job_id),
        workshop.retry(service, member, job_id),
    ):
        with pytest.raises(RoleRequired, match="owner, admin"):
            await refused
    assert (await workshop.show(service, member, job_id)).state is JobState.QUEUED


async def test_a_strangers_job_does_not_exist(workshop: Workshop) -> None:
    service = workshop.worker(EVERY_KIND)
    owner, stranger = await workshop.owner(), await workshop.owner()
    job_id = await workshop.queue(service, owner)

    for wanted in (job_id, uuid4()):
        for ask in (workshop.show, workshop.cancel, workshop.retry):
            with pytest.raises(JobNotFound, match="ProvisioningJob not found"):
                await ask(service, stranger, wanted)
    assert (await workshop.job(job_id)).state is JobState.QUEUED


async def test_an_unfinished_job_is_not_retried(workshop: Workshop) -> None:
    service = workshop.worker(EVERY_KIND)
    owner = await workshop.owner()
    job_id = await workshop.queue(service, owner)
    events = await workshop.events(owner)

    with pytest.raises(JobNotRetryable, match="Only failed/completed jobs can be retried"):
        await workshop.retry(service, owner, job_id)

    assert await workshop.events(owner) == events
    assert workshop.rung(job_id) == 1


async def test_no_more_jobs_wait_than_may_whoever_asks_at_once(workshop: Workshop) -> None:
    service = workshop.worker(EVERY_KIND)
    owner, stranger = await workshop.owner(), await workshop.owner()
    done = await workshop.queue(service, owner)
    await service.run(done)

    asked = [workshop.queue(service, owner, JobType.BACKUP_SITE) for _ in range(2 * MAX_WAITING)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)

    refusals = [outcome for outcome in outcomes if isinstance(outcome, TooManyJobs)]
    queued = [outcome for outcome in outcomes if isinstance(outcome, UUID)]
    assert (len(queued), len(refusals)) == (MAX_WAITING, MAX_WAITING)
    assert {refusal.retry_after_s for refusal in refusals} == {30}
    with pytest.raises(TooManyJobs):
        await workshop.retry(service, owner, done)
    with pytest.raises(JobNotRetryable):
        await workshop.retry(service, owner, queued[0])
    await workshop.queue(service, stranger)
    await workshop.cancel(service, owner, queued[0])
    await workshop.retry(service, owner, done)


async def test_requests_are_audited_with_who_made_them(workshop: Workshop) -> None:
    service = workshop.worker(EVERY_KIND)
    owner = await workshop.owner()
    job_id = await workshop.queue(service, owner)
    await workshop.cancel(service, owner, job_id)
    await workshop.retry(service, owner, job_id)

    assert await workshop.audit(owner) == [
        "provisioning_job.requested",
        "provisioning_job.cancel_requested",
        "provisioning_job.cancelled",
        "provisioning_job.retried",
    ]


async def test_a_site_tells_about_itself_once_it_is_there(workshop: Workshop) -> None:
    service = workshop.worker({"create_site": [step("make", "echo '::output database=db7'", prints=["database"])]})
    owner = await workshop.owner()
    for slug in (owner.tenant.slug, "no-such-site"):
        async with workshop.units(PLATFORM) as uow:
            with pytest.raises(SiteNotFound):
                await service.site(uow, slug=slug)
    await workshop.subscribe(owner, plan="starter", limits={})

    await service.run(await workshop.queue(service, owner))

    async with workshop.units(PLATFORM) as uow:
        site = await service.site(uow, slug=owner.tenant.slug)
    assert site.model_dump() == {
        "tenant_id": owner.tenant.id,
        "name": "Acme",
        "slug": owner.tenant.slug,
        "url": f"https://{owner.tenant.slug}.example.test",
        "status": "active",
        "plan": "Plan",
        "facts": {"database": "db7"},
    }


async def test_an_idle_worker_stops_at_once(workshop: Workshop) -> None:
    service = workshop.worker(EVERY_KIND)
    await service.stop()
    await service.stop()
