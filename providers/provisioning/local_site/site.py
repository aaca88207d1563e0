"""The folder of a site: who owns it, its credentials and its configuration."""

import json
import os
import re
import secrets
import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from providers.provisioning.local_site.speech import Refused

# Longest name with the longest suffix used below ("_previous"): 63, what PostgreSQL allows.
_READABLE_CHARS: Final = 40
_PASSWORD_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A site under `{data_dir}/sites`, meant for one tenant."""

    data_dir: Path
    name: str
    tenant_id: UUID

    @property
    def folder(self) -> Path:
        return self.data_dir / "sites" / self.name

    @property
    def files(self) -> Path:
        """What users upload; part of every backup."""
        return self.folder / "files"

    @property
    def config_file(self) -> Path:
        return self.folder / "site_config.json"

    @property
    def credentials_file(self) -> Path:
        return self.folder / "credentials.json"

    @property
    def backups(self) -> Path:
        """Outlives the site."""
        return self.data_dir / "backups" / self.name

    @property
    def database(self) -> str:
        """The name of the site's database and of its role: readable, and distinct for distinct sites."""
        readable = re.sub(r"[^a-z0-9]+", "_", self.name)[:_READABLE_CHARS].strip("_")
        return f"site_{readable}_{sha256(self.name.encode()).hexdigest()[:8]}"

    def make_folder(self) -> None:
        """Make the folder with its owner noted in it, unless it is there. Raises Refused when another's is."""
        if not self.folder.exists():
            # Put together beside its place, so that a site without an owner can never be seen.
            draft = self.folder.with_name(f".{self.name}.new")
            shutil.rmtree(draft, ignore_errors=True)
            (draft / "files").mkdir(parents=True)
            write_json(draft / "owner.json", {"tenant_id": str(self.tenant_id)})
            draft.replace(self.folder)
        self.check_owner()

    def check_owner(self) -> None:
        """Raises Refused when there is no such site, or when it belongs to another tenant."""
        try:
            owner = read_json(self.folder / "owner.json").get("tenant_id")
        except FileNotFoundError:
            raise Refused(f"there is no site {self.name}") from None
        if owner != str(self.tenant_id):
            raise Refused(f"the site {self.name} belongs to another tenant")

    def remove_folder(self) -> bool:
        """Remove the folder with everything in it; tell whether there was one."""
        if not self.folder.exists():
            return False
        self.check_owner()
        # The rename is the moment of removal: a half-emptied folder must not be taken for a site.
        doomed = self.folder.with_name(f".{self.name}.removed")
        shutil.rmtree(doomed, ignore_errors=True)
        self.folder.replace(doomed)
        shutil.rmtree(doomed)
        return True

    def password(self) -> str:
        """Return the password of the site's role, generated and stored when it is first asked for."""
        try:
            return str(read_json(self.credentials_file)["password"])
        except FileNotFoundError:
            password = secrets.token_urlsafe(_PASSWORD_BYTES)
            content = {"database": self.database, "role": self.database, "password": password}
            write_json(self.credentials_file, content)
            return password

    def config(self) -> dict[str, Any]:
        """Read the configuration. Raises Refused when it has not been written."""
        try:
            return read_json(self.config_file)
        except FileNotFoundError:
            raise Refused(f"the site {self.name} has no configuration") from None


def write_json(path: Path, content: object) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(content, file, indent=2, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises FileNotFoundError, or Refused when the file holds something else."""
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise Refused(f"{path.name} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise Refused(f"{path.name} does not hold a JSON object")
    return content
