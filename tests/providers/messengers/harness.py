"""Each adapter beside the fake that it speaks to, and a webhook that hands what it gets to an adapter."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self
from uuid import UUID

from aiohttp import web

from providers.messengers import BotEvent, CodeMessage, CodeSender, MessengerBot, UpdateNotProven, UpdateUnreadable
from providers.messengers.max_bot import MaxBot
from providers.messengers.telegram_bot import TelegramBot
from providers.messengers.telegram_gateway import TelegramGateway
from tests.fakes import max_bot as max_fake
from tests.fakes import telegram_bot as telegram_fake
from tests.fakes import telegram_gateway as gateway_fake
from tests.fakes.max_bot import FakeMax
from tests.fakes.messenger_http import FakeHttpServer, Obj
from tests.fakes.telegram_bot import FakeTelegram
from tests.fakes.telegram_gateway import FakeTelegramGateway

PHONE = "+79991234567"
CODE = "042817"
SECRET = "webhook-secret_of-the-test"
NONCE = "n0nce-of_43-characters-as-opaque-tokens-are"
# Long enough for a busy machine, short enough to wait for where nobody answers.
TIMEOUT_S = 10.0
IMPATIENT_S = 0.2


def message(phone: str = PHONE, *, address: str | None = None, code: str = CODE, lifetime_s: int = 300) -> CodeMessage:
    return CodeMessage(
        id=UUID("0198c0de-0000-7000-8000-000000000001"),
        phone=phone,
        address=address,
        code=code,
        text=f"{code} - ваш код для входа. Никому его не сообщайте.",
        lifetime_s=lifetime_s,
    )


class SenderHarness(Protocol):
    """One sender and its other side."""

    @property
    def fake(self) -> FakeHttpServer: ...

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no log and no error may show."""

    def sender(self, *, timeout_s: float = TIMEOUT_S, token: str | None = None) -> CodeSender: ...

    async def known(self, sender: CodeSender) -> CodeMessage:
        """A message to somebody who can be reached."""

    def codes(self) -> list[str]:
        """The texts that reached people."""

    def busy(self, wait_s: int) -> None:
        """Let the messenger ask for patience from now on."""


@dataclass
class GatewayHarness:
    fake: FakeTelegramGateway
    secrets: tuple[str, ...] = (gateway_fake.TOKEN, PHONE, PHONE[1:-2], CODE)

    def sender(self, *, timeout_s: float = TIMEOUT_S, token: str | None = None) -> TelegramGateway:
        return TelegramGateway(token=token or gateway_fake.TOKEN, api_base=self.fake.base_url, timeout_s=timeout_s)

    async def known(self, sender: CodeSender) -> CodeMessage:
        self.fake.accounts.add(PHONE)
        return message()

    def codes(self) -> list[str]:
        return [sent["code"] for sent in self.fake.sent]

    def busy(self, wait_s: int) -> None:
        self.fake.refusals["checkSendAbility"] = f"FLOOD_WAIT_{wait_s}"


class BotHarness(SenderHarness, Protocol):
    """One bot, its other side, and the people there."""

    def sender(self, *, timeout_s: float = TIMEOUT_S, token: str | None = None) -> MessengerBot: ...

    def person(self, phone: str) -> int: ...

    def open_link(self, user: int, link: str) -> Obj: ...

    def share_own_contact(self, user: int) -> Obj: ...

    def share_contact_of(self, user: int, other: int, phone: str) -> Obj: ...

    def stop(self, user: int) -> Obj: ...

    async def deliver(self, update: object, url: str, *, secret: str | None = None) -> int: ...


@dataclass
class TelegramHarness:
    fake: FakeTelegram
    secrets: tuple[str, ...] = (telegram_fake.TOKEN, PHONE, PHONE[1:-2], CODE, SECRET)

    def sender(self, *, timeout_s: float = TIMEOUT_S, token: str | None = None) -> TelegramBot:
        return TelegramBot(
            token=token or telegram_fake.TOKEN,
            username=telegram_fake.USERNAME,
            webhook_secret=SECRET,
            api_base=self.fake.base_url,
            timeout_s=timeout_s,
        )

    async def known(self, sender: CodeSender) -> CodeMessage:
        user = self.fake.person(PHONE)
        self.fake.write(user, "/start")
        return message(address=str(user))

    def codes(self) -> list[str]:
        return [sent["text"].split()[0] for sent in self.fake.messages]

    def busy(self, wait_s: int) -> None:
        self.fake.flood_wait_s = wait_s

    def person(self, phone: str) -> int:
        return self.fake.person(phone)

    def open_link(self, user: int, link: str) -> Obj:
        return self.fake.open_link(user, link)

    def share_own_contact(self, user: int) -> Obj:
        return self.fake.share_own_contact(user)

    def share_contact_of(self, user: int, other: int, phone: str) -> Obj:
        return self.fake.share_card(user, phone=phone, owner=other)

    def stop(self, user: int) -> Obj:
        return self.fake.block(user)

    async def deliver(self, update: object, url: str, *, secret: str | None = None) -> int:
        return await self.fake.deliver_update(update, url, secret=secret)


@dataclass
class MaxHarness:
    fake: FakeMax
    secrets: tuple[str, ...] = (max_fake.TOKEN, PHONE, PHONE[1:-2], CODE, SECRET)

    def sender(self, *, timeout_s: float = TIMEOUT_S, token: str | None = None) -> MaxBot:
        return MaxBot(
            token=token or max_fake.TOKEN,
            username=max_fake.USERNAME,
            webhook_secret=SECRET,
            api_base=self.fake.base_url,
            timeout_s=timeout_s,
        )

    async def known(self, sender: CodeSender) -> CodeMessage:
        assert isinstance(sender, MaxBot)
        user = self.fake.person(PHONE)
        self.fake.open_link(user, sender.start_link(NONCE))
        return message(address=str(user))

    def codes(self) -> list[str]:
        return [sent["text"].split()[0] for sent in self.fake.messages]

    def busy(self, wait_s: int) -> None:
        self.fake.busy_for_s = wait_s

    def person(self, phone: str) -> int:
        return self.fake.person(phone)

    def open_link(self, user: int, link: str) -> Obj:
        return self.fake.open_link(user, link)

    def share_own_contact(self, user: int) -> Obj:
        return self.fake.share_own_contact(user)

    def share_contact_of(self, user: int, other: int, phone: str) -> Obj:
        # MAX's own signature, but made for somebody else.
        card = self.fake.card(phone)
        return self.fake.share_card(user, card=card, owner=other, signature=self.fake.sign(card))

    def stop(self, user: int) -> Obj:
        return self.fake.stop(user)

    async def deliver(self, update: object, url: str, *, secret: str | None = None) -> int:
        return await self.fake.deliver_update(update, url, secret=secret)


Reader = Callable[[bytes, Mapping[str, str]], tuple[BotEvent, ...]]


@dataclass
class Webhook:
    """A door that gives what it gets to `read`, and answers as the product's doors do."""

    read: Reader
    url: str = ""
    events: list[BotEvent] = field(default_factory=list)
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_post("/webhook", self._receive)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/webhook"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        try:
            self.events += self.read(await request.read(), request.headers)
        except UpdateNotProven:
            return web.Response(status=401)
        except UpdateUnreadable:
            return web.Response(status=400)
        return web.Response()


def webhook_of(bot: MessengerBot) -> Webhook:
    return Webhook(lambda body, headers: bot.read_updates(body=body, headers=headers))
