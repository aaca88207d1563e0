"""The sweep: it rings for jobs whose doorbell or worker was lost, and for no other."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from models.provisioning import JobType
from services.provisioning import ProvisioningService, Timing
from tests.services.provisioning.support import HARDLY_HEARD, INTERRUPTED, QUICK, Workshop, begin, step


async def swept(workshop: Workshop, service: ProvisioningService, *job_ids: UUID) -> list[int]:
    """Sweep and return how often each job was rung for by it."""
    before = [workshop.rung(job_id) for job_id in job_ids]
    await service.sweep()
    return [workshop.rung(job_id) - earlier for job_id, earlier in zip(job_ids, before, strict=True)]


async def test_a_lost_doorbell_is_rung_again_but_not_without_end(workshop: Workshop) -> None:
    service = workshop.worker({"create_site": [step("make")]})
    owner = await workshop.owner()
    job_id = await workshop.queue(service, owner)

    assert await swept(workshop, service, job_id) == [0], "it has just been rung for"
    workshop.clock.offset += Timing().rering
    assert await swept(workshop, service, job_id) == [1]
    assert await swept(workshop, service, job_id) == [0]
    workshop.clock.offset += Timing().rering
    rings = await asyncio.gather(*(service.sweep() for _ in range(4)))
    assert workshop.rung(job_id) == 3, f"four sweeps at once ring once: {rings}"


async def test_only_the_first_in_line_is_rung_for(workshop: Workshop) -> None:
    service = workshop.worker(INTERRUPTED | {"backup_site": [step("backup")]})
    begun = await begin(workshop, service)
    waiting = await workshop.queue(service, begun.owner, JobType.BACKUP_SITE)
    workshop.clock.offset += timedelta(seconds=25)

    assert await swept(workshop, service, begun.job_id, waiting) == [0, 0]
    await service.stop()
    other = workshop.worker(INTERRUPTED | {"backup_site": [step("backup")]})
    assert await swept(workshop, other, begun.job_id, waiting) == [1, 0]
    await other.run(begun.job_id)
    assert await swept(workshop, other, waiting) == [1]


async def test_a_job_whose_lease_has_run_out_is_rung_for_at_once(workshop: Workshop) -> None:
    service = workshop.worker(INTERRUPTED, timing=HARDLY_HEARD)
    begun = await begin(workshop, service)
    assert await swept(workshop, service, begun.job_id) == [0]
    await workshop.lose_lease(begun.job_id)
    await workshop.change_job(begun.job_id, rung_at=workshop.clock.now() - timedelta(seconds=5))

    assert await swept(workshop, service, begun.job_id) == [1]
    await service.stop()


async def test_a_job_between_attempts_is_rung_for_when_it_is_due(workshop: Workshop) -> None:
    service = workshop.worker(
        {"create_site": [step("fail", "exit 1")]}, timing=replace(QUICK, retry_base_s=10, retry_cap_s=10)
    )
    owner = await workshop.owner()
    job_id = await workshop.queue(service, owner)
    await service.run(job_id)

    assert await swept(workshop, service, job_id) == [0]
    workshop.clock.offset += timedelta(seconds=11)
    assert await swept(workshop, service, job_id) == [1]


async def test_finished_jobs_are_left_alone(workshop: Workshop) -> None:
    service = workshop.worker({"create_site": [step("make")], "backup_site": [step("fail", "exit 1", max_attempts=1)]})
    owner = await workshop.owner()
    job_ids = [await workshop.queue(service, owner, kind) for kind in (JobType.CREATE_SITE, JobType.BACKUP_SITE)]
    for job_id in job_ids:
        await service.run(job_id)
    workshop.clock.offset += timedelta(days=1)

    assert await swept(workshop, service, *job_ids) == [0, 0]
