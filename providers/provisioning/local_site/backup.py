"""Backups: a folder each, with a dump of the database, an archive of the files, a manifest and checksums.

A backup is put together in a folder whose name begins with a dot and gets its real name when it is complete,
so what can be seen can be restored. Backups outlive their site.
"""

import hashlib
import re
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from providers.provisioning.local_site.pgtools import Tools
from providers.provisioning.local_site.site import Site, read_json, write_json
from providers.provisioning.local_site.speech import Refused, progress, say

LATEST: Final = "latest"
_CHECKSUMS: Final = "SHA256SUMS"
_MANIFEST: Final = "manifest.json"
_CHECKSUM_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9_.-]+)")


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup of a site, under way or complete; `id` is the job that makes it."""

    site: Site
    id: UUID

    @property
    def folder(self) -> Path:
        return self.site.backups / str(self.id)

    @property
    def draft(self) -> Path:
        return self.site.backups / f".{self.id}"

    @property
    def is_complete(self) -> bool:
        return self.folder.exists()

    @property
    def dump_file(self) -> Path:
        return self.folder / "database.dump"

    @property
    def checksum(self) -> str:
        """The SHA-256 of the list of checksums, so of everything in the backup."""
        return _sha256(self.folder / _CHECKSUMS)

    @property
    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.iterdir())

    def dump_database(self, tools: Tools, address: str, *, server_major: int) -> None:
        """Dump the database afresh into the draft."""
        self.draft.mkdir(parents=True, exist_ok=True)
        dump = self.draft / "database.dump"
        dump.unlink(missing_ok=True)
        tools.dump(address, self.site.password(), into=dump)
        versions = {"tools_major": tools.major, "server_major": server_major}
        write_json(self.draft / "versions.json", versions)
        say(f"database dumped: {dump.stat().st_size} bytes")

    def archive_files(self) -> None:
        """Archive the site's files and its configuration; the credentials stay out."""
        paths = [
            self.site.config_file,
            *sorted(path for path in self.site.files.rglob("*") if _is_plain(path)),
        ]
        with tarfile.open(self.draft / "files.tar.gz", "w:gz") as archive:
            for number, path in enumerate(paths, start=1):
                archive.add(path, arcname=str(path.relative_to(self.site.folder)), recursive=False)
                progress(number, len(paths))
        say(f"{len(paths)} files archived")

    def seal(self, *, made_at: datetime) -> None:
        """Write the manifest and the checksums, and give the backup its real name.

        Without a draft the backup was sealed before. With one it replaces what an earlier run of the job
        left.
        """
        if not self.draft.exists():
            return
        manifest = {
            "backup_id": str(self.id),
            "created_at": made_at.isoformat(),
            "site_name": self.site.name,
            "tenant_id": str(self.site.tenant_id),
            **read_json(self.draft / "versions.json"),
        }
        write_json(self.draft / _MANIFEST, manifest)
        names = ("database.dump", "files.tar.gz", _MANIFEST)
        sums = "".join(f"{_sha256(self.draft / name)}  {name}\n" for name in names)
        (self.draft / _CHECKSUMS).write_text(sums)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.draft.replace(self.folder)

    def discard_draft(self) -> None:
        """Remove what has not become a backup."""
        shutil.rmtree(self.draft, ignore_errors=True)

    def check(self) -> dict[str, Any]:
        """Check every file against its checksum and return the manifest. Raises Refused when one is wrong."""
        sums = dict(self._checksums())
        if not {"database.dump", "files.tar.gz", _MANIFEST} <= sums.keys():
            raise Refused(f"backup {self.id} is incomplete")
        for number, (name, expected) in enumerate(sums.items(), start=1):
            if _sha256(self.folder / name) != expected:
                raise Refused(f"backup {self.id}: {name} is damaged, its checksum does not match")
            progress(number, len(sums))
        manifest = read_json(self.folder / _MANIFEST)
        if manifest.get("tenant_id") != str(self.site.tenant_id):
            raise Refused(f"backup {self.id} belongs to another tenant")
        return manifest

    def extract_files(self, target: Path) -> None:
        """Unpack the archived files (not the configuration) into `target`, which is made anew."""
        shutil.rmtree(target, ignore_errors=True)
        with tarfile.open(self.folder / "files.tar.gz") as archive:
            # Pythons before 3.11.4 know no filters; the archive is our own and its checksum has been compared.
            archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
            archive.extractall(target)  # noqa: S202
        (target / "files").mkdir(exist_ok=True)

    def _checksums(self) -> Iterator[tuple[str, str]]:
        try:
            lines = (self.folder / _CHECKSUMS).read_text().splitlines()
        except FileNotFoundError:
            raise Refused(f"there is no backup {self.id} of {self.site.name}") from None
        for line in lines:
            match = _CHECKSUM_LINE.fullmatch(line)
            if match is None:
                raise Refused(f"backup {self.id}: the list of checksums is damaged")
            yield match[2], match[1]


def find_backup(site: Site, wanted: str) -> Backup:
    """Return the backup with this id, or the tenant's latest. Raises Refused when there is none."""
    if wanted != LATEST:
        return Backup(site, UUID(wanted))
    made = [
        (str(manifest.get("created_at")), str(manifest.get("backup_id")))
        for manifest in map(_manifest, site.backups.glob(f"[!.]*/{_MANIFEST}"))
        if manifest.get("tenant_id") == str(site.tenant_id)
    ]
    if not made:
        raise Refused(f"there is no backup of {site.name}")
    return Backup(site, UUID(max(made)[1]))


def _manifest(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except Refused:
        return {}


def _is_plain(path: Path) -> bool:
    # A link could lead out of the site.
    return path.is_file() and not path.is_symlink()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
