"""The recipe for ERPNext, against a stand-in for `bench` that is as strict about its options as the real one."""

import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from providers.provisioning.contract import SiteTarget, StepFailed
from providers.provisioning.driver import RecipeDriver
from providers.provisioning.recipe import RecipeError, load_recipe
from tests.providers.provisioning.support import (
    RECIPES,
    Report,
    make_target,
    run_job,
    run_step,
    text_of,
    undo_job,
    wait_until,
)

ROOT_PASSWORD = "r00t-s3cret"


class Bench:
    """A bench with the stand-in for its command line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "frappe-bench"
        self.bin = folder / "bin"
        self.data_dir = folder / "data"
        (self.folder / "sites").mkdir(parents=True)
        self.bin.mkdir()
        script = (Path(__file__).parent / "fake_bench.py").read_text()
        program = self.bin / "bench"
        program.write_text(f"#!{sys.executable}\n{script}")
        program.chmod(0o755)

    def driver(self) -> RecipeDriver:
        return RecipeDriver(
            load_recipe(RECIPES / "erpnext.yml"),
            data_dir=self.data_dir,
            environment={
                "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
                "HOME": str(self.folder),
                "BENCH_DIR": str(self.folder),
                "ERPNEXT_DB_ROOT_PASSWORD": ROOT_PASSWORD,
            },
            kill_grace_s=2.0,
        )

    def order(self, **orders: str) -> None:
        """Make the next call of a command go wrong: `new_site="half"`, `migrate="fail"`, `migrate="hang"`."""
        content = {name.replace("_", "-"): order for name, order in orders.items()}
        (self.bin / "orders.json").write_text(json.dumps(content))

    def site(self, target: SiteTarget) -> dict[str, Any]:
        content = json.loads((self.folder / "sites" / target.site_name / "site_config.json").read_text())
        assert isinstance(content, dict)
        return content

    def change(self, target: SiteTarget, **changes: object) -> None:
        path = self.folder / "sites" / target.site_name / "site_config.json"
        path.write_text(json.dumps(self.site(target) | changes))

    def exists(self, target: SiteTarget) -> bool:
        return (self.folder / "sites" / target.site_name).exists()

    def calls(self) -> list[dict[str, Any]]:
        path = self.bin / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def commands(self) -> list[str]:
        """Return the calls as one would type them, without the site they are about."""
        return [" ".join(self._words(call["argv"])) for call in self.calls()]

    @staticmethod
    def _words(argv: list[str]) -> list[str]:
        return argv[2:] if argv[0] == "--site" else argv


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_created_site_is_configured(bench: Bench) -> None:
    target, report = make_target(), Report()

    outputs = await run_job(bench.driver(), "create_site", target, report=report)

    site = bench.site(target)
    assert site["apps"] == ["frappe", "erpnext"]
    assert site["host_name"] == target.site_url
    assert site["erpmax_tenant_id"] == str(target.tenant_id)
    assert site["erpmax_plan"] == "starter"
    assert json.loads(site["erpmax_limits"]) == dict(target.limits)
    assert site["scheduler"] is True
    assert outputs["site_url"] == target.site_url
    assert text_of(outputs["admin_password_file"]) == site["admin_password"]
    for secret in (site["admin_password"], ROOT_PASSWORD):
        assert secret not in report.text
    # Of a progress bar the last state is kept, and no terminal codes.
    assert "Updating DocTypes for frappe : [==========] 100%" in report.text
    assert "55%" not in report.text
    assert "\x1b" not in report.text


async def test_bench_is_called_as_documented(bench: Bench) -> None:
    target = make_target()
    await run_job(bench.driver(), "create_site", target)
    password = bench.site(target)["admin_password"]

    assert bench.calls()[1]["argv"] == [
        "new-site",
        target.site_name,
        *("--db-type", "mariadb", "--db-host", "127.0.0.1", "--db-port", "3306"),
        "--mariadb-user-host-login-scope=localhost",
        "--db-root-username=root",
        f"--db-root-password={ROOT_PASSWORD}",
        f"--admin-password={password}",
        "--verbose",
    ]
    assert [command.split()[0] for command in bench.commands()] == [
        "list-apps",
        "new-site",
        "install-app",
        *["set-config"] * 4,
        "enable-scheduler",
        "list-apps",
    ]
    for call in bench.calls():
        assert "ERPNEXT_DB_ROOT_PASSWORD" not in call["environment"]


async def test_every_site_has_its_own_administrators_password(bench: Bench) -> None:
    targets = [make_target(), make_target()]
    for target in targets:
        await run_job(bench.driver(), "create_site", target)
    assert len({bench.site(target)["admin_password"] for target in targets}) == 2


async def test_half_made_site_is_made_again_by_the_next_attempt(bench: Bench) -> None:
    bench.order(new_site="half")
    target, job_id, driver = make_target(), uuid4(), bench.driver()
    with pytest.raises(StepFailed, match="could not reach the database") as failure:
        await run_step(driver, "new_site", target=target, job_id=job_id)
    assert failure.value.retryable

    await run_step(driver, "new_site", target=target, job_id=job_id, attempt=2)

    assert bench.commands()[-1].endswith("--force")
    assert bench.site(target)["apps"] == ["frappe"]


async def test_live_site_is_never_made_again(bench: Bench) -> None:
    target, driver = make_target(), bench.driver()
    await run_job(driver, "create_site", target)
    bench.change(target, documents=["precious"])

    for attempt in (1, 2):
        bench.order(list_apps="fail")
        with pytest.raises(StepFailed, match="already exists"):
            await run_step(driver, "new_site", target=target, attempt=attempt)
    await run_job(driver, "create_site", target)

    assert bench.site(target)["documents"] == ["precious"]


async def test_undone_creation_drops_the_site(bench: Bench) -> None:
    target, job_id, driver = make_target(), uuid4(), bench.driver()
    await run_job(driver, "create_site", target, job_id=job_id, until="install_erpnext")

    for _ in range(2):
        await undo_job(driver, "create_site", target, job_id=job_id)

    assert not bench.exists(target)
    assert bench.commands()[-1].startswith("drop-site")
    assert not list(bench.data_dir.rglob("admin_password"))


async def test_undone_second_creation_keeps_the_live_site(bench: Bench) -> None:
    target, driver = make_target(), bench.driver()
    await run_job(driver, "create_site", target)
    job_id = uuid4()
    await run_job(driver, "create_site", target, job_id=job_id, until="set_plan")

    await undo_job(driver, "create_site", target, job_id=job_id)

    assert bench.exists(target)
    assert not any(command.startswith("drop-site") for command in bench.commands())


async def test_update_closes_the_site_while_it_migrates(bench: Bench) -> None:
    target, driver = make_target(), bench.driver()
    await run_job(driver, "create_site", target)

    outputs = await run_job(driver, "update_site", replace(target, plan="business"))

    site = bench.site(target)
    assert (site["erpmax_plan"], site["migrated"], site["maintenance_mode"]) == ("business", True, "off")
    assert list(bench.data_dir.glob(f"backups/*/{outputs['backup_id']}/database.sql.gz"))
    names = [command.split(" --")[0] for command in bench.commands()]
    assert names.index("set-maintenance-mode on") < names.index("migrate") < names.index("set-maintenance-mode off")


async def test_cancelled_migration_is_ended_and_undone(bench: Bench) -> None:
    target, job_id, driver = make_target(), uuid4(), bench.driver()
    await run_job(driver, "create_site", target)
    bench.change(target, documents=["precious"])
    outputs = await run_job(driver, "update_site", target, job_id=job_id, until="set_limits")
    bench.order(migrate="hang")
    step = run_step(driver, "migrate", kind="update_site", target=target, job_id=job_id, outputs=outputs)
    task = asyncio.create_task(step)
    await asyncio.to_thread(wait_until, lambda: bench.commands()[-1] == "migrate")

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    bench.change(target, documents=["half migrated"])
    await undo_job(driver, "update_site", target, job_id=job_id, outputs=outputs)

    site = bench.site(target)
    assert site["documents"] == ["precious"]
    assert site["maintenance_mode"] == "off"


async def test_backup_is_checked_and_restored(bench: Bench) -> None:
    target, driver = make_target(), bench.driver()
    await run_job(driver, "create_site", target)
    bench.change(target, documents=["first"])
    first = await run_job(driver, "backup_site", target)
    bench.change(target, documents=["second"])
    await run_job(driver, "backup_site", target)
    bench.change(target, documents=["third"])

    await run_job(driver, "restore_site", target)
    assert bench.site(target)["documents"] == ["second"]

    await run_job(driver, "restore_site", target, inputs={"backup_id": first["backup_id"]})
    assert bench.site(target)["documents"] == ["first"]


async def test_damaged_dump_is_refused(bench: Bench) -> None:
    target, driver = make_target(), bench.driver()
    await run_job(driver, "create_site", target)
    outputs = await run_job(driver, "backup_site", target)
    [dump] = bench.data_dir.glob(f"backups/*/{outputs['backup_id']}/database.sql.gz")
    dump.write_bytes(dump.read_bytes()[:-6])

    with pytest.raises(StepFailed, match="Check the backup") as failure:
        await run_job(driver, "restore_site", target)

    assert not failure.value.retryable
    assert bench.exists(target)


async def test_deleted_site_is_gone_and_can_be_restored(bench: Bench) -> None:
    target, driver = make_target(), bench.driver()
    await run_job(driver, "create_site", target)
    bench.change(target, documents=["precious"])
    before = bench.site(target)["admin_password"]

    for _ in range(2):
        await run_job(driver, "delete_site", target)
        assert not bench.exists(target)
    assert not list(bench.data_dir.rglob("admin_password"))

    outputs = await run_job(driver, "restore_site", target)
    site = bench.site(target)
    assert site["documents"] == ["precious"]
    assert site["admin_password"] == text_of(outputs["admin_password_file"]) != before


async def test_undone_restore_of_a_deleted_site_drops_it_again(bench: Bench) -> None:
    target, job_id, driver = make_target(), uuid4(), bench.driver()
    await run_job(driver, "create_site", target)
    await run_job(driver, "delete_site", target)
    outputs = await run_job(driver, "restore_site", target, job_id=job_id, until="restore")

    await undo_job(driver, "restore_site", target, job_id=job_id, outputs=outputs)

    assert not bench.exists(target)


async def test_undone_restore_of_a_live_site_does_not_drop_it(bench: Bench) -> None:
    target, job_id, driver = make_target(), uuid4(), bench.driver()
    await run_job(driver, "create_site", target)
    await run_job(driver, "backup_site", target)
    outputs = await run_job(driver, "restore_site", target, job_id=job_id, until="restore")

    await undo_job(driver, "restore_site", target, job_id=job_id, outputs=outputs)

    assert bench.exists(target)


async def test_missing_bench_is_told(bench: Bench, tmp_path: Path) -> None:
    (bench.bin / "bench").unlink()
    with pytest.raises(StepFailed, match="'bench' was not found") as failure:
        await run_step(bench.driver(), "new_site", target=make_target())
    assert not failure.value.retryable


def test_missing_settings_are_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="BENCH_DIR, ERPNEXT_DB_ROOT_PASSWORD"):
        RecipeDriver(load_recipe(RECIPES / "erpnext.yml"), data_dir=tmp_path, environment={"PATH": "", "HOME": ""})
