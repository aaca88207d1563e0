"""A database that no running server sweeps, so that only the workers of a test touch its jobs."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from server.database import create_engine, migrate
from tests.services.provisioning.support import Workshop


@pytest.fixture(scope="session")
async def workshop_engine(engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    """A migrated database beside the one of the shared server."""
    name = f"workshop_{uuid4().hex}"
    async with engine.connect() as connection:
        plain = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await plain.execute(text(f"CREATE DATABASE {name}"))
    own = create_engine(engine.url.set(database=name).render_as_string(hide_password=False), pool_size=10)
    await migrate(own)
    yield own
    await own.dispose()
    async with engine.connect() as connection:
        plain = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await plain.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def workshop(workshop_engine: AsyncEngine, tmp_path: Path) -> Workshop:
    return Workshop(workshop_engine, tmp_path)
