"""The services under test, with a clock of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.identity import Identity, build_identity
from tests.support.running import Orchestrator


@pytest.fixture
def identity(engine: AsyncEngine, orchestrator: Orchestrator, tmp_path: Path) -> Iterator[Identity]:
    """Identity and tenancy on the shared database."""
    built = build_identity(engine, orchestrator.services, tmp_path)
    yield built
    built.hasher.close()
