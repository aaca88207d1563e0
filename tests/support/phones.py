"""People with phones, and the messengers that reach them: real adapters on fakes that answer over HTTP."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from models.audit import AuditEntry
from models.messengers import MessengerMessage
from models.phones import PhoneCode
from providers.messengers import MessengerBot
from providers.messengers.max_bot import MaxBot
from providers.messengers.telegram_bot import TelegramBot
from providers.messengers.telegram_gateway import TelegramGateway
from services.auth.phone_views import PhoneSessionView
from services.phones import CodeRequested, Pace, Roads
from services.phones.post import TASK
from services.registry import Services
from tests.fakes import max_bot as max_fake
from tests.fakes import telegram_bot as telegram_fake
from tests.fakes import telegram_gateway as gateway_fake
from tests.fakes.max_bot import FakeMax
from tests.fakes.messenger_http import Obj
from tests.fakes.telegram_bot import FakeTelegram
from tests.fakes.telegram_gateway import FakeTelegramGateway
from tests.support.identity import DEVICE, PLATFORM, Identity, build_identity

SECRET = "webhook-secret_of-the-test"
HEADERS = {
    "telegram": {"X-Telegram-Bot-Api-Secret-Token": SECRET},
    "max": {"X-Max-Bot-Api-Secret": SECRET},
}


def new_phone() -> str:
    """Return a mobile number that no other test has, in E.164."""
    return f"+7916{secrets.randbelow(10**7):07d}"


@dataclass(slots=True)
class World:
    """Identity, with the messengers that `roads` name, and their other sides."""

    identity: Identity
    gateway: FakeTelegramGateway
    telegram: FakeTelegram
    max: FakeMax
    _delivered: int = field(default=0)

    def phone(self) -> str:
        """Return the number of somebody new, who has Telegram."""
        phone = new_phone()
        self.gateway.accounts.add(phone)
        return phone

    async def request(self, phone: str, **options: str) -> CodeRequested:
        """Ask for a code."""
        async with self.identity.units(PLATFORM) as uow:
            return await self.identity.phones.codes.request(uow, phone=phone, locale="en", **options)

    async def deliver(self) -> None:
        """Do what the worker does for every message that was written since."""
        tasks = self.identity.ears.tasks
        while self._delivered < len(tasks):
            task = tasks[self._delivered]
            self._delivered += 1
            if task.name == TASK:
                await self.identity.phones.post.send(task.row_id)

    async def code(self, phone: str) -> str:
        """Ask for a code and return the one that the gateway brought."""
        await self.request(phone)
        await self.deliver()
        (*_, sent) = (item for item in self.gateway.sent if item["phone_number"] == phone)
        return str(sent["code"])

    async def update(self, messenger: str, update: Obj, headers: Mapping[str, str] | None = None) -> None:
        """Hand an update of a bot over, and let the bot answer."""
        body = json.dumps(update).encode()
        async with self.identity.units(PLATFORM) as uow:
            await self.identity.phones.bots.receive(uow, messenger, body=body, headers=headers or HEADERS[messenger])
        await self.deliver()

    async def sign_in(self, phone: str, code: str) -> UUID:
        """Sign in by a code; returns the user."""
        view = await self.identity.auth.phones.verify(phone=phone, code=code, locale="en", device=DEVICE)
        assert isinstance(view, PhoneSessionView)
        return view.user_id

    async def open_code(self, phone: str) -> PhoneCode:
        """Return the row of the code that a phone has."""
        row: PhoneCode = await self.identity.one(
            select(PhoneCode).where(PhoneCode.identifier == phone, PhoneCode.consumed_at.is_(None))
        )
        return row

    async def messages(self, phone: str) -> list[MessengerMessage]:
        """Return the codes that were written for a phone, oldest first."""
        return await self.identity.rows(
            select(MessengerMessage).where(MessengerMessage.phone == phone).order_by(MessengerMessage.created_at)
        )

    async def audited(self, action: str, subject: str) -> list[AuditEntry]:
        return await self.identity.rows(
            select(AuditEntry).where(AuditEntry.action == action, AuditEntry.subject_id == subject)
        )


@asynccontextmanager
async def phone_world(
    engine: AsyncEngine,
    services: Services,
    folder: Path,
    *,
    gateways: Sequence[str] = ("telegram",),
    bots: Sequence[str] = ("telegram", "max"),
    paces: Sequence[Pace] = (),
    total: Sequence[Pace] = (),
) -> AsyncIterator[World]:
    """Build a world in which codes travel by these gateways and bots."""
    async with FakeTelegramGateway() as gateway, FakeTelegram() as telegram, FakeMax() as fake_max:
        known_gateways = {"telegram": TelegramGateway(token=gateway_fake.TOKEN, api_base=gateway.base_url)}
        known_bots: dict[str, MessengerBot] = {
            "telegram": TelegramBot(
                token=telegram_fake.TOKEN,
                username=telegram_fake.USERNAME,
                webhook_secret=SECRET,
                api_base=telegram.base_url,
            ),
            "max": MaxBot(
                token=max_fake.TOKEN,
                username=max_fake.USERNAME,
                webhook_secret=SECRET,
                api_base=fake_max.base_url,
            ),
        }
        roads = Roads(
            gateways={name: known_gateways[name] for name in gateways},
            bots={name: known_bots[name] for name in bots},
        )
        identity = build_identity(engine, services, folder, roads=roads, paces=paces, total=total)
        try:
            yield World(identity, gateway, telegram, fake_max)
        finally:
            identity.hasher.close()
            await asyncio.gather(*(sender.aclose() for sender in roads.senders.values()))
