"""Webhooks of the bots: raw bodies, the messenger's secret, and whatever else is knocking."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers import messengers
from handlers.context import RateRules
from models.messengers import MessengerUpdate
from tests.handlers.frame import Client, open_door, refusal
from tests.support.phones import HEADERS, World, new_phone, phone_world
from tests.support.running import Orchestrator

# The cluster has the same database and the same code here, and nothing of it in Redis.
pytestmark = pytest.mark.embedded

TELEGRAM = "/api/v1/messengers/telegram/webhook"
RULES = RateRules(auth_per_ip="", sso_per_user="", webhooks_per_ip="3/minute", user_total="")


@pytest.fixture
async def world(engine: AsyncEngine, orchestrator: Orchestrator, tmp_path: Path) -> AsyncIterator[World]:
    async with phone_world(engine, orchestrator.services, tmp_path) as made:
        yield made


@pytest.fixture
async def door(engine: AsyncEngine, world: World) -> AsyncIterator[Client]:
    services = SimpleNamespace(phones=world.identity.phones)
    async with open_door(engine, rules=RULES, routers=[messengers.router], services=services) as client:
        yield client


async def test_updates_are_taken_each_once(door: Client, world: World) -> None:
    updates = {
        "telegram": world.telegram.write(world.telegram.person(new_phone()), "/start"),
        "max": world.max.write(world.max.person(new_phone()), "/start"),
    }
    for messenger, update in updates.items():
        for _ in range(5):
            response = await door.post(
                f"/api/v1/messengers/{messenger}/webhook", data=json.dumps(update), headers=HEADERS[messenger]
            )
            assert (response.status, await response.json()) == (200, {"ok": True})
    noted = await world.identity.rows(
        select(MessengerUpdate).where(MessengerUpdate.update_id == str(updates["telegram"]["update_id"]))
    )
    assert len(noted) == 1


async def test_whoever_guesses_the_secret_is_refused_and_limited(door: Client) -> None:
    for headers in ({}, {"X-Telegram-Bot-Api-Secret-Token": "wrong"}, HEADERS["max"]):
        await refusal(await door.post(TELEGRAM, data=b"{}", headers=headers), 401, "INVALID_SIGNATURE")
    limited = await door.post(TELEGRAM, data=b"{}")
    await refusal(limited, 429, "RATE_LIMITED")
    assert 0 < int(limited.headers["Retry-After"]) <= 61


async def test_what_is_no_update_is_refused(door: Client) -> None:
    for body in (b"", b"[]", b"\xff", b'{"update_id": "x"}'):
        await refusal(await door.post(TELEGRAM, data=body, headers=HEADERS["telegram"]), 400, "INVALID_PAYLOAD")
    await refusal(await door.post(TELEGRAM, data=b" " * 600_000, headers=HEADERS["telegram"]), 413, "PAYLOAD_TOO_LARGE")
    signal = "/api/v1/messengers/signal/webhook"
    await refusal(await door.post(signal, data=b"{}", headers=HEADERS["telegram"]), 404, "NOT_FOUND")
