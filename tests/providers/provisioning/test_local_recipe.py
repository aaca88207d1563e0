"""The default recipe: real folders and real databases, made, changed and removed."""

import asyncio
import base64
import hashlib
import hmac
import json
import stat
import time
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from providers.provisioning.contract import JOB_KINDS, SiteTarget, StepFailed
from providers.provisioning.driver import RecipeDriver
from tests.providers.provisioning.sites import (
    add_document,
    connected,
    credentials_of,
    documents,
    folder_of,
    inside,
    leftovers,
)
from tests.providers.provisioning.support import Report, run_job, run_step, undo_job


def test_it_knows_every_job_kind(local_driver: RecipeDriver) -> None:
    for kind in JOB_KINDS:
        assert local_driver.plan(kind)


async def test_created_site_is_really_there(
    local_driver: RecipeDriver, target: SiteTarget, tmp_path: Path, admin_dsn: str
) -> None:
    report = Report()
    begun = time.monotonic()
    outputs = await run_job(local_driver, "create_site", target, report=report)
    took_s = time.monotonic() - begun

    assert outputs["site_url"] == target.site_url
    folder = folder_of(tmp_path, target)
    assert outputs["credentials_file"] == str(folder / "credentials.json")
    config = json.loads((folder / "site_config.json").read_text())
    assert (config["plan"], config["limits"]) == ("starter", dict(target.limits))
    async with inside(admin_dsn, tmp_path, target) as site:
        rows = await site.fetch("SELECT key, value #>> '{}' FROM site_info")
        facts = {row[0]: row[1] for row in rows}
        assert facts["tenant_id"] == str(target.tenant_id)
        assert facts["site_name"] == target.site_name
        apps = [row[0] for row in await site.fetch("SELECT name FROM installed_apps ORDER BY name")]
        assert apps == ["accounts", "core", "crm", "stock"]
        admins = await site.fetch("SELECT email FROM site_users WHERE role = 'admin'")
        assert [row[0] for row in admins] == [target.admin_email]
    # Statements of progress come from the commands: a step that finished has said so.
    assert report.fractions[-1] == 1.0
    assert took_s < 6, f"creating a site took {took_s:.1f} s"


async def test_what_is_written_can_be_read_by_nobody_else(
    local_driver: RecipeDriver, target: SiteTarget, tmp_path: Path
) -> None:
    await run_job(local_driver, "create_site", target)
    await run_job(local_driver, "backup_site", target)

    for path in (tmp_path / "data").rglob("*"):
        if not path.is_symlink():
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


async def test_role_has_the_stored_password_and_no_power(
    local_driver: RecipeDriver, target: SiteTarget, tmp_path: Path, admin_dsn: str
) -> None:
    await run_job(local_driver, "create_site", target)

    own = credentials_of(tmp_path, target)
    async with connected(admin_dsn) as admin:
        role = await admin.fetchrow(
            "SELECT rolsuper, rolcreatedb, rolcreaterole, rolcanlogin, rolpassword FROM pg_authid WHERE rolname = $1",
            own["role"],
        )
        assert role is not None
        assert list(role)[:4] == [False, False, False, True]
        others = await admin.fetchval("SELECT has_database_privilege('pg_monitor', $1, 'CONNECT')", own["database"])
        assert others is False
    # The test server trusts everybody, so a login proves nothing; the stored verifier does.
    _, iterations_salt, keys = role["rolpassword"].split("$")
    iterations, salt = iterations_salt.split(":")
    salted = hashlib.pbkdf2_hmac("sha256", own["password"].encode(), base64.b64decode(salt), int(iterations))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    assert base64.b64decode(keys.split(":")[0]) == hashlib.sha256(client_key).digest()


async def test_creating_twice_changes_nothing(
    local_driver: RecipeDriver, target: SiteTarget, tmp_path: Path, admin_dsn: str
) -> None:
    await run_job(local_driver, "create_site", target)
    before = credentials_of(tmp_path, target)
    await add_document(admin_dsn, tmp_path, target, "kept")

    await run_job(local_driver, "create_site", target)

    assert credentials_of(tmp_path, target) == before
    assert await documents(admin_dsn, tmp_path, target) == ["kept"]


async def test_every_step_can_be_repeated(local_driver: RecipeDriver, target: SiteTarget) -> None:
    """A crash between a step and its journal entry makes the step run twice."""
    for kind in ("create_site", "update_site", "backup_site", "restore_site", "delete_site"):
        outputs: dict[str, str] = {}
        job_id = uuid4()
        for step in local_driver.plan(kind):
            produced = [
                await run_step(
                    local_driver,
                    step.name,
                    kind=kind,
                    target=target,
                    job_id=job_id,
                    attempt=attempt,
                    outputs=outputs,
                )
                for attempt in (1, 2)
            ]
            outputs |= produced[-1]


async def test_update_applies_the_plan_and_backs_up_first(
    local_driver: RecipeDriver, target: SiteTarget, tmp_path: Path, admin_dsn: str
) -> None:
    await run_job(local_driver, "create_site", target)
    bigger = replace(target, plan="business", limits={"users": 100})

    outputs = await run_job(local_driver, "update_site", bigger)

    async with inside(admin_dsn, tmp_path, target) as site:
        assert json.loads(await site.fetchval("SELECT value FROM site_info WHERE key = 'plan'")) == "business"
        limits = await site.fetchval("SELECT value FROM site_info WHERE key = 'limits'")
        assert json.loads(limits) == {"users": 100}
    assert (Path(outputs["backup_path"]) / "database.dump").stat().st_size > 0
    assert not list(folder_of(tmp_path, target).glob("site_config.*-*.json"))


async def test_undone_update_puts_the_old_plan_back(
    local_driver: RecipeDriver, target: SiteTarget, tmp_path: Path, admin_dsn: str
) -> None:
    await run_job(local_driver, "create_site", target)
    bigger = replace(target, plan="business", limits={"users": 100})
    job_id = uuid4()
    outputs = await run_job(local_driver, "update_site", bigger, job_id=job_id, until="verify")

    for _ in range(2):
        await undo_job(local_driver, "update_site", bigger, job_id=job_id, outputs=outputs)

    config = json.loads((folder_of(tmp_path, target) / "site_config.json").read_text())
    assert config["plan"] == "starter"
    async with inside(admin_dsn, tmp_path, target) as site:
        assert json.loads(await site.fetchval("SELECT value FROM site_info WHERE key = 'plan'")) == "starter"


async def test_undone_creation_leaves_nothing(
    local_driver: RecipeDriver, target: SiteTarget, tmp_path: Path, admin_dsn: str
) -> None:
    job_id = uuid4()
    outputs = await run_job(local_driver, "create_site", target, job_id=job_id, until="install")
    assert await leftovers(admin_dsn, target)

    for _ in range(2):
        await undo_job(local_driver, "create_site", target, job_id=job_id, outputs=outputs)

    assert await leftovers(admin_dsn, target) == set()
    assert not folder_of(tmp_path, target).exists()


async def test_undoing_a_second_creation_does_not_touch_the_live_site(
    local_driver: RecipeDriver, target: SiteTarget, tmp_path: Path, admin_dsn: str
) -> None:
    first = uuid4()
    await run_job(local_driver, "create_site", target, job_id=first)
    await add_document(admin_dsn, tmp_path, target, "live")
    second = uuid4()
    await run_job(local_driver, "create_site", target, job_id=second, until="configure")

    await undo_job(local_driver, "create_site", target, job_id=second)
    await undo_job(local_driver, "create_site", target, job_id=first)

    assert await documents(admin_dsn, tmp_path, target) == ["live"]


async def test_another_tenant_cannot_take_or_remove_the_site(
    local_driver: RecipeDriver, target: SiteTarget, tmp_path: Path, admin_dsn: str
) -> None:
    await run_job(local_driver, "create_site", target)
    await run_job(local_driver, "backup_site", target)
    await add_document(admin_dsn, tmp_path, target, "mine")
    stranger = replace(target, tenant_id=uuid4())

    for kind in JOB_KINDS:
        with pytest.raises(StepFailed, match=r"another tenant|there is no backup") as failure:
            await run_job(local_driver, kind, stranger)
        assert not failure.value.retryable

    assert await documents(admin_dsn, tmp_path, target) == ["mine"]


async def test_another_installation_on_the_same_server_cannot_take_the_database(
    local_driver: RecipeDriver, target: SiteTarget, tmp_path: Path, admin_dsn: str
) -> None:
    """The folder is missing there, so only the server itself can tell whose the database is."""
    await run_job(local_driver, "create_site", target)
    await add_document(admin_dsn, tmp_path, target, "mine")
    elsewhere = RecipeDriver(
        local_driver._recipe,
        data_dir=tmp_path / "elsewhere",
        environment={"PROVISIONING_DATABASE_URL": admin_dsn},
    )
    stranger = replace(target, tenant_id=uuid4())
    async with connected(admin_dsn) as admin:
        stored = "SELECT rolpassword FROM pg_authid WHERE rolname = $1"
        role = credentials_of(tmp_path, target)["role"]
        before = await admin.fetchval(stored, role)

        for kind in ("create_site", "delete_site"):
            with pytest.raises(StepFailed, match="another tenant") as failure:
                await run_job(elsewhere, kind, stranger)
            assert not failure.value.retryable

        assert await admin.fetchval(stored, role) == before
    assert await documents(admin_dsn, tmp_path, target) == ["mine"]


async def test_server_away_is_worth_another_attempt(
    local_driver: RecipeDriver, target: SiteTarget, tmp_path: Path, admin_dsn: str
) -> None:
    await run_job(local_driver, "create_site", target, until="allocate")
    away = RecipeDriver(
        local_driver._recipe,
        data_dir=tmp_path / "data",
        environment={"PROVISIONING_DATABASE_URL": "postgresql://u:s3cr3t-pw@127.0.0.1:1/postgres"},
    )
    report = Report()

    with pytest.raises(StepFailed) as failure:
        await run_step(away, "create_database", target=target, report=report)

    assert failure.value.retryable
    assert failure.value.exit_code == 1
    assert "s3cr3t-pw" not in report.text + failure.value.message


async def test_password_never_shows(
    local_driver: RecipeDriver, target: SiteTarget, tmp_path: Path, admin_dsn: str
) -> None:
    report = Report()
    for kind in ("create_site", "backup_site", "restore_site"):
        await run_job(local_driver, kind, target, report=report)

    password = credentials_of(tmp_path, target)["password"]
    assert password not in report.text
    assert admin_dsn not in report.text


async def test_sites_of_several_tenants_are_made_at_once(
    local_driver: RecipeDriver, target: SiteTarget, tmp_path: Path, admin_dsn: str
) -> None:
    siblings = [replace(target, tenant_id=uuid4(), site_name=f"{letter}.{target.site_name}") for letter in "abc"]
    try:
        await asyncio.gather(*(run_job(local_driver, "create_site", each) for each in siblings))
        roles = {credentials_of(tmp_path, each)["role"] for each in siblings}
        assert len(roles) == 3
    finally:
        await asyncio.gather(*(run_job(local_driver, "delete_site", each) for each in siblings))
