"""The messengers' part of the wiring: settings become adapters, by the names that clients know them by."""

import sys
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

from limits import parse_many

from providers.messengers import CodeSender, MessengerBot
from providers.messengers.console import ConsoleSender
from providers.messengers.max_bot import MaxBot
from providers.messengers.telegram_bot import TelegramBot
from providers.messengers.telegram_gateway import TelegramGateway
from server.settings import Settings
from services.phones import Pace, Roads


def open_roads(settings: Settings, stack: AsyncExitStack) -> Roads:
    """Build every messenger that `settings` know; `stack` closes them. Development alone makes do with its console."""
    gateways: dict[str, CodeSender] = {}
    bots: dict[str, MessengerBot] = {}
    if token := settings.telegram_gateway_token.get_secret_value():
        gateways["telegram"] = TelegramGateway(
            token=token,
            api_base=settings.telegram_gateway_api_base,
            sender_username=settings.telegram_gateway_sender,
        )
    if token := settings.telegram_bot_token.get_secret_value():
        bots["telegram"] = TelegramBot(
            token=token,
            username=settings.telegram_bot_username,
            webhook_secret=settings.telegram_bot_webhook_secret.get_secret_value(),
            api_base=settings.telegram_bot_api_base,
        )
    if token := settings.max_bot_token.get_secret_value():
        bots["max"] = MaxBot(
            token=token,
            username=settings.max_bot_username,
            webhook_secret=settings.max_bot_webhook_secret.get_secret_value(),
            api_base=settings.max_bot_api_base,
            ca_file=Path(settings.max_bot_ca_file) if settings.max_bot_ca_file else None,
        )
    if settings.development and not gateways and not bots:
        # It stands in for both, so that a client can be tried with either.
        console = ConsoleSender(sys.stderr)
        gateways = {"telegram": console, "max": console}
    for sender in (*gateways.values(), *bots.values()):
        stack.push_async_callback(sender.aclose)
    return Roads(gateways=gateways, bots=bots)


def read_paces(rules: str) -> list[Pace]:
    """Return how many codes a setting allows, in the notation of the `limits` library; without bounds for `off`."""
    if rules == "off":
        return []
    return [Pace(codes=rule.amount, within=timedelta(seconds=rule.get_expiry())) for rule in parse_many(rules)]
