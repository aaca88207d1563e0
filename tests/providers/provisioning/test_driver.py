"""The recipe driver: what commands get, what comes of them, and what is left when they are stopped."""

import json
import os
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from providers.provisioning.contract import StepFailed, StepPlan, UnknownStep
from providers.provisioning.output import MASK, OutputLimits
from providers.provisioning.recipe import RecipeError
from tests.providers.provisioning.support import (
    Report,
    driver_for,
    make_target,
    one_step,
    run_job,
    run_step,
    text_of,
)

ECHO = [sys.executable, "-c", "import json, sys; print(json.dumps(sys.argv[1:]))"]


def test_plan_is_what_the_recipe_says(tmp_path: Path) -> None:
    driver = driver_for(one_step("true", weight=7, max_attempts=2, timeout_s=3), tmp_path)
    assert driver.plan("create_site") == (
        StepPlan(name="only", title="Only", weight=7, max_attempts=2, timeout_s=3, compensates=False),
    )


async def test_unknown_jobs_and_steps_are_refused(tmp_path: Path) -> None:
    driver = driver_for(one_step("true"), tmp_path)
    with pytest.raises(UnknownStep):
        driver.plan("delete_site")
    with pytest.raises(UnknownStep):
        await run_step(driver, "other")
    with pytest.raises(UnknownStep):
        await driver.compensate("create_site", "other", make_target(), job_id=uuid4(), outputs={}, report=Report())


async def test_arguments_arrive_whole_and_unread_by_any_shell(tmp_path: Path) -> None:
    argv = [*ECHO, "$HOME; `id` *", "{site_name}", "--limits={limits}", "{{x}}", "{job_id}", ""]
    driver = driver_for(one_step(*argv), tmp_path)
    target, job_id, report = make_target(limits={"users": 5}), uuid4(), Report()
    await run_step(driver, target=target, job_id=job_id, report=report)
    assert json.loads(report.text) == [
        "$HOME; `id` *",
        target.site_name,
        '--limits={"users":5}',
        "{x}",
        str(job_id),
        "",
    ]


async def test_commands_see_only_the_listed_environment(tmp_path: Path) -> None:
    script = "import json, os; print(json.dumps(dict(os.environ)))"
    driver = driver_for(
        one_step(sys.executable, "-c", script),
        tmp_path,
        environment_entries={"SEEN": {}, "FIXED": {"value": "f"}, "OTHER": {"default": "d"}, "KEPT": {"export": False}},
        environment={"SEEN": "s", "KEPT": "k", "UNLISTED": "u", "FIXED": "not this"},
    )
    report = Report()
    await run_step(driver, report=report)
    seen = json.loads(report.text)
    seen.pop("LC_CTYPE", None)  # Python sets it for itself.
    assert seen == {"PATH": os.environ["PATH"], "SEEN": "s", "FIXED": "f", "OTHER": "d"}


def test_missing_environment_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="TOKEN, URL"):
        driver_for(one_step("true"), tmp_path, environment_entries={"TOKEN": {"secret": True}, "URL": {}})


async def test_secrets_never_show(tmp_path: Path) -> None:
    script = (
        "import sys; print('got', *sys.argv[1:]); print(sys.argv[1], file=sys.stderr); "
        "print('::output url=' + sys.argv[1]); sys.exit(int(sys.argv[3]))"
    )
    argv = [sys.executable, "-c", script, "{env.TOKEN}", "{secret.admin_password}"]
    for code in ("0", "1"):
        driver = driver_for(
            one_step(*argv, code, prints=["url"]),
            tmp_path,
            environment_entries={"TOKEN": {"secret": True}},
            environment={"TOKEN": "tok-12345"},
            secrets=["admin_password"],
        )
        report, said = Report(), ""
        try:
            said = str(await run_step(driver, report=report))
        except StepFailed as failure:
            said = failure.message
        assert MASK in report.text
        assert "tok-12345" not in report.text + said
        assert f"got {MASK} {MASK} {code}" in report.text


async def test_generated_secret_is_kept_and_private(tmp_path: Path) -> None:
    jobs = one_step(
        "sh", "-c", 'printf %s "$0" | wc -c', "{secret.admin_password}", sets={"file": "{secret_file.admin_password}"}
    )
    driver = driver_for(jobs, tmp_path, secrets=["admin_password"])
    target, report = make_target(), Report()
    first = await run_step(driver, target=target, report=report)
    text = text_of(first["file"])
    assert report.text.strip() == str(len(text)) == "48"
    await run_step(driver, target=target)
    assert text_of(first["file"]) == text
    await run_step(driver)
    kept = list((tmp_path / "data").rglob("admin_password"))
    assert len({path.read_text() for path in kept}) == 2
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept)


async def test_outputs_are_printed_or_set_and_reach_later_steps(tmp_path: Path) -> None:
    jobs = {
        "create_site": {
            "steps": [
                {
                    "name": "one",
                    "title": "One",
                    "timeout_s": 5,
                    "argv": ["echo", "::output a=1"],
                    "prints": ["a"],
                    "sets": {"b": "{site_name}/{output.a}"},
                },
                {"name": "two", "title": "Two", "timeout_s": 5, "argv": ["echo", "{output.a} {output.b}"]},
            ]
        }
    }
    target, report = make_target(), Report()
    outputs = await run_job(driver_for(jobs, tmp_path), "create_site", target, report=report)
    assert outputs == {"a": "1", "b": f"{target.site_name}/1"}
    assert report.text == f"1 {target.site_name}/1"


async def test_output_that_was_promised_and_not_printed_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="did not state a") as failure:
        await run_step(driver_for(one_step("echo", "::output b=1", prints=["a"]), tmp_path))
    assert not failure.value.retryable


async def test_output_that_the_journal_lost_is_a_failure(tmp_path: Path) -> None:
    jobs = {
        "create_site": {
            "steps": [
                {"name": "one", "title": "One", "timeout_s": 5, "argv": ["true"], "sets": {"a": "x"}},
                {"name": "two", "title": "Two", "timeout_s": 5, "argv": ["echo", "{output.a}"]},
            ]
        }
    }
    with pytest.raises(StepFailed, match=r"no value for \{output.a\}"):
        await run_step(driver_for(jobs, tmp_path), "two")


async def test_output_cannot_become_an_option(tmp_path: Path) -> None:
    jobs = {
        "create_site": {
            "steps": [
                {"name": "one", "title": "One", "timeout_s": 5, "argv": ["true"], "sets": {"a": "x"}},
                {"name": "two", "title": "Two", "timeout_s": 5, "argv": ["echo", "{output.a}"]},
            ]
        }
    }
    with pytest.raises(StepFailed, match="like an option") as failure:
        await run_step(driver_for(jobs, tmp_path), "two", outputs={"a": "--force"})
    assert not failure.value.retryable


@pytest.mark.parametrize(("code", "retryable"), [(1, True), (65, False), (2, False)])
async def test_exit_code_decides_about_another_attempt(tmp_path: Path, *, code: int, retryable: bool) -> None:
    jobs = one_step("sh", "-c", f"echo out; echo why >&2; exit {code}", permanent_exit_codes=[2, 65])
    with pytest.raises(StepFailed) as failure:
        await run_step(driver_for(jobs, tmp_path))
    assert (failure.value.exit_code, failure.value.retryable) == (code, retryable)
    assert failure.value.message == f"Only: exit code {code}: why"


async def test_killed_command_is_worth_another_attempt(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="ended by signal 9") as failure:
        await run_step(driver_for(one_step("sh", "-c", "kill -9 $$"), tmp_path))
    assert (failure.value.exit_code, failure.value.retryable) == (-9, True)


@pytest.mark.parametrize("program", ["no-such-program", "/nowhere/program", "/etc/passwd"])
async def test_missing_program_is_no_matter_of_attempts(tmp_path: Path, program: str) -> None:
    with pytest.raises(StepFailed, match="was not found") as failure:
        await run_step(driver_for(one_step(program), tmp_path))
    assert not failure.value.retryable


async def test_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(StepFailed) as failure:
        await run_step(driver_for(one_step("true"), tmp_path, cwd="/nowhere"))
    assert not failure.value.retryable


async def test_progress_is_what_the_command_states(tmp_path: Path) -> None:
    report = Report()
    jobs = one_step("sh", "-c", "echo ::progress 20; echo ::progress 70")
    await run_step(driver_for(jobs, tmp_path), report=report)
    assert report.fractions == [0.2, 0.7]


async def test_flood_is_cut(tmp_path: Path) -> None:
    report = Report()
    jobs = one_step("sh", "-c", "yes | head -n 100000; echo ::output a=1", prints=["a"])
    driver = driver_for(jobs, tmp_path, limits=OutputLimits(lines=10))
    assert await run_step(driver, report=report) == {"a": "1"}
    assert len(report.lines) == 11
    assert "99990 more lines" in report.lines[-1][1]


async def test_step_that_is_done_already_is_skipped(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    jobs = one_step("touch", str(mark), unless=["sh", "-c", "echo noise; true"], sets={"a": "x"})
    report = Report()
    assert await run_step(driver_for(jobs, tmp_path), report=report) == {"a": "x"}
    assert not mark.exists()
    assert "noise" not in report.text


async def test_step_whose_check_fails_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    await run_step(driver_for(one_step("touch", str(mark), unless=["false"]), tmp_path))
    assert mark.exists()


async def test_step_without_its_object_is_skipped_and_states_nothing(tmp_path: Path) -> None:
    jobs = one_step("false", only_if_exists="{data_dir}/nothing", sets={"a": "x"})
    assert await run_step(driver_for(jobs, tmp_path)) == {}


async def test_input_must_have_its_form(tmp_path: Path) -> None:
    jobs = {
        "restore_site": {
            "inputs": {"backup_id": {"pattern": "[a-z]+", "default": "latest"}},
            "steps": [{"name": "only", "title": "Only", "timeout_s": 5, "argv": ["echo", "{input.backup_id}"]}],
        }
    }
    driver = driver_for(jobs, tmp_path)
    for given, seen in (({}, "latest"), ({"backup_id": "mine"}, "mine")):
        report = Report()
        await run_step(driver, kind="restore_site", outputs=given, report=report)
        assert report.text == seen
    for wrong in ("../x", "mine\n", "", "-x"):
        with pytest.raises(StepFailed) as failure:
            await run_step(driver, kind="restore_site", outputs={"backup_id": wrong})
        assert not failure.value.retryable


async def test_signals_of_the_terminal_do_not_reach_commands(tmp_path: Path) -> None:
    """Ctrl-C on the server must leave it to the driver how a command ends."""
    report = Report()
    script = "import os; print(os.getpid() == os.getpgid(0) == os.getsid(0))"
    await run_step(driver_for(one_step(sys.executable, "-c", script), tmp_path), report=report)
    assert report.text == "True"


async def test_data_folder_stays_open_to_the_embedded_database(tmp_path: Path) -> None:
    await run_step(driver_for(one_step("true"), tmp_path, secrets=["admin_password"]))
    assert (tmp_path / "data").stat().st_mode & 0o055
    assert (tmp_path / "data" / "provisioning").stat().st_mode & 0o077 == 0
