"""What people do in a Telegram bot, read from its updates (core.telegram.org/bots/api#update)."""

from typing import Final

from pydantic import Field, TypeAdapter

from providers.messengers.contract import (
    BotEvent,
    BotStarted,
    BotStopped,
    ContactFault,
    ContactRefused,
    ContactShared,
)
from providers.messengers.webhook import Wire, language, nonce_of_command, phone_of_contact, read_json

_GONE: Final = ("kicked", "left")


class _User(Wire):
    id: int
    language_code: str | None = None


class _Chat(Wire):
    id: int
    type: str


class _Contact(Wire):
    phone_number: str
    user_id: int | None = None


class _Message(Wire):
    chat: _Chat
    sender: _User | None = Field(default=None, alias="from")
    text: str | None = None
    contact: _Contact | None = None


class _Member(Wire):
    status: str


class _MemberUpdate(Wire):
    chat: _Chat
    sender: _User = Field(alias="from")
    new_chat_member: _Member


class _Update(Wire):
    update_id: int
    message: _Message | None = None
    my_chat_member: _MemberUpdate | None = None


_UPDATE: Final = TypeAdapter(_Update)


def read_telegram(body: bytes) -> tuple[BotEvent, ...]:
    """Read an update whose secret is proven; raises UpdateUnreadable."""
    update = read_json(_UPDATE, body)
    event = None
    # Groups and channels are nobody's own, so what happens there concerns no phone.
    if update.message is not None and update.message.chat.type == "private":
        event = _of_message(str(update.update_id), update.message)
    elif update.my_chat_member is not None and update.my_chat_member.chat.type == "private":
        event = _of_member(str(update.update_id), update.my_chat_member)
    return () if event is None else (event,)


def _of_message(update_id: str, message: _Message) -> BotEvent | None:
    if message.sender is None:
        return None
    address = str(message.chat.id)
    locale = language(message.sender.language_code)
    if message.contact is not None:
        # Anybody's card can be sent or forwarded. Telegram itself sets the card's owner, and only the own one counts.
        if message.contact.user_id != message.sender.id:
            return ContactRefused(update_id=update_id, address=address, locale=locale, fault=ContactFault.NOT_OWN)
        phone = phone_of_contact(message.contact.phone_number)
        if phone is None:
            return ContactRefused(update_id=update_id, address=address, locale=locale, fault=ContactFault.NOT_A_PHONE)
        return ContactShared(update_id=update_id, address=address, locale=locale, phone=phone)
    is_start, nonce = nonce_of_command(message.text or "")
    return BotStarted(update_id=update_id, address=address, locale=locale, nonce=nonce) if is_start else None


def _of_member(update_id: str, update: _MemberUpdate) -> BotEvent | None:
    if update.new_chat_member.status not in _GONE:
        return None
    locale = language(update.sender.language_code)
    return BotStopped(update_id=update_id, address=str(update.chat.id), locale=locale)
