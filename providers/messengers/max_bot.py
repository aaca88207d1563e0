"""A bot in the messenger MAX: people open it first and show their number (dev.max.ru/docs-api).

Only Russian organisations may have one. The API's certificate is issued by the Russian state's authority, which systems
do not trust by themselves: `ca_file` adds it.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
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
from providers.messengers.max_updates import read_max
from providers.messengers.webhook import SharedSecret, is_nonce

SENDER: Final = "max_bot"
DEFAULT_API_BASE: Final = "https://platform-api2.max.ru"
DEFAULT_LINK_BASE: Final = "https://max.ru"
SECRET_HEADER: Final = "X-Max-Bot-Api-Secret"  # noqa: S105 - the name of a header

_UPDATES: Final = ("bot_started", "bot_stopped", "dialog_removed", "message_created")
_USERNAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")

logger = structlog.get_logger(__name__)


class MaxBot:
    """The adapter for one bot.

    Args:
        token: the bot's token.
        username: the bot's name in links, such as `id7700000000_bot`.
        webhook_secret: what MAX repeats with every update: 16 to 256 of `A-Z a-z 0-9 _ -`.
        api_base: where the API is.
        link_base: where links that open bots begin.
        ca_file: certificates to trust beside the system's (PEM).
        timeout_s: bounds each call.

    Raises:
        ValueError: the name or the secret is none.
        OSError: `ca_file` cannot be read.
    """

    def __init__(
        self,
        *,
        token: str,
        username: str,
        webhook_secret: str,
        api_base: str = DEFAULT_API_BASE,
        link_base: str = DEFAULT_LINK_BASE,
        ca_file: Path | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        if _USERNAME.fullmatch(username) is None:
            raise ValueError("a bot's name is 1 to 64 of A-Z a-z 0-9 _ -")
        self._token = token
        self._link = f"{link_base.rstrip('/')}/{username}"
        self._secret = SharedSecret(SECRET_HEADER, webhook_secret)
        self._connection = Connection(
            name=SENDER, base_url=api_base, headers={"Authorization": token}, timeout_s=timeout_s, ca_file=ca_file
        )

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
        answer = await self._write(message.address, {"text": message.text})
        logger.info("code sent", sender=SENDER, recipient=mask_phone(message.phone))
        return CodeSent(reference=_message_id(answer))

    def start_link(self, nonce: str) -> str:
        """See `MessengerBot.start_link`."""
        if not is_nonce(nonce):
            raise ValueError("a nonce is 1 to 64 of A-Z a-z 0-9 _ -")
        return f"{self._link}?start={nonce}"

    async def ask_for_contact(self, address: str, *, text: str, button: str) -> None:
        """See `MessengerBot.ask_for_contact`."""
        buttons = {"buttons": [[{"type": "request_contact", "text": button}]]}
        await self._write(address, {"text": text, "attachments": [{"type": "inline_keyboard", "payload": buttons}]})

    async def say(self, address: str, text: str) -> None:
        """See `MessengerBot.say`. Here buttons belong to their message, so none stays."""
        await self._write(address, {"text": text})

    async def set_webhook(self, url: str) -> None:
        """See `MessengerBot.set_webhook`."""
        subscription = {"url": url, "update_types": _UPDATES, "secret": self._secret.value}
        answer = await self._connection.post("subscriptions", subscription)
        if not answer.ok or answer.body.get("success") is not True:
            raise _refusal(answer)

    def read_updates(self, *, body: bytes, headers: Mapping[str, str]) -> tuple[BotEvent, ...]:
        """See `MessengerBot.read_updates`."""
        self._secret.prove(headers)
        return read_max(body, token=self._token)

    async def aclose(self) -> None:
        """See `CodeSender.aclose`."""
        await self._connection.aclose()

    async def _write(self, address: str, message: Mapping[str, object]) -> Answer:
        answer = await self._connection.post("messages", message, query={"user_id": address})
        if not answer.ok or not isinstance(answer.body.get("message"), Mapping):
            raise _refusal(answer)
        return answer


def _message_id(answer: Answer) -> str:
    """Read `message.body.mid`, at most 255 characters."""
    found: object = answer.body
    for key in ("message", "body", "mid"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found[:255] if isinstance(found, str) else ""


def _refusal(answer: Answer) -> RecipientUnreachable | MessengerUnavailable:
    code, text = answer.text("code"), answer.text("message")
    if answer.status == HTTPStatus.NOT_FOUND and (code == "chat.not.found" or text == "dialog.not.found"):
        return RecipientUnreachable(UnreachableBecause.NOT_STARTED)
    # What MAX says when the person has stopped the bot: `chat.denied`, with `error.dialog.suspended` as its text.
    if answer.status == HTTPStatus.FORBIDDEN and (code == "chat.denied" or "error.dialog.suspended" in (code, text)):
        return RecipientUnreachable(UnreachableBecause.BLOCKED)
    logger.error("messenger refuses us", sender=SENDER, status=answer.status)
    # An answer of success that is not what was asked for says nothing of the next one.
    return MessengerUnavailable(retryable=answer.ok)
