"""Worlds with every messenger, and with bots alone."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from services.phones import Pace
from tests.support.phones import World, phone_world
from tests.support.running import Orchestrator


@pytest.fixture
async def world(engine: AsyncEngine, orchestrator: Orchestrator, tmp_path: Path) -> AsyncIterator[World]:
    """Telegram's gateway, and a bot in both messengers."""
    async with phone_world(engine, orchestrator.services, tmp_path) as made:
        yield made


@pytest.fixture
async def bots_alone(engine: AsyncEngine, orchestrator: Orchestrator, tmp_path: Path) -> AsyncIterator[World]:
    """No gateway: a bot in both messengers, and three codes in ten minutes."""
    paces = [Pace(codes=3, within=timedelta(minutes=10))]
    async with phone_world(engine, orchestrator.services, tmp_path, gateways=(), paces=paces) as made:
        yield made
