"""A stand-in for `bench`, as strict about its options as Frappe 15 (frappe/commands/site.py and its neighbours).

Installed as an executable named `bench`. It keeps sites as folders under `./sites`, notes every call in `calls.jsonl`
beside itself, and misbehaves as `orders.json` there says: `{"<command>": "fail" | "half" | "hang"}`.
"""

import argparse
import gzip
import json
import os
import shutil
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
SITES = Path("sites")


def config_of(site: str) -> Path:
    return SITES / site / "site_config.json"


def read_config(site: str) -> dict[str, object]:
    if not config_of(site).exists():
        sys.exit(f"{site} does not exist")
    content = json.loads(config_of(site).read_text())
    assert isinstance(content, dict)
    return content


def update_config(site: str, **changes: object) -> None:
    config_of(site).write_text(json.dumps(read_config(site) | changes))


def new_site(given: argparse.Namespace) -> None:
    folder = SITES / given.site
    if folder.exists() and not given.force:
        sys.exit(f"Site {given.site} already exists, use `--force` to proceed anyway")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "private").mkdir(parents=True)
    obey("new-site", kind="half")
    print("\nInstalling frappe...")
    for percent in (10, 55, 100):
        print(f"\rUpdating DocTypes for frappe : [{'=' * (percent // 10):<10}] {percent}%", end="", flush=True)
    print("\n\x1b[33m*** Scheduler is disabled ***\x1b[0m")
    content = {"apps": ["frappe"], "admin_password": given.admin_password, "documents": []}
    config_of(given.site).write_text(json.dumps(content))


def list_apps(given: argparse.Namespace) -> None:
    print("\n".join(map(str, read_config(given.site)["apps"])))  # type: ignore[call-overload]


def install_app(given: argparse.Namespace) -> None:
    apps = read_config(given.site)["apps"]
    assert isinstance(apps, list)
    for app in given.apps:
        if app in apps and not given.force:
            print(f"App {app} already installed")
        else:
            print(f"\nInstalling {app}...")
    update_config(given.site, apps=list(dict.fromkeys([*apps, *given.apps])))


def set_config(given: argparse.Namespace) -> None:
    update_config(given.site, **{given.key: given.value})


def enable_scheduler(given: argparse.Namespace) -> None:
    update_config(given.site, scheduler=True)
    print("Enabled for", given.site)


def set_maintenance_mode(given: argparse.Namespace) -> None:
    update_config(given.site, maintenance_mode=given.state)


def set_admin_password(given: argparse.Namespace) -> None:
    update_config(given.site, admin_password=given.admin_password)


def migrate(given: argparse.Namespace) -> None:
    update_config(given.site, migrated=True)
    print("Migrating", given.site)


def backup(given: argparse.Namespace) -> None:
    content = json.dumps(read_config(given.site))
    for place in (given.backup_path_db, given.backup_path_files, given.backup_path_private_files):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(given.backup_path_db, "wt") as file:
        file.write(content)
    Path(given.backup_path_conf).write_text(content)
    for place in (given.backup_path_files, given.backup_path_private_files):
        tarfile.open(place, "w").close()
    print(f"Backup for Site {given.site} has been successfully completed with files")


def restore(given: argparse.Namespace) -> None:
    for place in (given.with_public_files, given.with_private_files):
        assert place is None or tarfile.is_tarfile(place)
    with gzip.open(given.sql_file_path, "rt") as file:
        config_of(given.site).write_text(file.read())
    print(f"Site {given.site} has been restored")


def drop_site(given: argparse.Namespace) -> None:
    archive = Path(given.archived_sites_path)
    archive.mkdir(parents=True, exist_ok=True)
    shutil.move(SITES / given.site, archive / f"{given.site}{time.monotonic_ns()}")


ROOT = ["--db-root-username", "--db-root-password"]
COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], None], list[str], list[str], list[str]]] = {
    # name: what it does, its arguments, its options with a value, its flags
    "new-site": (
        new_site,
        ["site"],
        [*ROOT, "--db-type", "--db-host", "--db-port", "--mariadb-user-host-login-scope", "--admin-password"],
        ["--verbose", "--force"],
    ),
    "list-apps": (list_apps, [], ["--format"], []),
    "install-app": (install_app, ["apps"], [], ["--force"]),
    "set-config": (set_config, ["key", "value"], [], ["--global", "--parse"]),
    "enable-scheduler": (enable_scheduler, [], [], []),
    "set-maintenance-mode": (set_maintenance_mode, ["state"], [], []),
    "set-admin-password": (set_admin_password, ["admin_password"], [], ["--logout-all-sessions"]),
    "migrate": (migrate, [], [], ["--skip-failing"]),
    "backup": (
        backup,
        [],
        [
            "--backup-path",
            "--backup-path-db",
            "--backup-path-conf",
            "--backup-path-files",
            "--backup-path-private-files",
        ],
        ["--with-files", "--compress", "--verbose"],
    ),
    "restore": (
        restore,
        ["sql_file_path"],
        [*ROOT, "--db-name", "--admin-password", "--with-public-files", "--with-private-files"],
        ["--force"],
    ),
    "drop-site": (drop_site, ["site"], [*ROOT, "--archived-sites-path"], ["--no-backup", "--force"]),
}
OWN_SITE = {"new-site", "drop-site"}


def obey(command: str, *, kind: str) -> None:
    """Misbehave, if that is ordered; an order counts once."""
    orders = HERE / "orders.json"
    wanted: dict[str, str] = json.loads(orders.read_text()) if orders.exists() else {}
    if wanted.get(command) != kind:
        return
    orders.write_text(json.dumps({name: order for name, order in wanted.items() if name != command}))
    if kind == "hang":
        time.sleep(300)
    sys.exit(f"{command} could not reach the database")


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="bench", allow_abbrev=False)
    parser.add_argument("--site", dest="chosen_site")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (_, positional, options, flags) in COMMANDS.items():
        command = commands.add_parser(name, allow_abbrev=False)
        for argument in positional:
            command.add_argument(argument, nargs="+" if argument == "apps" else None)
        for option in options:
            command.add_argument(option)
        for flag in flags:
            command.add_argument(flag, action="store_true")
    with (HERE / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps({"argv": arguments, "environment": sorted(os.environ)}) + "\n")
    given = parser.parse_args(arguments)
    if given.command not in OWN_SITE:
        if given.chosen_site is None:
            sys.exit("Please specify --site sitename")
        given.site = given.chosen_site
    for kind in ("fail", "hang"):
        obey(given.command, kind=kind)
    COMMANDS[given.command][0](given)


if __name__ == "__main__":
    main(sys.argv[1:])
