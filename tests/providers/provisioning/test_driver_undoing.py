"""Undoing a job removes what the job made, and nothing else."""

from collections.abc import Mapping
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from providers.provisioning.contract import StepFailed, StepTimedOut
from providers.provisioning.driver import RecipeDriver
from tests.providers.provisioning.support import (
    Report,
    driver_for,
    make_target,
    one_step,
    run_step,
)


def claiming_job(*, first: Mapping[str, object], **second: object) -> dict[str, object]:
    """Return a create_site job that claims `data/made` and removes it again when it is undone."""
    return {
        "create_site": {
            "claims": "{data_dir}/made",
            "steps": [
                {
                    "name": "make",
                    "title": "Make",
                    "timeout_s": 10,
                    "argv": ["mkdir", "{data_dir}/made"],
                    "compensate": {
                        "timeout_s": 10,
                        "argv": ["rm", "-r", "{data_dir}/made"],
                        "only_if_exists": "{data_dir}/made",
                    },
                    **first,
                },
                {"name": "last", "title": "Last", "timeout_s": 10, "argv": ["true"], **second},
            ],
        }
    }


async def undo(
    driver: RecipeDriver, job_id: UUID, *, step: str = "make", report: Report | None = None, site_name: str = "one.test"
) -> None:
    await driver.compensate(
        "create_site", step, make_target(site_name=site_name), job_id=job_id, outputs={}, report=report or Report()
    )


async def make(driver: RecipeDriver, job_id: UUID, *, step: str = "make", attempt: int = 1) -> None:
    await run_step(driver, step, target=make_target(site_name="one.test"), job_id=job_id, attempt=attempt)


async def test_what_the_job_made_is_removed(tmp_path: Path) -> None:
    driver, job_id, made = driver_for(claiming_job(first={}), tmp_path), uuid4(), tmp_path / "data" / "made"
    await make(driver, job_id)
    assert made.exists()
    await undo(driver, job_id)
    assert not made.exists()
    await undo(driver, job_id)


async def test_what_existed_before_is_not_removed(tmp_path: Path) -> None:
    driver, made = driver_for(claiming_job(first={"argv": ["true"]}), tmp_path), tmp_path / "data" / "made"
    made.mkdir(parents=True)
    job_id, report = uuid4(), Report()
    await make(driver, job_id)
    await undo(driver, job_id, report=report)
    assert made.exists()
    assert "did not make the site" in report.text


async def test_what_has_gone_live_is_not_removed(tmp_path: Path) -> None:
    driver, made = driver_for(claiming_job(first={}), tmp_path), tmp_path / "data" / "made"
    job_id = uuid4()
    await make(driver, job_id)
    await make(driver, job_id, step="last")
    await undo(driver, job_id)
    assert made.exists()


async def test_another_job_cannot_undo_it(tmp_path: Path) -> None:
    driver, made = driver_for(claiming_job(first={}), tmp_path), tmp_path / "data" / "made"
    await make(driver, uuid4())
    await undo(driver, uuid4())
    assert made.exists()


async def test_half_made_site_of_a_failed_job_is_taken_over(tmp_path: Path) -> None:
    first = {"argv": ["mkdir", "{data_dir}/made"], "retry_argv": ["touch", "{data_dir}/made/again"]}
    driver, made = driver_for(claiming_job(first=first), tmp_path), tmp_path / "data" / "made"
    await make(driver, uuid4())
    second = uuid4()
    await make(driver, second)
    assert (made / "again").exists()
    await undo(driver, second)
    assert not made.exists()


async def test_starting_over_needs_the_claim(tmp_path: Path) -> None:
    first = {"argv": ["true"], "retry_argv": ["rm", "-r", "{data_dir}/made"]}
    driver, made = driver_for(claiming_job(first=first), tmp_path), tmp_path / "data" / "made"
    made.mkdir(parents=True)
    await make(driver, uuid4(), attempt=2)
    assert made.exists()


async def test_another_attempt_starts_over(tmp_path: Path) -> None:
    first = {
        "argv": ["sh", "-c", "mkdir $0; exit 1", "{data_dir}/made"],
        "unless": ["true"],
        "retry_argv": ["touch", "{data_dir}/made/again"],
    }
    driver = driver_for(claiming_job(first={**first, "unless": ["false"]}), tmp_path)
    job_id = uuid4()
    with pytest.raises(StepFailed):
        await make(driver, job_id)
    driver = driver_for(claiming_job(first=first), tmp_path)
    await make(driver, job_id, attempt=2)
    assert (tmp_path / "data" / "made" / "again").exists()


async def test_failing_compensation_is_told(tmp_path: Path) -> None:
    jobs = one_step("true", compensate={"timeout_s": 5, "argv": ["sh", "-c", "echo no >&2; exit 1"]})
    with pytest.raises(StepFailed, match="Undo: Only: exit code 1: no"):
        await undo(driver_for(jobs, tmp_path), uuid4(), step="only")


async def test_refused_compensation_is_no_matter_of_attempts(tmp_path: Path) -> None:
    undoing = {"timeout_s": 5, "argv": ["sh", "-c", "exit 65"]}
    jobs = one_step("true", permanent_exit_codes=[65], compensate=undoing)
    with pytest.raises(StepFailed) as failure:
        await undo(driver_for(jobs, tmp_path), uuid4(), step="only")
    assert not failure.value.retryable


async def test_compensation_has_its_own_timeout(tmp_path: Path) -> None:
    jobs = one_step("true", compensate={"timeout_s": 0.3, "argv": ["sleep", "300"]})
    with pytest.raises(StepTimedOut):
        await undo(driver_for(jobs, tmp_path), uuid4(), step="only")


async def test_step_without_compensation_is_left_alone(tmp_path: Path) -> None:
    await undo(driver_for(one_step("true"), tmp_path), uuid4(), step="only")


async def test_undone_site_keeps_no_secret_for_the_next_of_its_name(tmp_path: Path) -> None:
    driver = driver_for(claiming_job(first={}), tmp_path, secrets=["admin_password"])
    job_id = uuid4()
    await make(driver, job_id)
    [secret] = (tmp_path / "data").rglob("admin_password")
    before = secret.read_text()
    await undo(driver, job_id)
    assert not secret.exists()
    await make(driver, uuid4())
    assert secret.read_text() != before
