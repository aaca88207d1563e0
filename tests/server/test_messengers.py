"""The messengers' wiring: which settings make which roads, and telling messengers where the webhooks are."""

import argparse
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from server.cli import _register_bots
from server.messengers import open_roads, read_paces
from server.settings import Settings
from services.phones import Pace
from tests.fakes import max_bot, telegram_bot
from tests.fakes.max_bot import FakeMax
from tests.fakes.telegram_bot import FakeTelegram

SECRET = SecretStr("webhook-secret_of-the-test")


def settings(**values: Any) -> Settings:
    return Settings(_env_file=None, environment="test", public_url="https://erp.example.org", **values)


def bots(telegram: str, max_api: str) -> dict[str, Any]:
    return {
        "telegram_bot_token": SecretStr(telegram_bot.TOKEN),
        "telegram_bot_username": telegram_bot.USERNAME,
        "telegram_bot_webhook_secret": SECRET,
        "telegram_bot_api_base": telegram,
        "max_bot_token": SecretStr(max_bot.TOKEN),
        "max_bot_username": max_bot.USERNAME,
        "max_bot_webhook_secret": SECRET,
        "max_bot_api_base": max_api,
    }


async def test_development_makes_do_with_its_console_and_production_does_not() -> None:
    async with AsyncExitStack() as stack:
        roads = open_roads(settings(), stack)
        assert {name: sender.name for name, sender in roads.gateways.items()} == {
            "telegram": "console",
            "max": "console",
        }
        assert roads.gateways["max"].capabilities.development_only
        production = settings().model_copy(update={"environment": "production"})
        assert open_roads(production, stack).senders == {}


async def test_each_setting_makes_its_road_and_none_leaves_the_console() -> None:
    async with AsyncExitStack() as stack:
        gateway = open_roads(settings(telegram_gateway_token=SecretStr("token")), stack)
        assert (list(gateway.gateways), list(gateway.bots)) == (["telegram"], [])
        both = open_roads(settings(**bots("http://127.0.0.1:1", "http://127.0.0.1:1")), stack)
        assert (list(both.gateways), list(both.bots)) == ([], ["telegram", "max"])
        assert set(both.senders) == {"telegram_bot", "max_bot"}


def test_paces_are_read_from_the_rules() -> None:
    assert read_paces(settings().rate_phone_codes_per_phone) == [
        Pace(3, timedelta(minutes=10)),
        Pace(20, timedelta(days=1)),
    ]
    assert read_paces("off") == []


async def test_messengers_are_told_where_the_webhooks_are(capsys: pytest.CaptureFixture[str]) -> None:
    options = argparse.Namespace()
    async with FakeTelegram() as telegram, FakeMax() as fake_max:
        assert await _register_bots(options, settings(**bots(telegram.base_url, fake_max.base_url))) == 0
        assert telegram.webhook["url"] == "https://erp.example.org/api/v1/messengers/telegram/webhook"
        assert fake_max.subscription["url"] == "https://erp.example.org/api/v1/messengers/max/webhook"
    assert telegram.webhook["url"] in capsys.readouterr().out
    assert await _register_bots(options, settings(**bots(telegram.base_url, fake_max.base_url))) == 1
    assert await _register_bots(options, settings()) == 1
    assert "no bot is set up" in capsys.readouterr().err
