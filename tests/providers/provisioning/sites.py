"""What the tests of the default recipe look at: a site's folder, its database and what is left on the server."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg

from providers.provisioning.contract import SiteTarget

# In quotes, because the class takes a parameter only in the eyes of a type checker.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


def folder_of(tmp_path: Path, target: SiteTarget) -> Path:
    return tmp_path / "data" / "sites" / target.site_name


def credentials_of(tmp_path: Path, target: SiteTarget) -> dict[str, str]:
    content = json.loads((folder_of(tmp_path, target) / "credentials.json").read_text())
    assert isinstance(content, dict)
    return content


@asynccontextmanager
async def connected(dsn: str, **options: Any) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(dsn, **options)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def inside(dsn: str, tmp_path: Path, target: SiteTarget) -> AsyncIterator[Connection]:
    """Connect to the site's database with nothing but the site's own credentials."""
    own = credentials_of(tmp_path, target)
    async with connected(dsn, user=own["role"], password=own["password"], database=own["database"]) as connection:
        yield connection


async def leftovers(dsn: str, target: SiteTarget) -> set[str]:
    """Return the databases and roles of the site that the server has."""
    async with connected(dsn) as admin:
        rows = await admin.fetch(
            "SELECT 'database ' || datname FROM pg_database WHERE datname LIKE $1 "
            "UNION ALL SELECT 'role ' || rolname FROM pg_roles WHERE rolname LIKE $1",
            f"site_{target.slug}%",
        )
    return {str(row[0]) for row in rows}


async def add_document(dsn: str, tmp_path: Path, target: SiteTarget, kind: str) -> None:
    async with inside(dsn, tmp_path, target) as site:
        await site.execute("INSERT INTO documents (app, kind) VALUES ('core', $1)", kind)


async def documents(dsn: str, tmp_path: Path, target: SiteTarget) -> list[str]:
    async with inside(dsn, tmp_path, target) as site:
        return [row[0] for row in await site.fetch("SELECT kind FROM documents ORDER BY id")]
