"""A Telegram bot: no fee, but people open it first and show their number (core.telegram.org/bots/api)."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import structlog

from core.phones import mask_phone
from providers.messengers.connection import Answer, Connection
from providers.messengers.contract import (
    BotEvent,
    CodeMessage,
    CodeSent,
    MessengerUnavailable,
    RecipientUnreachable,
    SenderCapabilities,
    UnreachableBecause,
)
from providers.messengers.telegram_updates import read_telegram
from providers.messengers.webhook import SharedSecret, is_nonce

SENDER: Final = "telegram_bot"
DEFAULT_API_BASE: Final = "https://api.telegram.org"
DEFAULT_LINK_BASE: Final = "https://t.me"
SECRET_HEADER: Final = "X-Telegram-Bot-Api-Secret-Token"  # noqa: S105 - the name of a header

_UPDATES: Final = ("message", "my_chat_member")
_REMOVE_BUTTON: Final = {"remove_keyboard": True}
_USERNAME: Final = re.compile(r"[A-Za-z0-9_]{1,64}")

logger = structlog.get_logger(__name__)


class TelegramBot:
    """The adapter for one bot.

    Args:
        token: the bot's token.
        username: the bot's name, without the `@`.
        webhook_secret: what Telegram repeats with every update: 16 to 256 of `A-Z a-z 0-9 _ -`.
        api_base: where the API is.
        link_base: where links that open bots begin.
        timeout_s: bounds each call.

    Raises:
        ValueError: the name or the secret is none.
    """

    def __init__(
        self,
        *,
        token: str,
        username: str,
        webhook_secret: str,
        api_base: str = DEFAULT_API_BASE,
        link_base: str = DEFAULT_LINK_BASE,
        timeout_s: float = 10.0,
    ) -> None:
        if _USERNAME.fullmatch(username) is None:
            raise ValueError("a bot's name is 1 to 64 of A-Z a-z 0-9 _")
        self._link = f"{link_base.rstrip('/')}/{username}"
        self._secret = SharedSecret(SECRET_HEADER, webhook_secret)
        self._connection = Connection(name=SENDER, base_url=f"{api_base.rstrip('/')}/bot{token}", timeout_s=timeout_s)

    @property
    def name(self) -> str:
        return SENDER

    @property
    def capabilities(self) -> SenderCapabilities:
        return SenderCapabilities(reach="address", development_only=False)

    async def send(self, message: CodeMessage) -> CodeSent:
        """See `CodeSender.send`."""
        if message.address is None:
            raise RecipientUnreachable(UnreachableBecause.NOT_STARTED)
        result = await self._write(message.address, message.text, reply_markup=_REMOVE_BUTTON)
        logger.info("code sent", sender=SENDER, recipient=mask_phone(message.phone))
        return CodeSent(reference=str(result.get("message_id", "")))

    def start_link(self, nonce: str) -> str:
        """See `MessengerBot.start_link`."""
        if not is_nonce(nonce):
            raise ValueError("a nonce is 1 to 64 of A-Z a-z 0-9 _ -")
        return f"{self._link}?start={nonce}"

    async def ask_for_contact(self, address: str, *, text: str, button: str) -> None:
        """See `MessengerBot.ask_for_contact`."""
        keyboard = {
            "keyboard": [[{"text": button, "request_contact": True}]],
            "resize_keyboard": True,
            "one_time_keyboard": True,
        }
        await self._write(address, text, reply_markup=keyboard)

    async def say(self, address: str, text: str) -> None:
        """See `MessengerBot.say`."""
        await self._write(address, text, reply_markup=_REMOVE_BUTTON)

    async def set_webhook(self, url: str) -> None:
        """See `MessengerBot.set_webhook`."""
        parameters = {"url": url, "secret_token": self._secret.value, "allowed_updates": _UPDATES}
        answer = await self._connection.post("setWebhook", parameters)
        if answer.body.get("ok") is not True:
            raise _refusal(answer)

    def read_updates(self, *, body: bytes, headers: Mapping[str, str]) -> tuple[BotEvent, ...]:
        """See `MessengerBot.read_updates`."""
        self._secret.prove(headers)
        return read_telegram(body)

    async def aclose(self) -> None:
        """See `CodeSender.aclose`."""
        await self._connection.aclose()

    async def _write(self, address: str, text: str, *, reply_markup: Mapping[str, object]) -> Mapping[str, object]:
        parameters = {"chat_id": address, "text": text, "reply_markup": reply_markup}
        answer = await self._connection.post("sendMessage", parameters)
        result = answer.body.get("result")
        if answer.body.get("ok") is True and isinstance(result, Mapping):
            return result
        raise _refusal(answer)


def _refusal(answer: Answer) -> RecipientUnreachable | MessengerUnavailable:
    # Telegram's errors have no codes of their own: the status says the kind, and only the description says which.
    description = answer.text("description")
    if answer.status == HTTPStatus.FORBIDDEN:
        never_met = "can't initiate conversation" in description
        return RecipientUnreachable(UnreachableBecause.NOT_STARTED if never_met else UnreachableBecause.BLOCKED)
    if answer.status == HTTPStatus.BAD_REQUEST and "chat not found" in description:
        return RecipientUnreachable(UnreachableBecause.NOT_STARTED)
    logger.error("messenger refuses us", sender=SENDER, status=answer.status)
    # An answer of success that is not what was asked for says nothing of the next one.
    return MessengerUnavailable(retryable=answer.ok)
