"""The command line: `python -m providers.provisioning.local_site COMMAND --data-dir ... --site ... ...`."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg

from core.clock import SystemClock
from providers.provisioning.local_site.commands import SiteCommands
from providers.provisioning.local_site.database import Server
from providers.provisioning.local_site.site import Site
from providers.provisioning.local_site.speech import Refused, say

FAILED: Final = 1
REFUSED: Final = 65


@dataclass(frozen=True, slots=True)
class _Entry:
    """A command: what it calls and the options it takes besides the common ones."""

    call: Callable[[SiteCommands, argparse.Namespace], None]
    options: tuple[str, ...] = ()


_OPTIONS: Final[dict[str, Callable[[str], object]]] = {
    "--admin-email": str,
    "--backup": str,
    "--backup-id": UUID,
    "--job-id": UUID,
    "--limits": json.loads,
    "--plan": str,
    "--url": str,
}

_COMMANDS: Final = {
    "make-folder": _Entry(lambda site, _: site.make_folder()),
    "remove-folder": _Entry(lambda site, _: site.remove_folder()),
    "create-database": _Entry(lambda site, _: site.create_database()),
    "drop-database": _Entry(lambda site, _: site.drop_database()),
    "write-config": _Entry(
        lambda site, given: site.write_config(
            url=given.url, plan=given.plan, limits=given.limits, admin_email=given.admin_email
        ),
        ("--url", "--plan", "--limits", "--admin-email"),
    ),
    "install-schema": _Entry(lambda site, _: site.install_schema()),
    "verify": _Entry(lambda site, _: site.verify()),
    "keep-config": _Entry(lambda site, given: site.keep_config(given.job_id), ("--job-id",)),
    "put-back-config": _Entry(lambda site, given: site.put_back_config(given.job_id), ("--job-id",)),
    "forget-config": _Entry(lambda site, given: site.forget_config(given.job_id), ("--job-id",)),
    "backup": _Entry(lambda site, given: site.back_up(given.backup_id), ("--backup-id",)),
    "dump": _Entry(lambda site, given: site.dump(given.backup_id), ("--backup-id",)),
    "archive": _Entry(lambda site, given: site.archive(given.backup_id), ("--backup-id",)),
    "seal": _Entry(lambda site, given: site.seal(given.backup_id), ("--backup-id",)),
    "discard-backup": _Entry(lambda site, given: site.discard_backup(given.backup_id), ("--backup-id",)),
    "choose-backup": _Entry(lambda site, given: site.choose_backup(given.backup), ("--backup",)),
    "load": _Entry(lambda site, given: site.load(given.backup_id, given.job_id), ("--backup-id", "--job-id")),
    "swap-in": _Entry(lambda site, given: site.swap_in(given.backup_id, given.job_id), ("--backup-id", "--job-id")),
    "undo-restore": _Entry(lambda site, given: site.undo_restore(given.job_id), ("--job-id",)),
    "finish-restore": _Entry(lambda site, _: site.finish_restore()),
    "final-backup": _Entry(lambda site, given: site.final_backup(given.backup_id), ("--backup-id",)),
    "verify-gone": _Entry(lambda site, _: site.verify_gone()),
}


def main(arguments: Sequence[str]) -> int:
    """Carry out one command and return the exit code."""
    given = _parser().parse_args(arguments)
    # Whatever is written here is the site's own: no other user of the machine may read it.
    os.umask(0o077)
    # This is a program of its own, started with exactly the environment that the recipe lists.
    address = os.environ.get("PROVISIONING_DATABASE_URL", "")  # noqa: TID251
    try:
        commands = SiteCommands(
            site=Site(data_dir=given.data_dir, name=given.site, tenant_id=given.tenant_id),
            server=Server.at(address),
            clock=SystemClock(),
        )
        _COMMANDS[given.command].call(commands, given)
    except Refused as refusal:
        return _fail(str(refusal), REFUSED)
    except subprocess.CalledProcessError as error:
        # On the standard output, because the program itself has told the reason on the other.
        say(f"{Path(error.cmd).name} ended with {error.returncode}")
        return FAILED
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return _fail(f"{type(error).__name__}: {error}", FAILED)
    return 0


def _fail(reason: str, code: int) -> int:
    sys.stderr.write(f"{reason}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="local_site", description=sys.modules[__name__].__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, entry in _COMMANDS.items():
        command = commands.add_parser(name)
        command.add_argument("--data-dir", type=Path, required=True)
        command.add_argument("--site", required=True)
        command.add_argument("--tenant-id", type=UUID, required=True)
        for option in entry.options:
            command.add_argument(option, type=_OPTIONS[option], required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
