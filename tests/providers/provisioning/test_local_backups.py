"""The default recipe's backups: real dumps, checked, restored, and put back when the restore is undone."""

import hashlib
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from providers.provisioning.contract import SiteTarget, StepFailed
from providers.provisioning.driver import RecipeDriver
from tests.providers.provisioning.sites import (
    add_document,
    documents,
    folder_of,
    leftovers,
)
from tests.providers.provisioning.support import run_job, text_of, undo_job


async def test_backup_is_whole_and_checked(local_driver: RecipeDriver, target: SiteTarget, tmp_path: Path) -> None:
    await run_job(local_driver, "create_site", target)
    (folder_of(tmp_path, target) / "files" / "logo.svg").write_text("<svg/>")
    job_id = uuid4()

    outputs = await run_job(local_driver, "backup_site", target, job_id=job_id)

    folder = tmp_path / "data" / "backups" / target.site_name / str(job_id)
    assert (outputs["backup_id"], outputs["backup_path"]) == (str(job_id), str(folder))
    sums = {line[66:]: line[:64] for line in text_of(folder / "SHA256SUMS").splitlines()}
    assert sums.keys() == {"database.dump", "files.tar.gz", "manifest.json"}
    for name, expected in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected
    assert (folder / "database.dump").read_bytes().startswith(b"PGDMP")
    assert int(outputs["backup_bytes"]) == sum(path.stat().st_size for path in folder.iterdir())
    assert "password" not in (folder / "manifest.json").read_text()


async def test_restore_brings_back_data_and_files(
    local_driver: RecipeDriver, target: SiteTarget, tmp_path: Path, admin_dsn: str
) -> None:
    await run_job(local_driver, "create_site", target)
    logo = folder_of(tmp_path, target) / "files" / "logo.svg"
    logo.write_text("before")
    await add_document(admin_dsn, tmp_path, target, "SET transaction_timeout = 0;")
    backup = await run_job(local_driver, "backup_site", target)
    logo.write_text("after")
    await add_document(admin_dsn, tmp_path, target, "after the backup")
    await run_job(local_driver, "backup_site", target)

    await run_job(local_driver, "restore_site", target, inputs={"backup_id": backup["backup_id"]})

    assert await documents(admin_dsn, tmp_path, target) == ["SET transaction_timeout = 0;"]
    assert logo.read_text() == "before"
    names = {name.partition(" ")[2] for name in await leftovers(admin_dsn, target)}
    assert len(names) == 1, "what was replaced is still there"


async def test_restore_without_a_choice_takes_the_latest(
    local_driver: RecipeDriver, target: SiteTarget, tmp_path: Path, admin_dsn: str
) -> None:
    await run_job(local_driver, "create_site", target)
    for kind in ("first", "second"):
        await add_document(admin_dsn, tmp_path, target, kind)
        await run_job(local_driver, "backup_site", target)
    await add_document(admin_dsn, tmp_path, target, "third")

    await run_job(local_driver, "restore_site", target)

    assert await documents(admin_dsn, tmp_path, target) == ["first", "second"]


async def test_same_restore_ordered_again_restores_again(
    local_driver: RecipeDriver, target: SiteTarget, tmp_path: Path, admin_dsn: str
) -> None:
    await run_job(local_driver, "create_site", target)
    await run_job(local_driver, "backup_site", target)
    job_id = uuid4()
    await run_job(local_driver, "restore_site", target, job_id=job_id)
    await add_document(admin_dsn, tmp_path, target, "in between")

    await run_job(local_driver, "restore_site", target, job_id=job_id)

    assert await documents(admin_dsn, tmp_path, target) == []


@pytest.mark.parametrize("until", ["load", "swap_in", "verify"])
async def test_undone_restore_leaves_the_site_as_it_was(
    local_driver: RecipeDriver, target: SiteTarget, tmp_path: Path, admin_dsn: str, until: str
) -> None:
    await run_job(local_driver, "create_site", target)
    await run_job(local_driver, "backup_site", target)
    logo = folder_of(tmp_path, target) / "files" / "logo.svg"
    logo.write_text("present")
    await add_document(admin_dsn, tmp_path, target, "present")
    before = await leftovers(admin_dsn, target)
    job_id = uuid4()
    outputs = await run_job(local_driver, "restore_site", target, job_id=job_id, until=until)

    for _ in range(2):
        await undo_job(local_driver, "restore_site", target, job_id=job_id, outputs=outputs)

    assert await documents(admin_dsn, tmp_path, target) == ["present"]
    assert logo.read_text() == "present"
    assert await leftovers(admin_dsn, target) == before


async def test_deleted_site_is_gone_and_can_be_restored(
    local_driver: RecipeDriver, target: SiteTarget, tmp_path: Path, admin_dsn: str
) -> None:
    await run_job(local_driver, "create_site", target)
    await add_document(admin_dsn, tmp_path, target, "precious")

    outputs = await run_job(local_driver, "delete_site", target)

    assert await leftovers(admin_dsn, target) == set()
    assert not folder_of(tmp_path, target).exists()
    restored = await run_job(local_driver, "restore_site", target, inputs={"backup_id": outputs["backup_id"]})
    assert restored["site_url"] == target.site_url
    assert await documents(admin_dsn, tmp_path, target) == ["precious"]


async def test_undone_restore_of_a_deleted_site_leaves_nothing(
    local_driver: RecipeDriver, target: SiteTarget, tmp_path: Path, admin_dsn: str
) -> None:
    await run_job(local_driver, "create_site", target)
    await run_job(local_driver, "delete_site", target)
    job_id = uuid4()
    outputs = await run_job(local_driver, "restore_site", target, job_id=job_id, until="swap_in")

    for _ in range(2):
        await undo_job(local_driver, "restore_site", target, job_id=job_id, outputs=outputs)

    assert await leftovers(admin_dsn, target) == set()
    assert not folder_of(tmp_path, target).exists()


async def test_deleting_a_site_that_never_was_succeeds(local_driver: RecipeDriver, target: SiteTarget) -> None:
    outputs = await run_job(local_driver, "delete_site", target)

    assert outputs["backup_id"] == ""


async def test_backup_of_an_earlier_tenant_is_refused(local_driver: RecipeDriver, target: SiteTarget) -> None:
    """A name that became free is taken by somebody else, who must not find the former tenant's data."""
    await run_job(local_driver, "create_site", target)
    outputs = await run_job(local_driver, "delete_site", target)
    stranger = replace(target, tenant_id=uuid4())

    for inputs in ({"backup_id": outputs["backup_id"]}, {}):
        with pytest.raises(StepFailed, match=r"another tenant|there is no backup") as failure:
            await run_job(local_driver, "restore_site", stranger, inputs=inputs)
        assert not failure.value.retryable


async def test_damaged_backup_is_refused(
    local_driver: RecipeDriver, target: SiteTarget, tmp_path: Path, admin_dsn: str
) -> None:
    await run_job(local_driver, "create_site", target)
    outputs = await run_job(local_driver, "backup_site", target)
    dump = Path(outputs["backup_path"]) / "database.dump"
    content = bytearray(dump.read_bytes())
    content[len(content) // 2] ^= 1
    dump.write_bytes(content)
    await add_document(admin_dsn, tmp_path, target, "present")

    with pytest.raises(StepFailed, match="checksum") as failure:
        await run_job(local_driver, "restore_site", target)

    assert not failure.value.retryable
    assert await documents(admin_dsn, tmp_path, target) == ["present"]


async def test_restore_without_a_backup_is_refused(local_driver: RecipeDriver, target: SiteTarget) -> None:
    with pytest.raises(StepFailed, match="there is no backup") as failure:
        await run_job(local_driver, "restore_site", target)
    assert not failure.value.retryable


async def test_choice_of_backup_cannot_be_a_path(local_driver: RecipeDriver, target: SiteTarget) -> None:
    with pytest.raises(StepFailed, match="backup_id") as failure:
        await run_job(local_driver, "restore_site", target, inputs={"backup_id": "../../etc"})
    assert not failure.value.retryable
