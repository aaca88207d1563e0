"""What the driver itself keeps about a site, in a folder that only the server may read.

Three things: a lock, so that no two commands work on one site; a claim, so that undoing a job removes nothing
that existed before it; and the secrets generated for the site.
"""

import asyncio
import fcntl
import json
import os
import platform
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from secrets import token_hex
from typing import Final
from uuid import UUID

from providers.provisioning.commands import end_group, signal_group

_LOCK_POLL_S: Final = 0.1
_SECRET_BYTES: Final = 24


@dataclass(frozen=True, slots=True)
class _Holder:
    """Who holds a lock: the driver, the process group it started, and where those numbers mean something."""

    driver: int
    group: int
    process_namespace: str


@dataclass(frozen=True, slots=True)
class SiteLock:
    """A lock that is held. Commands inherit `fd`, so it stays held while one of them lives, driver or not."""

    fd: int

    def record_group(self, group: int) -> None:
        """Note which process group works under the lock now."""
        holder = _Holder(driver=os.getpid(), group=group, process_namespace=_process_namespace())
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, json.dumps(asdict(holder)).encode(), 0)


class SiteState:
    """The driver's memory of one site, under `{data_dir}/provisioning/{site_name}`."""

    def __init__(self, data_dir: Path, site_name: str) -> None:
        self._data_dir = data_dir
        self._folder = data_dir / "provisioning" / site_name
        self._claim = self._folder / "claim.json"
        self._secrets = self._folder / "secrets"

    @asynccontextmanager
    async def locked(self, *, grace_s: float, on_wait: Callable[[], Awaitable[None]]) -> AsyncIterator[SiteLock]:
        """Hold the site's lock; `on_wait` is awaited once if somebody else has it.

        When a driver was killed its command lives on, still holding the lock. Such an orphan is ended: the
        job it worked for is being resumed here. A command whose driver lives is waited for.
        """
        # The data folder itself is not ours to close: the embedded database's own user must get through it.
        self._data_dir.mkdir(parents=True, exist_ok=True)
        _make_private(self._folder)
        fd = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _try_lock(fd):
                await on_wait()
                await _await_lock(fd, grace_s=grace_s)
            os.ftruncate(fd, 0)
            yield SiteLock(fd)
        finally:
            # Closing, not unlocking: an unlock would also free what an inherited descriptor still holds.
            os.close(fd)

    def claim(self, job_id: UUID, *, made: Path) -> None:
        """Claim the site for the job that is about to make it, unless it is there already.

        A claim that is still open means that the site never went live, so the next job takes it over.
        """
        if self._claim.exists() or not made.exists():
            _make_private(self._folder)
            _write_private(self._claim, json.dumps({"job_id": str(job_id)}))

    def is_claimed_by(self, job_id: UUID) -> bool:
        """Tell whether everything the site consists of was made by this job and never went live."""
        try:
            return bool(json.loads(self._claim.read_text())["job_id"] == str(job_id))
        except (FileNotFoundError, ValueError, KeyError):
            return False

    def settle(self) -> None:
        """Close the claim: the site is live, or it is gone."""
        self._claim.unlink(missing_ok=True)

    def secret_path(self, name: str) -> Path:
        """Where the secret `name` is kept, whether or not it exists yet."""
        return self._secrets / name

    def make_secrets(self, names: Iterable[str]) -> None:
        """Generate the named secrets that the site does not have yet (48 hexadecimal digits each)."""
        for name in names:
            path = self.secret_path(name)
            if not path.exists():
                _make_private(path.parent)
                _write_private(path, token_hex(_SECRET_BYTES))

    def secrets(self, names: Iterable[str]) -> dict[str, str]:
        """Return those of the named secrets that the site has."""
        paths = {name: self.secret_path(name) for name in names}
        return {name: path.read_text() for name, path in paths.items() if path.exists()}

    def forget_secrets(self) -> None:
        """Forget the site's secrets, so that a later site of the same name does not inherit them."""
        shutil.rmtree(self._secrets, ignore_errors=True)


def _make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for nobody but us."""
    if not folder.exists():
        _make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _write_private(path: Path, text: str) -> None:
    """Write a file that only we can read, whole or not at all."""
    draft = path.with_name(path.name + ".new")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _await_lock(fd: int, *, grace_s: float) -> None:
    while not _try_lock(fd):
        orphan = _orphaned_group(fd)
        if orphan is not None:
            await end_group(orphan, grace_s=grace_s)
        await asyncio.sleep(_LOCK_POLL_S)


def _orphaned_group(fd: int) -> int | None:
    with suppress(ValueError, TypeError):
        holder = _Holder(**json.loads(os.pread(fd, 1024, 0)))
        if holder.process_namespace == _process_namespace() and not _alive(holder.driver):
            return holder.group if signal_group(holder.group, 0) else None
    return None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _process_namespace() -> str:
    # Containers that share the data folder share the lock, but the process numbers of one mean nothing in
    # another.
    try:
        return f"{platform.node()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()
