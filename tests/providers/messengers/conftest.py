"""Messengers under test, each with its other side."""

from collections.abc import AsyncIterator

import pytest

from tests.fakes.max_bot import FakeMax
from tests.fakes.telegram_bot import FakeTelegram
from tests.fakes.telegram_gateway import FakeTelegramGateway
from tests.providers.messengers.harness import (
    BotHarness,
    GatewayHarness,
    MaxHarness,
    SenderHarness,
    TelegramHarness,
)


@pytest.fixture
async def gateway() -> AsyncIterator[GatewayHarness]:
    """Telegram Gateway, where nobody has an account yet."""
    async with FakeTelegramGateway() as fake:
        yield GatewayHarness(fake)


@pytest.fixture
async def telegram() -> AsyncIterator[TelegramHarness]:
    """A Telegram bot that nobody has opened yet."""
    async with FakeTelegram() as fake:
        yield TelegramHarness(fake)


@pytest.fixture
async def max_messenger() -> AsyncIterator[MaxHarness]:
    """A MAX bot that nobody has opened yet."""
    async with FakeMax() as fake:
        yield MaxHarness(fake)


@pytest.fixture(params=["telegram_gateway", "telegram_bot", "max_bot"])
def harness(
    request: pytest.FixtureRequest, gateway: GatewayHarness, telegram: TelegramHarness, max_messenger: MaxHarness
) -> SenderHarness:
    """Every sender in turn."""
    senders: dict[str, SenderHarness] = {
        "telegram_gateway": gateway,
        "telegram_bot": telegram,
        "max_bot": max_messenger,
    }
    return senders[request.param]


@pytest.fixture(params=["telegram_bot", "max_bot"])
def bot_harness(request: pytest.FixtureRequest, telegram: TelegramHarness, max_messenger: MaxHarness) -> BotHarness:
    """Every bot in turn."""
    bots: dict[str, BotHarness] = {"telegram_bot": telegram, "max_bot": max_messenger}
    return bots[request.param]
