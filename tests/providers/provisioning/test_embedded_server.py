"""The default recipe on the embedded server: PostgreSQL 18 that listens on a socket only, and has its own tools."""

import os
from pathlib import Path

import asyncpg
import pytest

from providers.provisioning.contract import SiteTarget
from providers.provisioning.driver import RecipeDriver
from providers.provisioning.recipe import load_recipe
from tests.providers.provisioning.support import RECIPES, Report, make_target, run_job

LINE = "SET transaction_timeout = 0;"


@pytest.fixture
def folder_without_tools(tmp_path: Path) -> Path:
    """Return a folder that serves as a PATH on which there is no `pg_dump`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


def driver_on(dsn: str, data_dir: Path, *, path: str) -> RecipeDriver:
    return RecipeDriver(
        load_recipe(RECIPES / "local.yml"),
        data_dir=data_dir,
        environment={"PATH": path, "PROVISIONING_DATABASE_URL": dsn},
    )


async def add_row(dsn: str, target: SiteTarget) -> None:
    own = await asyncpg.connect(dsn)
    try:
        name = await own.fetchval("SELECT datname FROM pg_database WHERE datname LIKE $1", f"site_{target.slug}%")
    finally:
        await own.close()
    site = await asyncpg.connect(dsn, user=name, database=name)
    try:
        # A row that looks like a setting of a newer server must not be mistaken for one.
        await site.execute("CREATE TABLE lines (line text)")
        await site.execute("INSERT INTO lines VALUES ($1)", LINE)
    finally:
        await site.close()


async def test_whole_life_of_a_site_without_tools_on_the_path(
    embedded_dsn: str, tmp_path: Path, folder_without_tools: Path
) -> None:
    driver = driver_on(embedded_dsn, tmp_path / "data", path=str(folder_without_tools))
    target = make_target()
    report = Report()

    await run_job(driver, "create_site", target)
    await add_row(embedded_dsn, target)
    await run_job(driver, "backup_site", target, report=report)
    await run_job(driver, "delete_site", target)
    restored = await run_job(driver, "restore_site", target)

    assert "PostgreSQL 18, tools 18" in report.text
    site = await asyncpg.connect(embedded_dsn, database=restored["database"])
    try:
        assert await site.fetchval("SELECT line FROM lines") == LINE
    finally:
        await site.close()
    await run_job(driver, "delete_site", target)


async def test_backup_of_one_major_version_is_restored_by_another(
    embedded_dsn: str, older_dsn: str, tmp_path: Path, folder_without_tools: Path
) -> None:
    target = make_target()
    older = driver_on(older_dsn, tmp_path / "data", path=str(folder_without_tools))
    newer = driver_on(embedded_dsn, tmp_path / "data", path=str(folder_without_tools))
    report = Report()
    await run_job(older, "create_site", target)
    await add_row(older_dsn, target)
    await run_job(older, "delete_site", target, report=report)

    await run_job(newer, "restore_site", target, report=report)
    await run_job(newer, "delete_site", target, report=report)
    restored = await run_job(older, "restore_site", target, report=report)

    told = [text.partition(" from ")[0] for _, text in report.lines if text.startswith("PostgreSQL ")]
    assert told == [
        "PostgreSQL 16, tools 16",
        "PostgreSQL 18, tools 18",
        "PostgreSQL 18, tools 18",
        # Only tools that are newer than this server can read the archive; they know settings that it does not.
        "PostgreSQL 16, tools 18",
    ]
    site = await asyncpg.connect(older_dsn, database=restored["database"])
    try:
        assert await site.fetchval("SELECT line FROM lines") == LINE
    finally:
        await site.close()
    await run_job(older, "delete_site", target)


async def test_administrator_need_not_be_superuser(embedded_dsn: str, tmp_path: Path) -> None:
    admin = await asyncpg.connect(embedded_dsn)
    try:
        await admin.execute("CREATE ROLE provisioner LOGIN CREATEDB CREATEROLE")
    finally:
        await admin.close()
    dsn = embedded_dsn.replace("postgres:@", "provisioner@")
    assert dsn != embedded_dsn
    driver = driver_on(dsn, tmp_path / "data", path=os.environ["PATH"])
    target = make_target()

    for kind in ("create_site", "update_site", "backup_site", "restore_site", "delete_site"):
        await run_job(driver, kind, target)
