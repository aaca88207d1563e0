"""Limits of the doors for phones: by address, by phone, and for everybody together (contract.md 9.8)."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from handlers import phone_codes, phones
from handlers.context import RateRules
from services.phones import Pace
from tests.handlers.frame import open_door, refusal
from tests.support.phones import World, new_phone, phone_world
from tests.support.running import Orchestrator

# The cluster has the same database and the same code here; that Redis counts for all is proved of the limiter.
pytestmark = pytest.mark.embedded

NONE = RateRules(auth_per_ip="", sso_per_user="", webhooks_per_ip="", user_total="")
SEND, CHECK, VERIFY = "/api/auth/send-code", "/api/auth/check-phone", "/api/v1/auth/verify"


@pytest.fixture
async def world(engine: AsyncEngine, orchestrator: Orchestrator, tmp_path: Path) -> AsyncIterator[World]:
    paces = [Pace(codes=3, within=timedelta(minutes=10))]
    async with phone_world(engine, orchestrator.services, tmp_path, bots=(), paces=paces) as made:
        yield made


@pytest.mark.parametrize(
    ("rules", "path", "phone"),
    [
        (replace(NONE, phone_codes_per_ip="3/minute"), SEND, ""),
        (replace(NONE, phone_checks_per_ip="3/minute"), CHECK, ""),
        (replace(NONE, auth_per_ip="3/minute"), VERIFY, ""),
        (replace(NONE, auth_per_account="3/minute"), VERIFY, "8 (916) 000-00-01"),
        (NONE, SEND, new_phone()),
    ],
    ids=["codes by address", "checks", "guesses by address", "guesses by phone", "codes by phone"],
)
async def test_the_fourth_has_to_wait(
    engine: AsyncEngine, world: World, rules: RateRules, path: str, phone: str
) -> None:
    services = SimpleNamespace(auth=world.identity.auth, phones=world.identity.phones)
    routers = [phones.router, phone_codes.router]
    async with open_door(engine, rules=rules, routers=routers, services=services) as client:
        for _ in range(3):
            body = {"phone": phone or new_phone(), "code": "000000"}
            assert (await client.post(path, json=body)).status in (200, 400)
        limited = await client.post(path, json={"phone": phone or new_phone(), "code": "000000"})
        await refusal(limited, 429, "RATE_LIMITED")
        assert 0 < int(limited.headers["Retry-After"]) <= 601


async def test_one_phone_does_not_use_up_what_is_for_all(
    engine: AsyncEngine, orchestrator: Orchestrator, tmp_path: Path
) -> None:
    """Asked for from many addresses at once; only codes that go out count, however many go out at once."""
    paces, total = [Pace(codes=3, within=timedelta(minutes=10))], [Pace(codes=8, within=timedelta(hours=1))]
    async with phone_world(engine, orchestrator.services, tmp_path, bots=(), paces=paces, total=total) as world:
        services = SimpleNamespace(auth=world.identity.auth, phones=world.identity.phones)
        rules, routers = replace(NONE, phone_codes_per_ip="5/minute"), [phones.router]
        async with open_door(
            engine, rules=rules, routers=routers, services=services, trusted_proxies=["127.0.0.0/8"]
        ) as client:

            async def ask(phone: str, number: int) -> int:
                address = {"X-Forwarded-For": f"203.0.113.{number}"}
                async with client.post(SEND, json={"phone": phone}, headers=address) as response:
                    return response.status

            victim = new_phone()
            one = await asyncio.gather(*(ask(victim, number) for number in range(40)))
            many = await asyncio.gather(*(ask(new_phone(), number) for number in range(100, 130)))

    assert (one.count(200), one.count(429)) == (3, 37)
    assert (many.count(200), many.count(429)) == (5, 25), "all that is left, and no more"
