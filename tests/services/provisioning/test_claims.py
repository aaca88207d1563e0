"""Who gets a job: one worker at a time, one job per tenant at a time, in the order they were asked for."""

import asyncio
from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy.exc import IntegrityError

from models.provisioning import JobState, JobType
from tests.services.provisioning.support import QUICK, Person, Workshop, step


async def test_of_many_workers_one_runs_the_job(workshop: Workshop) -> None:
    """However often and wherever the doorbell rings, before, during and after."""
    workers = [workshop.worker({"create_site": [step("only", "sleep 0.3")]}) for _ in range(4)]
    owner = await workshop.owner()
    job_id = await workshop.queue(workers[0], owner)

    await asyncio.gather(*(worker.run(job_id) for worker in workers for _ in range(3)))
    await asyncio.gather(*(worker.run(job_id) for worker in workers))

    assert workshop.trace(owner) == ["only"]
    job = await workshop.job(job_id)
    assert (job.state, job.attempt, job.fence) == (JobState.SUCCEEDED, 1, 1)


async def test_a_tenants_jobs_run_one_after_another_in_their_order(workshop: Workshop) -> None:
    """A later job waits, even when its doorbell comes first, and is rung for when its turn has come."""
    jobs = {
        "create_site": [step("create", "sleep 0.3")],
        "backup_site": [step("backup", "sleep 0.1")],
        "delete_site": [step("delete")],
    }
    here, there = workshop.worker(jobs), workshop.worker(jobs)
    owner = await workshop.owner()
    first = await workshop.queue(here, owner)
    second = await workshop.queue(here, owner, JobType.BACKUP_SITE)
    third = await workshop.queue(here, owner, JobType.DELETE_SITE)

    await there.run(second)
    assert (await workshop.job(second)).state is JobState.QUEUED
    running = asyncio.create_task(here.run(first))
    await workshop.until_traced(owner, "create")
    await asyncio.gather(there.run(second), there.run(third), here.run(third))
    assert (await workshop.job(second)).state is JobState.QUEUED
    assert [workshop.rung(job_id) for job_id in (second, third)] == [1, 1]
    await running
    assert [workshop.rung(job_id) for job_id in (second, third)] == [2, 1]

    await there.run(second)
    assert workshop.rung(third) == 2
    await here.run(third)
    assert workshop.trace(owner) == ["create", "backup", "delete"]


async def test_a_job_between_two_attempts_keeps_its_place(workshop: Workshop) -> None:
    """Also an older job that is retried meanwhile does not come between."""
    jobs = {
        "create_site": [step("create", "test -e $D/tried || (touch $D/tried; exit 1)", max_attempts=2)],
        "backup_site": [step("backup", "exit 1", max_attempts=1)],
    }
    service = workshop.worker(jobs, timing=replace(QUICK, retry_base_s=60, retry_cap_s=60))
    owner = await workshop.owner()
    older = await workshop.queue(service, owner, JobType.BACKUP_SITE)
    await service.run(older)
    job_id = await workshop.queue(service, owner)
    await service.run(job_id)
    assert (await workshop.job(job_id)).state is JobState.RETRYING

    await workshop.retry(service, owner, older)
    await service.run(older)

    assert workshop.trace(owner) == ["backup", "create"]
    assert (await workshop.job(older)).state is JobState.QUEUED


async def test_tenants_do_not_wait_for_each_other(workshop: Workshop) -> None:
    service = workshop.worker({"create_site": [step("start"), step("wait", "sleep 0.4")]})
    owners = [await workshop.owner() for _ in range(3)]
    job_ids = [await workshop.queue(service, owner) for owner in owners]

    async with asyncio.TaskGroup() as tasks:
        for job_id in job_ids:
            tasks.create_task(service.run(job_id))
        for owner in owners:
            await workshop.until_traced(owner, "wait")
        states = [(await workshop.job(job_id)).state for job_id in job_ids]

    assert states == [JobState.RUNNING] * 3


async def test_the_database_itself_refuses_a_second_running_job(workshop: Workshop) -> None:
    service = workshop.worker({"create_site": [step("only")]})
    owner = await workshop.owner()
    first, second = [await workshop.queue(service, owner) for _ in range(2)]
    await workshop.change_job(first, state=JobState.RUNNING)

    with pytest.raises(IntegrityError, match="uq_provisioning_jobs_one_running"):
        await workshop.change_job(second, state=JobState.RUNNING)


async def test_jobs_retried_and_rung_in_parallel_still_run_one_at_a_time(workshop: Workshop) -> None:
    """The hard case for a line: its members enter it while several workers decide whose turn it is."""
    script = "mkdir $D/{slug}.lock && sleep 0.02 && rmdir $D/{slug}.lock"
    jobs = {kind.value: [step(kind.value, script)] for kind in JobType}
    workers = [workshop.worker(jobs) for _ in range(3)]
    owner = await workshop.owner()
    job_ids = [await workshop.queue(workers[0], owner, kind) for kind in JobType]
    for job_id in job_ids:
        await workshop.change_job(job_id, state=JobState.FAILED)

    async def revive(place: int) -> None:
        await workshop.retry(workers[place % 3], owner, job_ids[place])
        while not (await workshop.job(job_ids[place])).is_finished:
            await workers[(place + 1) % 3].run(job_ids[place])
            await asyncio.sleep(0.01)

    async with asyncio.timeout(30):
        await asyncio.gather(*(revive(place) for place in range(len(job_ids))))

    states = {(await workshop.job(job_id)).state for job_id in job_ids}
    assert states == {JobState.SUCCEEDED}, "two commands at once would have failed at the lock"
    assert sorted(workshop.trace(owner)) == sorted(kind.value for kind in JobType)


async def test_a_job_asked_for_while_another_ends_is_not_forgotten(workshop: Workshop) -> None:
    """Whichever comes first: the second job's own doorbell finds its turn come, or the end of the first one rings."""
    service = workshop.worker({"create_site": [step("create")], "backup_site": [step("backup")]})
    for _ in range(8):
        owner = await workshop.owner()
        first = await workshop.queue(service, owner)

        async def ask_and_answer(owner: Person = owner) -> UUID:
            second = await workshop.queue(service, owner, JobType.BACKUP_SITE)
            await service.run(second)
            return second

        _, second = await asyncio.gather(service.run(first), ask_and_answer())

        run_at_once = (await workshop.job(second)).state is JobState.SUCCEEDED
        assert run_at_once or workshop.rung(second) == 2
