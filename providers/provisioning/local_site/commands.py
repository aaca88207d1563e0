"""The commands of the program, one for each step of deploy/recipes/local.yml; every one may be repeated."""

import asyncio
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from core.clock import Clock
from providers.provisioning.local_site import database, schema
from providers.provisioning.local_site.backup import Backup, find_backup
from providers.provisioning.local_site.database import Server
from providers.provisioning.local_site.pgtools import find_tools
from providers.provisioning.local_site.site import Site, write_json
from providers.provisioning.local_site.speech import Refused, output, progress, say


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteCommands:
    """What can be done to one site. Raises Refused where no further attempt helps."""

    site: Site
    server: Server
    clock: Clock

    # -------------------------------------------------------------------------------------------- create

    def make_folder(self) -> None:
        self.site.make_folder()
        say(f"folder {self.site.folder}")

    def remove_folder(self) -> None:
        say("folder removed" if self.site.remove_folder() else "there is no folder")

    def create_database(self) -> None:
        self.site.check_owner()
        asyncio.run(self._create_database())

    async def _create_database(self) -> None:
        name = self.site.database
        async with self.server.admin() as admin:
            await database.create_role(admin, name, self.site.password(), owner=self.site.tenant_id)
            progress(1, 3)
            created = await database.create_database(admin, name, owner=name)
            progress(2, 3)
        async with self.server.site(self.site) as connection:
            await connection.fetchval("SELECT 1")
        progress(3, 3)
        say(f"database {name} {'created' if created else 'was there already'}")

    def drop_database(self) -> None:
        asyncio.run(self._drop_database())

    async def _drop_database(self) -> None:
        name = self.site.database
        if self.site.folder.exists():
            self.site.check_owner()
        async with self.server.admin() as admin:
            await database.check_role_owner(admin, name, self.site.tenant_id)
            for number, each in enumerate((_staging(name), _previous(name), name), start=1):
                if await database.drop_database(admin, each):
                    say(f"database {each} dropped")
                progress(number, 4)
            await database.drop_role(admin, name)
        progress(4, 4)

    def write_config(self, *, url: str, plan: str, limits: Mapping[str, object], admin_email: str) -> None:
        self.site.check_owner()
        content = {
            "site_name": self.site.name,
            "site_url": url,
            "tenant_id": str(self.site.tenant_id),
            "plan": plan,
            "limits": dict(limits),
            "admin_email": admin_email or None,
            "database": self.site.database,
            "credentials_file": self.site.credentials_file.name,
        }
        write_json(self.site.config_file, content)
        say(f"configuration written for plan {plan}")

    def install_schema(self) -> None:
        self.site.check_owner()
        asyncio.run(self._install_schema(self.site.config()))

    async def _install_schema(self, config: Mapping[str, Any]) -> None:
        async with self.server.site(self.site) as connection:
            await schema.migrate(connection)
            await schema.tell_site(connection, config)

    def verify(self) -> None:
        self.site.check_owner()
        self.site.config()
        for path in (self.site.config_file, self.site.credentials_file):
            if path.stat().st_mode & 0o077:
                raise Refused(f"{path.name} can be read by others")
        version = asyncio.run(self._verify())
        output("database", self.site.database)
        output("schema_version", str(version))

    async def _verify(self) -> int:
        async with self.server.site(self.site) as connection:
            return await schema.verify(connection, self.site)

    # -------------------------------------------------------------------------------------------- update

    def keep_config(self, job_id: UUID) -> None:
        """Keep the configuration as it is now, for the case that the job is undone."""
        self.site.check_owner()
        kept = self._kept_config(job_id)
        if not kept.exists():
            write_json(kept, self.site.config())
        say("configuration kept")

    def put_back_config(self, job_id: UUID) -> None:
        self.site.check_owner()
        kept = self._kept_config(job_id)
        if kept.exists():
            kept.replace(self.site.config_file)
            self.install_schema()
            say("configuration put back")

    def forget_config(self, job_id: UUID) -> None:
        self._kept_config(job_id).unlink(missing_ok=True)

    def _kept_config(self, job_id: UUID) -> Path:
        return self.site.folder / f"site_config.{job_id}.json"

    # -------------------------------------------------------------------------------------------- backup

    def dump(self, backup_id: UUID) -> None:
        self.site.check_owner()
        server_major = asyncio.run(self._server_major())
        tools = find_tools(server_major=server_major)
        address = self.server.site_address(self.site, self.site.database)
        Backup(self.site, backup_id).dump_database(tools, address, server_major=server_major)

    async def _server_major(self) -> int:
        async with self.server.admin() as admin:
            return await database.server_major(admin)

    def archive(self, backup_id: UUID) -> None:
        self.site.check_owner()
        Backup(self.site, backup_id).archive_files()

    def seal(self, backup_id: UUID) -> None:
        backup = Backup(self.site, backup_id)
        backup.seal(made_at=self.clock.now())
        backup.check()
        output("backup_id", str(backup.id))
        output("backup_path", str(backup.folder))
        output("backup_sha256", backup.checksum)
        output("backup_bytes", str(backup.size_bytes))

    def back_up(self, backup_id: UUID) -> None:
        """Make a whole backup in one go."""
        self.dump(backup_id)
        self.archive(backup_id)
        self.seal(backup_id)

    def discard_backup(self, backup_id: UUID) -> None:
        Backup(self.site, backup_id).discard_draft()
        say("unfinished backup discarded")

    # ------------------------------------------------------------------------------------------- restore

    def choose_backup(self, wanted: str) -> None:
        """Find the backup and check every byte of it."""
        backup = find_backup(self.site, wanted)
        manifest = backup.check()
        say(f"backup {backup.id} of {manifest['created_at']} is whole")
        output("backup_id", str(backup.id))

    def load(self, backup_id: UUID, job_id: UUID) -> None:
        """Load the dump into a database beside the site's own, which stays in use meanwhile.

        A site that is gone gets its folder and its role again.
        """
        self.site.make_folder()
        asyncio.run(self._load(Backup(self.site, backup_id), _note(job_id)))

    async def _load(self, backup: Backup, note: str) -> None:
        name, staging = self.site.database, _staging(self.site.database)
        manifest = backup.check()
        async with self.server.admin() as admin:
            await database.create_role(admin, name, self.site.password(), owner=self.site.tenant_id)
            if await database.database_note(admin, name) == note:
                say("the backup is in place already")
                return
            await database.drop_database(admin, staging)
            await database.create_database(admin, staging, owner=name)
            major = await database.server_major(admin)
            settings = {str(row[0]) for row in await admin.fetch("SELECT name FROM pg_settings")}
            tools = find_tools(server_major=major, archive_major=int(manifest["tools_major"]))
            address = self.server.site_address(self.site, staging)
            await asyncio.to_thread(tools.restore, backup.dump_file, address, self.site.password(), settings=settings)
            # Written last: only a database that was loaded to its end may take the site's place.
            await admin.execute(f"COMMENT ON DATABASE \"{staging}\" IS '{note}'")
        say(f"backup {backup.id} loaded")

    def swap_in(self, backup_id: UUID, job_id: UUID) -> None:
        """Put the loaded database and the archived files in the site's place; keep what was there."""
        self.site.check_owner()
        asyncio.run(self._swap_in(_note(job_id)))
        fresh, kept = self._beside("restored"), self._beside("previous")
        if not kept.exists():
            Backup(self.site, backup_id).extract_files(fresh)
            self.site.files.replace(kept)
        if not self.site.files.exists():
            (fresh / "files").replace(self.site.files)
        shutil.rmtree(fresh, ignore_errors=True)
        say("database and files are in place")

    async def _swap_in(self, note: str) -> None:
        name = self.site.database
        async with self.server.admin() as admin:
            if await database.database_note(admin, name) == note:
                return
            if await database.database_note(admin, _staging(name)) != note:
                raise Refused("the backup has not been loaded")
            await database.drop_database(admin, _previous(name))
            renames = [(_staging(name), name)]
            if await database.database_exists(admin, name):
                renames.insert(0, (name, _previous(name)))
            await database.rename_databases(admin, *renames)

    def undo_restore(self, job_id: UUID) -> None:
        """Put everything back as it was before the job; a site that did not exist is gone again."""
        if not self.site.folder.exists():
            say("there is no site")
            return
        self.site.check_owner()
        kept = self._beside("previous")
        if kept.exists():
            shutil.rmtree(self.site.files, ignore_errors=True)
            kept.replace(self.site.files)
        shutil.rmtree(self._beside("restored"), ignore_errors=True)
        if not asyncio.run(self._undo_restore(_note(job_id))):
            self.site.remove_folder()
        say("as it was before")

    async def _undo_restore(self, note: str) -> bool:
        """Tell whether the site has a database after all."""
        name, previous = self.site.database, _previous(self.site.database)
        async with self.server.admin() as admin:
            await database.check_role_owner(admin, name, self.site.tenant_id)
            await database.drop_database(admin, _staging(name))
            if await database.database_note(admin, name) == note:
                await database.drop_database(admin, name)
            exists = await database.database_exists(admin, name)
            if not exists and await database.database_exists(admin, previous):
                await database.rename_databases(admin, (previous, name))
                return True
            if not exists:
                await database.drop_role(admin, name)
            return exists

    def finish_restore(self) -> None:
        """Let go of what the restored site replaced."""
        self.site.check_owner()
        asyncio.run(self._finish_restore())
        shutil.rmtree(self._beside("previous"), ignore_errors=True)

    async def _finish_restore(self) -> None:
        name = self.site.database
        async with self.server.admin() as admin:
            await database.drop_database(admin, _previous(name))
            # Without the note the same job, when it is ordered again, restores again.
            await admin.execute(f'COMMENT ON DATABASE "{name}" IS NULL')

    def _beside(self, what: str) -> Path:
        return self.site.folder / f".files.{what}"

    # -------------------------------------------------------------------------------------------- delete

    def final_backup(self, backup_id: UUID) -> None:
        """Back the site up for the last time, if there is something left to back up."""
        backup = Backup(self.site, backup_id)
        if asyncio.run(self._has_data()):
            self.back_up(backup_id)
        elif backup.is_complete:
            self.seal(backup_id)
        else:
            say("there is nothing left to back up")
            output("backup_id", "")

    async def _has_data(self) -> bool:
        async with self.server.admin() as admin:
            return self.site.config_file.exists() and await database.database_exists(admin, self.site.database)

    def verify_gone(self) -> None:
        asyncio.run(self._verify_gone())
        if self.site.folder.exists():
            raise Refused(f"the folder of {self.site.name} is still there")
        say("nothing of the site is left but its backups")

    async def _verify_gone(self) -> None:
        async with self.server.admin() as admin:
            if await database.database_exists(admin, self.site.database):
                raise Refused(f"the database {self.site.database} is still there")
            if await database.role_exists(admin, self.site.database):
                raise Refused(f"the role {self.site.database} is still there")


def _staging(name: str) -> str:
    return f"{name}_restore"


def _previous(name: str) -> str:
    return f"{name}_previous"


def _note(job_id: UUID) -> str:
    return f"restored by job {job_id}"
