"""Cancelling: at once while nothing is begun, otherwise by ending the step under way and undoing the others."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from models.provisioning import JobState, StepState
from models.tenants import TenantStatus
from tests.services.provisioning.support import QUICK, Person, Workshop, step

# The middle step has nothing to undo; the last one is in the middle of its work when the cancellation comes.
LONG_CREATION = {
    "create_site": [
        step("make", "echo '::output place=here'", prints=["place"], undo="true"),
        step("note"),
        step("wait", "sleep 30; echo survived >> $T", undo="echo undoing {output.place}"),
        step("never"),
    ]
}


async def assert_cancelled(workshop: Workshop, owner: Person, job_id: UUID) -> None:
    job = await workshop.job(job_id)
    assert (job.state, job.error, job.message, job.progress, job.completed_at) == (
        JobState.CANCELLED,
        "Cancelled by user",
        "Cancelled",
        0,
        None,
    )
    failed = [event.payload for event in await workshop.events(owner) if event.name == "status:failed"]
    assert failed == [
        {
            "tenant_id": str(owner.tenant.id),
            "job_id": str(job_id),
            "job_type": "create_site",
            "status": "failed",
            "state": "cancelled",
            "error": "Cancelled by user",
        }
    ]
    assert await workshop.notifications(owner) == []


async def test_a_queued_job_is_cancelled_at_once_and_never_runs(workshop: Workshop) -> None:
    service = workshop.worker({"create_site": [step("never")]})
    owner = await workshop.owner()
    job_id = await workshop.queue(service, owner)

    shown = await workshop.cancel(service, owner, job_id)
    await service.run(job_id)

    assert (shown.status, shown.state, shown.error, shown.message) == (
        "failed",
        "cancelled",
        "Cancelled by user",
        "Cancelled",
    )
    await assert_cancelled(workshop, owner, job_id)
    assert workshop.trace(owner) == []
    assert (await workshop.tenant(owner)).status is TenantStatus.PENDING


async def test_cancelling_races_a_worker_for_a_queued_job(workshop: Workshop) -> None:
    """Either the cancellation comes first and no command ever runs, or the worker does and everything is undone."""
    jobs = {"create_site": [step("make", undo="true"), step("wait", "sleep 10", undo="true")]}
    here, there = workshop.worker(jobs), workshop.worker(jobs)
    at_once = 0
    for delay_ms in range(12):
        owner = await workshop.owner()
        job_id = await workshop.queue(here, owner)

        async def cancel(owner: Person = owner, job_id: UUID = job_id, delay_s: float = delay_ms / 1000) -> str:
            await asyncio.sleep(delay_s)
            return (await workshop.cancel(here, owner, job_id)).state

        async with asyncio.timeout(8):
            state, _ = await asyncio.gather(cancel(), there.run(job_id))

        await assert_cancelled(workshop, owner, job_id)
        begun = [item.state for item in await workshop.steps(job_id)]
        if state is JobState.CANCELLED:
            at_once += 1
            assert workshop.trace(owner) == []
            assert begun == [StepState.PENDING] * 2
        else:
            assert set(begun) <= {StepState.PENDING, StepState.COMPENSATED}
            done = [word for word in workshop.trace(owner) if not word.startswith("undo-")]
            assert set(done) <= {word.removeprefix("undo-") for word in workshop.trace(owner) if word not in done}
    assert at_once < 12, "the race was never run"


async def test_a_running_job_is_ended_and_undone_backwards(workshop: Workshop) -> None:
    """In the process that runs it, the doorbell of the cancellation is enough to be noticed at once."""
    service = workshop.worker(LONG_CREATION, timing=replace(QUICK, poll_s=60))
    owner = await workshop.owner()
    job_id = await workshop.queue(service, owner)
    running = asyncio.create_task(service.run(job_id))
    await workshop.until_traced(owner, "wait")

    shown = await workshop.cancel(service, owner, job_id)
    assert (shown.status, shown.state, shown.message) == ("running", "running", "Cancelling")
    assert workshop.rung(job_id) == 2
    async with asyncio.timeout(5):
        await service.run(job_id)
        await running

    await assert_cancelled(workshop, owner, job_id)
    assert workshop.trace(owner) == ["make", "note", "wait", "undo-wait", "undo-make"]
    assert [item.state for item in await workshop.steps(job_id)] == [
        StepState.COMPENSATED,
        StepState.COMPENSATED,
        StepState.COMPENSATED,
        StepState.PENDING,
    ]
    assert "undoing here" in [line.text for line in await workshop.log(job_id)]
    assert (await workshop.tenant(owner)).status is TenantStatus.PROVISIONING


async def test_another_process_notices_by_looking(workshop: Workshop) -> None:
    web, worker = workshop.worker(LONG_CREATION), workshop.worker(LONG_CREATION)
    owner = await workshop.owner()
    job_id = await workshop.queue(web, owner)
    running = asyncio.create_task(worker.run(job_id))
    await workshop.until_traced(owner, "wait")

    await workshop.cancel(web, owner, job_id)
    async with asyncio.timeout(5):
        await running

    await assert_cancelled(workshop, owner, job_id)


async def test_a_step_that_fails_before_the_cancellation_is_noticed_is_undone(workshop: Workshop) -> None:
    """The failure alone would have ended the job as failed, with its steps left for a retry."""
    fail = "while ! test -e $D/go; do sleep 0.05; done; exit 1"
    jobs = {"create_site": [step("make", undo="true"), step("fail", fail, max_attempts=1)]}
    web, worker = workshop.worker(jobs), workshop.worker(jobs, timing=replace(QUICK, poll_s=60))
    owner = await workshop.owner()
    job_id = await workshop.queue(web, owner)
    running = asyncio.create_task(worker.run(job_id))
    await workshop.until_traced(owner, "fail")

    await workshop.cancel(web, owner, job_id)
    Path(workshop.folder, "data", "go").touch()
    async with asyncio.timeout(5):
        await running

    assert workshop.trace(owner) == ["make", "fail", "undo-make"]
    await assert_cancelled(workshop, owner, job_id)


async def test_a_cancelled_job_can_be_retried_from_the_start(workshop: Workshop) -> None:
    slow = "test -e $D/go || sleep 30"
    service = workshop.worker({"create_site": [step("make", undo="true"), step("wait", slow)]})
    owner = await workshop.owner()
    job_id = await workshop.queue(service, owner)
    running = asyncio.create_task(service.run(job_id))
    await workshop.until_traced(owner, "wait")
    await workshop.cancel(service, owner, job_id)
    await running
    Path(workshop.folder, "data", "go").touch()

    await workshop.retry(service, owner, job_id)
    await service.run(job_id)

    assert workshop.trace(owner) == ["make", "wait", "undo-make", "make", "wait"]
    job = await workshop.job(job_id)
    assert (job.state, job.cancel_requested_at, job.attempt) == (JobState.SUCCEEDED, None, 2)
    assert [item.attempts for item in await workshop.steps(job_id)] == [1, 1], "what was undone starts anew"


@pytest.mark.parametrize("requeued", [False, True], ids=["between two attempts", "queued anew"])
async def test_a_waiting_job_that_has_begun_is_undone_and_not_gone_on_with(
    workshop: Workshop, *, requeued: bool
) -> None:
    service = workshop.worker(
        {"create_site": [step("make", undo="true"), step("fail", "exit 1", max_attempts=1 if requeued else 3)]},
        timing=replace(QUICK, retry_base_s=60, retry_cap_s=60),
    )
    owner = await workshop.owner()
    job_id = await workshop.queue(service, owner)
    await service.run(job_id)
    if requeued:
        await workshop.retry(service, owner, job_id)

    shown = await workshop.cancel(service, owner, job_id)
    assert (shown.state, shown.message) == ("queued" if requeued else "retrying", "Cancelling")
    await service.run(job_id)

    assert workshop.trace(owner) == ["make", "fail", "undo-make"]
    assert (await workshop.job(job_id)).state is JobState.CANCELLED


async def test_a_finished_job_is_left_as_it_is(workshop: Workshop) -> None:
    service = workshop.worker({"create_site": [step("make", undo="true")]})
    owner = await workshop.owner()
    job_id = await workshop.queue(service, owner)
    await service.run(job_id)
    before = await workshop.show(service, owner, job_id)
    audit, events = await workshop.audit(owner), await workshop.events(owner)

    assert await workshop.cancel(service, owner, job_id) == before

    assert await workshop.audit(owner) == audit
    assert await workshop.events(owner) == events
    assert workshop.rung(job_id) == 1


async def test_a_cancellation_after_the_last_step_comes_too_late(workshop: Workshop) -> None:
    """What is done is done: the job is completed, for its site is live."""
    service = workshop.worker({"create_site": [step("make", undo="true")]})
    owner = await workshop.owner()
    job_id = await workshop.queue(service, owner)
    await service.run(job_id)
    # As a crash between the last step's end and the job's end leaves it.
    lost = workshop.clock.now() - timedelta(seconds=1)
    await workshop.change_job(job_id, state=JobState.RUNNING, lease_until=lost, completed_at=None)
    await workshop.cancel(service, owner, job_id)

    await service.run(job_id)

    assert workshop.trace(owner) == ["make"]
    assert (await workshop.job(job_id)).state is JobState.SUCCEEDED


async def test_a_compensation_is_tried_several_times(workshop: Workshop) -> None:
    undo = "test -e $D/tried || (touch $D/tried; exit 1)"
    service = workshop.worker({"create_site": [step("wait", "sleep 30", undo=undo)]})
    owner = await workshop.owner()
    job_id = await workshop.queue(service, owner)
    running = asyncio.create_task(service.run(job_id))
    await workshop.until_traced(owner, "wait")
    await workshop.cancel(service, owner, job_id)
    await running

    assert workshop.trace(owner) == ["wait", "undo-wait", "undo-wait"]
    await assert_cancelled(workshop, owner, job_id)


async def test_what_cannot_be_undone_is_said_and_can_be_gone_on_with(workshop: Workshop) -> None:
    """Undoing stops at the fault, so that a retry finds every finished step before the unfinished ones."""
    service = workshop.worker(
        {
            "create_site": [
                step("make", undo="true"),
                step("stick", undo="echo stuck; exit 1"),
                step("wait", "test -e $D/go || sleep 30", undo="true"),
            ]
        }
    )
    owner = await workshop.owner()
    job_id = await workshop.queue(service, owner)
    running = asyncio.create_task(service.run(job_id))
    await workshop.until_traced(owner, "wait")
    await workshop.cancel(service, owner, job_id)
    await running

    job = await workshop.job(job_id)
    assert job.state is JobState.FAILED
    assert job.error == (
        "Cancelled by user, but not everything could be undone. Undo: Title of stick: exit code 1: stuck"
    )
    assert workshop.trace(owner)[-4:] == ["undo-wait", *["undo-stick"] * 3]
    [told] = await workshop.notifications(owner)
    assert told.message == job.error

    Path(workshop.folder, "data", "go").touch()
    await workshop.retry(service, owner, job_id)
    await service.run(job_id)
    assert workshop.trace(owner)[-1:] == ["wait"]
    assert (await workshop.job(job_id)).state is JobState.SUCCEEDED
