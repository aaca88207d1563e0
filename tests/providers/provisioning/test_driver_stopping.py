"""Timeouts, cancellation, a killed worker: nothing of a command stays behind, and sites do not mix."""

import asyncio
import sys
from pathlib import Path

import pytest

from providers.provisioning.contract import StepTimedOut
from tests.providers.provisioning.support import (
    PROJECT_DIR,
    Report,
    driver_for,
    is_alive,
    kill,
    make_target,
    one_step,
    run_step,
    wait_until,
)


async def test_timeout_ends_the_whole_group(tmp_path: Path) -> None:
    report = Report()
    jobs = one_step("sh", "-c", "echo $$; sleep 60 & echo $!; wait", timeout_s=0.5)
    with pytest.raises(StepTimedOut, match=r"not finished within 0\.5 s") as failure:
        await run_step(driver_for(jobs, tmp_path), report=report)
    assert failure.value.retryable
    assert not any(is_alive(int(text)) for _, text in report.lines)


async def test_check_counts_against_the_timeout(tmp_path: Path) -> None:
    with pytest.raises(StepTimedOut):
        await run_step(driver_for(one_step("true", unless=["sleep", "60"], timeout_s=0.3), tmp_path))


async def test_timeout_of_the_report_is_not_the_steps(tmp_path: Path) -> None:
    class SlowReport(Report):
        async def line(self, stream: str, text: str) -> None:
            raise TimeoutError("the database did not answer")

    with pytest.raises(TimeoutError, match="did not answer"):
        await run_step(driver_for(one_step("echo", "x"), tmp_path), report=SlowReport())


async def test_cancellation_ends_the_whole_group_and_frees_the_site(tmp_path: Path) -> None:
    report, target = Report(), make_target()
    jobs = one_step("sh", "-c", "echo $$; sleep 60 & echo $!; wait")
    driver = driver_for(jobs, tmp_path)
    task = asyncio.create_task(run_step(driver, target=target, report=report))
    await asyncio.to_thread(wait_until, lambda: len(report.lines) == 2)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not any(is_alive(int(text)) for _, text in report.lines)
    await asyncio.wait_for(run_step(driver_for(one_step("true"), tmp_path), target=target), 5)


async def test_one_site_is_worked_on_by_one_command_at_a_time(tmp_path: Path) -> None:
    log = tmp_path / "log"
    jobs = one_step("sh", "-c", f"echo begin >> {log}; sleep 0.3; echo end >> {log}")
    driver, target, report = driver_for(jobs, tmp_path), make_target(), Report()
    await asyncio.gather(*(run_step(driver, target=target, report=report) for _ in range(3)))
    assert log.read_text().split() == ["begin", "end"] * 3
    assert "waiting for an earlier command" in report.text


async def test_other_sites_do_not_wait(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    wait_for_the_other = "echo x >> $0; until [ $(wc -l < $0) = 2 ]; do sleep 0.02; done"
    driver = driver_for(one_step("sh", "-c", wait_for_the_other, str(ready)), tmp_path)
    await asyncio.gather(run_step(driver), run_step(driver))


WORKER = """
import asyncio, os, sys
from pathlib import Path
from providers.provisioning.driver import RecipeDriver
from providers.provisioning.recipe import load_recipe
from tests.providers.provisioning.support import make_target, run_step

folder = Path(sys.argv[1])
recipe = load_recipe(folder / "recipe.yml")
driver = RecipeDriver(recipe, data_dir=folder / "data", environment=dict(os.environ))
asyncio.run(run_step(driver, target=make_target(site_name=sys.argv[2])))
"""


async def test_orphan_of_a_killed_worker_is_ended_before_the_step_is_resumed(tmp_path: Path) -> None:
    """kill -9 of the worker in the middle of a step leaves its command running, with nobody to end it."""
    pid_file = tmp_path / "pid"
    script = f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; sleep 60"
    driver_for(one_step("sh", "-c", script), tmp_path)  # Writes the recipe that the worker loads.
    target = make_target()
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, str(tmp_path), target.site_name, cwd=PROJECT_DIR
    )
    lock = tmp_path / "data" / "provisioning" / target.site_name / "lock"
    try:
        # Killed before it has noted whom it started, the worker leaves a command that is waited for to its end.
        await asyncio.to_thread(wait_until, lambda: pid_file.exists() and lock.read_bytes() != b"")
    finally:
        kill(worker.pid)
        await worker.wait()
    orphan = int(pid_file.read_text())
    assert is_alive(orphan)
    report = Report()

    resumed = driver_for(one_step("echo", "resumed"), tmp_path)
    await asyncio.wait_for(run_step(resumed, target=target, attempt=2, report=report), 15)

    assert not is_alive(orphan)
    assert report.lines[-1] == ("stdout", "resumed")


async def test_command_of_a_living_worker_is_not_ended(tmp_path: Path) -> None:
    report, target = Report(), make_target()
    slow = driver_for(one_step("sh", "-c", "sleep 1; echo done"), tmp_path)
    task = asyncio.create_task(run_step(slow, target=target, report=report))
    await asyncio.sleep(0.3)
    with pytest.raises(StepTimedOut):
        await run_step(driver_for(one_step("true", timeout_s=0.3), tmp_path), target=target)
    await task
    assert report.text == "done"
