"""What people do in a messenger's bot: open it by our link, show their phone, close it.

Showing a phone never signs anybody in where the link was made: whoever made it may have sent it to somebody else. It
binds the chat to the phone, and the code is then written into the chat, from where its owner takes it to wherever they
sign in.
"""

from collections.abc import Mapping

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert

from core.errors import RateLimited
from core.i18n import DEFAULT_LOCALE, TEXTS
from core.tokens import token_hash
from models.messengers import MessageKind, MessengerContact, MessengerLink, MessengerUpdate
from providers.messengers import (
    BotEvent,
    BotStarted,
    BotStopped,
    ContactRefused,
    ContactShared,
    MessengerBot,
)
from services.phones.chats import bind_chat, forget_chat, lock_phone
from services.phones.codes import PhoneCodes
from services.phones.errors import MessengerUnknown
from services.phones.post import Post
from services.phones.roads import Roads
from services.unit_of_work import UnitOfWork


class Bots:
    """Takes the updates of every bot; needs a PlatformScope."""

    def __init__(self, *, roads: Roads, codes: PhoneCodes, post: Post) -> None:
        self._roads = roads
        self._codes = codes
        self._post = post

    async def receive(self, uow: UnitOfWork, messenger: str, *, body: bytes, headers: Mapping[str, str]) -> None:
        """Take a webhook call; one that is delivered again does nothing.

        Raises MessengerUnknown, UpdateNotProven and UpdateUnreadable.
        """
        bot = self._roads.bots.get(messenger)
        if bot is None:
            raise MessengerUnknown
        for event in bot.read_updates(body=body, headers=headers):
            if await _is_new(uow, messenger, event.update_id):
                await self._handle(uow, messenger, bot, event)

    async def _handle(self, uow: UnitOfWork, messenger: str, bot: MessengerBot, event: BotEvent) -> None:
        match event:
            case BotStarted():
                await self._start(uow, messenger, bot, event)
            case ContactShared():
                await lock_phone(uow, event.phone)
                await bind_chat(uow, messenger=messenger, address=event.address, phone=event.phone)
                await self._answer(uow, messenger, bot, event, phone=event.phone)
            case ContactRefused():
                self._say(uow, bot, event, f"contact_{event.fault.value}", kind=MessageKind.QUESTION)
            case BotStopped():
                await forget_chat(uow, messenger=messenger, address=event.address)

    async def _start(self, uow: UnitOfWork, messenger: str, bot: MessengerBot, event: BotStarted) -> None:
        if event.nonce is not None:
            await _open_link(uow, messenger, event.nonce, address=event.address)
        known = await uow.session.scalar(
            select(MessengerContact.phone).where(
                MessengerContact.messenger == messenger, MessengerContact.address == event.address
            )
        )
        if known is None:
            self._say(uow, bot, event, "ask_contact", kind=MessageKind.QUESTION)
            return
        await lock_phone(uow, known)
        await self._answer(uow, messenger, bot, event, phone=known)

    async def _answer(
        self, uow: UnitOfWork, messenger: str, bot: MessengerBot, event: BotStarted | ContactShared, *, phone: str
    ) -> None:
        """Write into a bound chat: a code, if a link that was made for this phone was opened here, else what to do."""
        opened = (
            MessengerLink.messenger == messenger,
            MessengerLink.address == event.address,
            MessengerLink.finished_at.is_(None),
            MessengerLink.expires_at > uow.now,
        )
        phones = set(await uow.session.scalars(select(MessengerLink.phone).where(*opened).with_for_update()))
        if phone not in phones:
            self._say(uow, bot, event, "other_phone" if phones else "bound")
            return
        try:
            await self._codes.issue(uow, sender=bot, address=event.address, phone=phone, locale=_locale(event.locale))
        except RateLimited:
            self._say(uow, bot, event, "too_many")
            return
        await uow.session.execute(
            update(MessengerLink).where(*opened, MessengerLink.phone == phone).values(finished_at=uow.now)
        )

    def _say(
        self, uow: UnitOfWork, bot: MessengerBot, event: BotEvent, text: str, *, kind: MessageKind = MessageKind.TEXT
    ) -> None:
        self._post.enqueue_text(uow, bot=bot, address=event.address, text=text, locale=_locale(event.locale), kind=kind)


async def _is_new(uow: UnitOfWork, messenger: str, update_id: str) -> bool:
    """Note an update; two deliveries at once wait for each other, and only one of them is new."""
    noted = await uow.session.scalars(
        insert(MessengerUpdate)
        .values(messenger=messenger, update_id=update_id, received_at=uow.now)
        .on_conflict_do_nothing()
        .returning(MessengerUpdate.update_id)
    )
    return noted.one_or_none() is not None


async def _open_link(uow: UnitOfWork, messenger: str, nonce: str, *, address: str) -> None:
    """Use a link up for the chat that brings it; a link that is used, too old or not ours leads nowhere."""
    await uow.session.execute(
        update(MessengerLink)
        .where(
            MessengerLink.token_hash == token_hash(nonce),
            MessengerLink.messenger == messenger,
            MessengerLink.used_at.is_(None),
            MessengerLink.expires_at > uow.now,
        )
        .values(used_at=uow.now, address=address)
    )


def _locale(locale: str | None) -> str:
    return locale if locale in TEXTS.locales else DEFAULT_LOCALE
