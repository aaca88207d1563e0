"""Workers that stop, die or lose touch: the job goes on elsewhere, at the step where it was, and nobody spoils it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

from models.provisioning import MAX_INTERRUPTIONS, JobState, StepState
from services.unit_of_work import RequestTrace, Scope, UnitOfWork, UnitOfWorkFactory
from tests.services.provisioning.support import HARDLY_HEARD, INTERRUPTED, QUICK, Workshop, begin, step


async def test_a_job_whose_worker_is_not_heard_of_goes_on_elsewhere(workshop: Workshop) -> None:
    """The successor waits for nothing; the other one, alive after all, ends its command and writes no more."""
    here, there = workshop.worker(INTERRUPTED, timing=HARDLY_HEARD), workshop.worker(INTERRUPTED)
    begun = await begin(workshop, here)
    await there.run(begun.job_id)
    assert workshop.trace(begun.owner) == ["first", "middle", "busy"], "the lease still holds"

    await workshop.lose_lease(begun.job_id)
    async with asyncio.timeout(8):
        await there.run(begun.job_id)
        await begun.running

    assert workshop.trace(begun.owner) == ["first", "middle", "busy", "middle", "last"]
    job = await workshop.job(begun.job_id)
    assert (job.state, job.attempt, job.interruptions, job.fence) == (JobState.SUCCEEDED, 2, 1, 2)
    assert [item.attempts for item in await workshop.steps(begun.job_id)] == [1, 2, 1]
    completed = [event for event in await workshop.events(begun.owner) if event.name == "status:completed"]
    assert len(completed) == 1
    assert len(await workshop.notifications(begun.owner)) == 1


async def test_a_living_worker_keeps_its_lease(workshop: Workshop) -> None:
    timing = replace(QUICK, lease=timedelta(seconds=1), heartbeat_s=0.2)
    jobs = {"create_site": [step("long", "sleep 2.5")]}
    here, there = (workshop.worker(jobs, timing=timing) for _ in range(2))
    owner = await workshop.owner()
    job_id = await workshop.queue(here, owner)
    running = asyncio.create_task(here.run(job_id))
    await workshop.until_traced(owner, "long")

    while not running.done():
        await there.run(job_id)
        await asyncio.sleep(0.1)

    assert workshop.trace(owner) == ["long"]
    assert (await workshop.job(job_id)).attempt == 1


async def test_a_job_that_costs_every_worker_its_life_is_given_up(workshop: Workshop) -> None:
    service = workshop.worker({"create_site": [step("deadly")]})
    owner = await workshop.owner()
    job_id = await workshop.queue(service, owner)
    lost = workshop.clock.now() - timedelta(seconds=1)
    last_chance = MAX_INTERRUPTIONS - 1
    await workshop.change_job(job_id, state=JobState.RUNNING, lease_until=lost, interruptions=last_chance)

    await service.run(job_id)

    job = await workshop.job(job_id)
    assert (job.state, job.error) == (JobState.FAILED, "Gave up: the work was interrupted 5 times")
    assert workshop.trace(owner) == []
    [told] = await workshop.notifications(owner)
    assert told.message == job.error
    await workshop.retry(service, owner, job_id)
    await service.run(job_id)
    assert (await workshop.job(job_id)).state is JobState.SUCCEEDED, "a retry starts counting anew"


async def test_a_worker_that_stops_hands_its_jobs_over_at_once(workshop: Workshop) -> None:
    here, there = workshop.worker(INTERRUPTED), workshop.worker(INTERRUPTED)
    begun = await begin(workshop, here)

    async with asyncio.timeout(5):
        await here.stop()
    assert begun.running.done()
    job = await workshop.job(begun.job_id)
    assert (job.state, job.lease_until) == (JobState.RETRYING, None)
    assert (await workshop.show(here, begun.owner, begun.job_id)).status == "running"
    assert [(item.state, item.error) for item in await workshop.steps(begun.job_id)][1] == (
        StepState.FAILED,
        "Interrupted",
    )
    assert workshop.rung(begun.job_id) == 2
    await here.run(begun.job_id)
    assert workshop.trace(begun.owner) == ["first", "middle", "busy"], "a worker that has stopped takes up nothing"

    await there.run(begun.job_id)

    assert workshop.trace(begun.owner) == ["first", "middle", "busy", "middle", "last"]
    job = await workshop.job(begun.job_id)
    assert (job.state, job.attempt, job.interruptions) == (JobState.SUCCEEDED, 2, 0)


async def test_a_worker_that_stops_while_undoing_hands_that_over_too(workshop: Workshop) -> None:
    undo = "test -e $D/undoing || (touch $D/undoing; echo busy >> $T; sleep 30)"
    jobs = {"create_site": [step("make", undo="true"), step("wait", "sleep 30", undo=undo)]}
    here, there = workshop.worker(jobs), workshop.worker(jobs)
    owner = await workshop.owner()
    job_id = await workshop.queue(here, owner)
    running = asyncio.create_task(here.run(job_id))
    await workshop.until_traced(owner, "wait")
    await workshop.cancel(here, owner, job_id)
    await workshop.until_traced(owner, "busy")

    async with asyncio.timeout(5):
        await here.stop()
        await running
    await there.run(job_id)

    assert workshop.trace(owner) == ["make", "wait", "undo-wait", "busy", "undo-wait", "undo-make"]
    assert (await workshop.job(job_id)).state is JobState.CANCELLED


async def test_a_stop_that_comes_while_a_job_is_being_claimed_leaves_it_to_others(workshop: Workshop) -> None:
    service = workshop.worker({"create_site": [step("make", "sleep 5")]})
    owner = await workshop.owner()
    job_id = await workshop.queue(service, owner)
    running = asyncio.create_task(service.run(job_id))
    await asyncio.sleep(0)

    async with asyncio.timeout(4):
        await service.stop()
        await running

    assert (await workshop.job(job_id)).state is JobState.RETRYING
    assert workshop.trace(owner) == []


async def test_a_cancelled_call_leaves_no_command_behind(workshop: Workshop) -> None:
    """An event loop that is torn down cancels what runs; the job must still be handed over."""
    service = workshop.worker(INTERRUPTED)
    begun = await begin(workshop, service)

    begun.running.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait({begun.running})

    assert begun.running.cancelled()
    assert (await workshop.job(begun.job_id)).state is JobState.RETRYING
    await service.run(begun.job_id)
    assert workshop.trace(begun.owner) == ["first", "middle", "busy", "middle", "last"]


async def test_a_job_cancelled_while_nobody_had_it_is_undone_by_whoever_takes_it(workshop: Workshop) -> None:
    here, there = workshop.worker(INTERRUPTED), workshop.worker(INTERRUPTED)
    begun = await begin(workshop, here)
    await here.stop()
    await workshop.cancel(there, begun.owner, begun.job_id)

    await there.run(begun.job_id)

    assert workshop.trace(begun.owner) == ["first", "middle", "busy", "undo-middle"]
    assert (await workshop.job(begun.job_id)).state is JobState.CANCELLED


class FlakyUnits(UnitOfWorkFactory):
    """Units of work on a database that can be away, hang, or be slow to say that it has committed."""

    def __init__(self, sound: UnitOfWorkFactory) -> None:
        self._sound = sound
        self.away = False
        self.hanging = False
        self.slow_s = 0.0
        self.refused = 0

    @asynccontextmanager
    async def __call__(self, scope: Scope, *, trace: RequestTrace | None = None) -> AsyncIterator[UnitOfWork]:
        if self.away:
            self.refused += 1
            raise ConnectionRefusedError("the database is away")
        while self.hanging:
            await asyncio.sleep(0.05)
        async with self._sound(scope, trace=trace) as uow:
            yield uow
        await asyncio.sleep(self.slow_s)


async def test_a_short_outage_of_the_database_costs_nothing(workshop: Workshop) -> None:
    """What the step printed meanwhile is written when the database is back."""
    talk = "; ".join(f"echo line {number}; sleep 0.05" for number in range(20))
    units = FlakyUnits(workshop.units)
    service = workshop.worker({"create_site": [step("talk", f"{talk}; sleep 0.5")]}, units=units)
    owner = await workshop.owner()
    job_id = await workshop.queue(service, owner)
    running = asyncio.create_task(service.run(job_id))
    await workshop.until_traced(owner, "talk")

    units.away = True
    await asyncio.sleep(0.6)
    units.away = False
    await running

    assert units.refused >= 3, "heartbeats and reports were refused"
    assert (await workshop.job(job_id)).state is JobState.SUCCEEDED
    assert [line.text for line in await workshop.log(job_id)] == [f"line {number}" for number in range(20)]


async def test_a_long_outage_ends_the_command_before_the_lease_does(workshop: Workshop) -> None:
    """A worker that cannot say that it lives must not work on when others may take the job for theirs."""
    timing = replace(QUICK, lease=timedelta(seconds=1.0), heartbeat_s=0.2, poll_s=0.05)
    units = FlakyUnits(workshop.units)
    here = workshop.worker(INTERRUPTED, timing=timing, units=units)
    begun = await begin(workshop, here)

    units.away = True
    began_at = asyncio.get_running_loop().time()
    await begun.running
    assert asyncio.get_running_loop().time() - began_at < 1.5
    assert (await workshop.job(begun.job_id)).state is JobState.RUNNING, "nothing could be written"

    await workshop.lose_lease(begun.job_id)
    await workshop.worker(INTERRUPTED).run(begun.job_id)
    assert workshop.trace(begun.owner) == ["first", "middle", "busy", "middle", "last"]


async def test_a_connection_that_hangs_is_not_waited_for(workshop: Workshop) -> None:
    timing = replace(QUICK, lease=timedelta(seconds=1.0), heartbeat_s=0.2, poll_s=0.05)
    units = FlakyUnits(workshop.units)
    begun = await begin(workshop, workshop.worker(INTERRUPTED, timing=timing, units=units))

    units.hanging = True
    began_at = asyncio.get_running_loop().time()
    await begun.running
    took_s = asyncio.get_running_loop().time() - began_at
    units.hanging = False

    assert took_s < 1.5
    assert (await workshop.job(begun.job_id)).state is JobState.RUNNING
    await asyncio.sleep(0.2)
    assert workshop.trace(begun.owner) == ["first", "middle", "busy"]


async def test_a_stop_between_the_decision_and_the_command_starts_nothing(workshop: Workshop) -> None:
    units = FlakyUnits(workshop.units)
    units.slow_s = 0.5
    service = workshop.worker({"create_site": [step("make", "sleep 5")]}, units=units)
    owner = await workshop.owner()
    job_id = await workshop.queue(service, owner)
    running = asyncio.create_task(service.run(job_id))
    async with asyncio.timeout(5):
        while (await workshop.steps(job_id))[0].state is not StepState.RUNNING:
            await asyncio.sleep(0.02)

    async with asyncio.timeout(4):
        await asyncio.gather(service.stop(), service.stop())
        await running

    assert workshop.trace(owner) == []
    assert (await workshop.job(job_id)).state is JobState.RETRYING


async def test_a_command_is_ended_as_soon_as_its_words_find_no_owner(workshop: Workshop) -> None:
    """Its worker looks at the row once a minute only, but what the command prints must be written."""
    talk = "test -e $D/again || (touch $D/again; echo busy >> $T; while sleep 0.05; do echo still here; done)"
    jobs = {"create_site": [step("talk", talk)]}
    here, there = workshop.worker(jobs, timing=replace(QUICK, poll_s=60)), workshop.worker(jobs)
    owner = await workshop.owner()
    job_id = await workshop.queue(here, owner)
    running = asyncio.create_task(here.run(job_id))
    await workshop.until_traced(owner, "busy")

    await workshop.lose_lease(job_id)
    async with asyncio.timeout(8):
        await there.run(job_id)
        await running

    assert workshop.trace(owner) == ["talk", "busy", "talk"]
    assert (await workshop.job(job_id)).state is JobState.SUCCEEDED


async def test_a_step_that_ends_after_the_lease_counts_for_nothing(workshop: Workshop) -> None:
    """The successor waits for the command, which holds the site, and then runs the step itself."""
    wait = "echo busy >> $T; while ! test -e $D/go; do sleep 0.05; done"
    jobs = {"create_site": [step("wait", wait), step("last")]}
    here, there = workshop.worker(jobs, timing=replace(QUICK, poll_s=60)), workshop.worker(jobs)
    owner = await workshop.owner()
    job_id = await workshop.queue(here, owner)
    running = asyncio.create_task(here.run(job_id))
    await workshop.until_traced(owner, "busy")

    await workshop.lose_lease(job_id)
    succeeding = asyncio.create_task(there.run(job_id))
    async with asyncio.timeout(5):
        while (await workshop.job(job_id)).fence < 2:
            await asyncio.sleep(0.02)
    (workshop.folder / "data" / "go").touch()
    async with asyncio.timeout(8):
        await asyncio.gather(running, succeeding)

    assert workshop.trace(owner) == ["wait", "busy", "wait", "busy", "last"]
    assert [item.attempts for item in await workshop.steps(job_id)] == [2, 1]
    assert (await workshop.job(job_id)).state is JobState.SUCCEEDED


async def test_an_outage_between_two_steps_leaves_the_job_to_the_sweep(workshop: Workshop) -> None:
    units = FlakyUnits(workshop.units)
    service = workshop.worker({"create_site": [step("make", "sleep 0.2")]}, units=units)
    owner = await workshop.owner()
    job_id = await workshop.queue(service, owner)
    running = asyncio.create_task(service.run(job_id))
    await workshop.until_traced(owner, "make")
    units.away = True
    [result] = await asyncio.gather(running, return_exceptions=True)
    units.away = False

    assert isinstance(result, ConnectionRefusedError)
    assert (await workshop.job(job_id)).state is JobState.RUNNING
    await workshop.lose_lease(job_id)
    assert await service.sweep() >= 1
    await service.run(job_id)
    assert (await workshop.job(job_id)).state is JobState.SUCCEEDED
