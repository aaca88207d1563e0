"""What steps tell while they run: progress, log lines, and nothing that concerns the host."""

from dataclasses import replace
from datetime import timedelta

from models.provisioning import JobType
from tests.services.provisioning.support import QUICK, Workshop, step


async def test_progress_within_a_step_is_the_commands_own(workshop: Workshop) -> None:
    """It rises with what the command states, at most as often as the timing allows, and never reaches 100 early."""
    ticks = "; ".join(f"echo ::progress {percent}; sleep 0.01" for percent in range(0, 101, 2))
    service = workshop.worker(
        {"create_site": [step("long", ticks, weight=9), step("last", "exit 1", max_attempts=1)]},
        timing=replace(QUICK, flush_s=0.3),
    )
    owner = await workshop.owner()
    job_id = await workshop.queue(service, owner)

    await service.run(job_id)

    updates = [event.payload for event in await workshop.events(owner) if event.name == "status:update"]
    within = [body["progress"] for body in updates if body["message"] == "Title of long"]
    assert within[:-1] == sorted(set(within[:-1])), "only a rise is told"
    assert within[0] == 0
    assert within[-1] == 90
    [long, _] = await workshop.steps(job_id)
    assert long.finished_at is not None
    assert long.started_at is not None
    took_s = (long.finished_at - long.started_at).total_seconds()
    assert 1 <= len(within[1:-1]) <= took_s / 0.3 + 1, "of fifty statements no more are told than one every 0.3 s"
    assert all(0 < value <= 90 for value in within[1:-1])
    assert (await workshop.job(job_id)).progress == 90


async def test_every_line_of_a_flood_is_kept_in_order(workshop: Workshop) -> None:
    flood = "i=0; while test $i -lt 500; do i=$((i+1)); echo line $i; done"
    service = workshop.worker({"create_site": [step("flood", flood)]})
    owner = await workshop.owner()
    job_id = await workshop.queue(service, owner)

    await service.run(job_id)

    assert [line.text for line in await workshop.log(job_id)] == [f"line {number}" for number in range(1, 501)]
    shown = (await workshop.show(service, owner, job_id)).metadata.log
    assert [line.text for line in shown] == [f"line {number}" for number in range(301, 501)]


async def test_what_is_shown_tells_nothing_of_the_host(workshop: Workshop) -> None:
    words = (
        "cannot open $D/sites/{site_name}/x.json with postgresql://root:pw@db.internal/acme from /usr/lib/erp/run.py"
    )
    service = workshop.worker(
        {"create_site": [step("leak", f'echo "::output file={{data_dir}}/secret/x"; echo "{words}" >&2; exit 1')]}
        | {
            "backup_site": [
                step(
                    "save", "echo '::output path={data_dir}/backups/{site_name}/b.tar'", prints=["path"], max_attempts=1
                )
            ]
        }
    )
    owner = await workshop.owner()
    job_id = await workshop.queue(service, owner)
    for _ in range(3):
        await service.run(job_id)
        workshop.clock.offset += timedelta(seconds=1)

    site = f"{owner.tenant.slug}.example.test"
    said = f"cannot open {site}/x.json with [address] from [path]"
    job = await workshop.job(job_id)
    assert job.error == f"Title of leak: exit code 1: {said}"
    assert said in [line.text for line in await workshop.log(job_id)]
    everything = repr([event.payload for event in await workshop.events(owner)])
    everything += repr([row.message for row in await workshop.notifications(owner)])
    everything += repr(await workshop.show(service, owner, job_id))
    assert str(workshop.folder) not in everything
    assert "postgresql://" not in everything

    backup = await workshop.queue(service, owner, JobType.BACKUP_SITE)
    await service.run(backup)
    assert (await workshop.show(service, owner, backup)).result == {"path": f"{site}/b.tar"}
