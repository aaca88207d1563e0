"""Crashes of real processes: what was accepted is finished, and what was committed is heard."""

import asyncio
import sys
from pathlib import Path

import pytest
from aiohttp import ClientError, ClientSession

from tests.support.listeners import Listener
from tests.support.people import company_factory, request
from tests.support.processes import Fleet

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SLOW_RECIPE = str(Path(__file__).with_name("slow_recipe.yml"))
CRASHING_WEB = str(Path(__file__).with_name("crashing_web.py"))


async def test_a_worker_killed_in_a_step_loses_no_job(cluster: Fleet, http: ClientSession, tmp_path: Path) -> None:
    """The job goes on at the step that was killed, on another worker; finished steps are not run again."""
    web = await cluster.run("serve", "--migrate", "--seed", PROVISIONING_RECIPE=SLOW_RECIPE)
    await web.ready()
    await cluster.run("scheduler", PROVISIONING_RECIPE=SLOW_RECIPE)
    first = await cluster.run("worker", PROVISIONING_RECIPE=SLOW_RECIPE)
    owner = await company_factory(http, web.url)()
    listener = await Listener().connect(web.url, owner.token, "/provisioning")
    slug = owner.registration["current_tenant"]["slug"]
    runs = tmp_path / "data" / f"runs-{slug}"

    await listener.until(lambda: runs.exists() and "slow" in runs.read_text(), 30)
    first.kill()
    await cluster.run("worker", PROVISIONING_RECIPE=SLOW_RECIPE)
    await listener.until(lambda: listener.of("status:completed"), 90)

    assert runs.read_text().split() == ["first", "slow", "slow", "last"]
    _, jobs = await owner.get("provisioning/jobs")
    assert [(job["status"], job["state"], job["progress"]) for job in jobs["data"]] == [("completed", "succeeded", 100)]
    numbers = [seq for seq, _ in listener.logged("/provisioning")]
    assert numbers == sorted(set(numbers)), "in order, each once, across the crash"
    await listener.close()


async def test_a_web_process_killed_between_commit_and_bell_loses_no_event(
    cluster: Fleet, http: ClientSession, tmp_path: Path
) -> None:
    """The log is the truth: the other instance finds the event by its head check."""
    crash_when = tmp_path / "crash-now"
    witness = await cluster.run("serve", "--migrate", "--seed")
    await witness.ready()
    victim = await cluster.run(program=(sys.executable, CRASHING_WEB), CRASH_WHEN=str(crash_when))
    await victim.ready()
    owner = await company_factory(http, witness.url)()
    listener = await Listener().connect(witness.url, owner.token, "/provisioning")
    before = len(listener.logged("/provisioning"))

    crash_when.touch()
    asked = {"json": {"job_type": "backup_site"}, "headers": {"Authorization": f"Bearer {owner.token}"}}
    with pytest.raises(ClientError):
        await request(http, "POST", f"{victim.url}/api/v1/provisioning/jobs", **asked)
    assert await victim.ended() == -9
    await listener.until(lambda: len(listener.logged("/provisioning")) > before, 5)

    _, jobs = await owner.get("provisioning/jobs")
    assert "backup_site" in [job["job_type"] for job in jobs["data"]], "it was committed before the crash"
    heard = [body["job_type"] for body in listener.of("status:update")]
    assert heard.count("backup_site") == 1
    await asyncio.sleep(1.5)
    assert [body["job_type"] for body in listener.of("status:update")].count("backup_site") == 1
    await listener.close()
