"""What people do in a MAX bot, read from its updates (dev.max.ru/docs-api/objects/Update)."""

import base64
import hashlib
import hmac
import re
from typing import Final

from pydantic import JsonValue, TypeAdapter, ValidationError

from providers.messengers.contract import (
    BotEvent,
    BotStarted,
    BotStopped,
    ContactFault,
    ContactRefused,
    ContactShared,
    UpdateUnreadable,
)
from providers.messengers.webhook import Wire, is_nonce, language, nonce_of_command, phone_of_contact, read_json

# A telephone's line of a vCard (RFC 6350 3.3): perhaps in a group, with parameters.
_TELEPHONE: Final = re.compile(r"^(?:[A-Za-z0-9-]+\.)?TEL(?:;[^:\r\n]*)?:([^\r\n;]*)", re.IGNORECASE | re.MULTILINE)


class _User(Wire):
    user_id: int


class _Recipient(Wire):
    chat_type: str


class _ContactPayload(Wire):
    vcf_info: str | None = None
    hash: str | None = None
    max_info: _User | None = None


class _Attachment(Wire):
    type: str
    # Of the many kinds only contacts are read further.
    payload: JsonValue = None


class _Body(Wire):
    mid: str
    text: str | None = None
    attachments: list[_Attachment] | None = None


class _Message(Wire):
    sender: _User | None = None
    recipient: _Recipient
    body: _Body


class _Update(Wire):
    update_type: str
    timestamp: int
    user: _User | None = None
    user_locale: str | None = None
    payload: str | None = None
    message: _Message | None = None


# A webhook's body is one update; a list of them is what polling gives, and costs nothing to understand.
_UPDATES: Final = TypeAdapter[_Update | list[_Update]](_Update | list[_Update])
_CONTACT: Final = TypeAdapter(_ContactPayload)


def read_max(body: bytes, *, token: str) -> tuple[BotEvent, ...]:
    """Read updates whose secret is proven; `token` is the bot's, which signs contacts. Raises UpdateUnreadable."""
    updates = read_json(_UPDATES, body)
    listed = updates if isinstance(updates, list) else [updates]
    return tuple(event for update in listed if (event := _event(update, token)) is not None)


def _event(update: _Update, token: str) -> BotEvent | None:
    locale = language(update.user_locale)
    match update:
        case _Update(update_type="bot_started", user=_User() as user):
            nonce = update.payload if is_nonce(update.payload or "") else None
            return BotStarted(update_id=_id(update, user), address=str(user.user_id), locale=locale, nonce=nonce)
        case _Update(update_type="bot_stopped" | "dialog_removed", user=_User() as user):
            return BotStopped(update_id=_id(update, user), address=str(user.user_id), locale=locale)
        case _Update(update_type="message_created", message=_Message() as message):
            return _of_message(message, token=token, locale=locale)
        case _:
            return None


def _id(update: _Update, user: _User) -> str:
    # These updates have no id of their own; one person does one thing in a millisecond.
    return f"{update.update_type}:{user.user_id}:{update.timestamp}"


def _of_message(message: _Message, *, token: str, locale: str | None) -> BotEvent | None:
    # Groups and channels are nobody's own, so what happens there concerns no phone.
    if message.sender is None or message.recipient.chat_type != "dialog":
        return None
    update_id, address = f"message:{message.body.mid}"[:255], str(message.sender.user_id)
    for attachment in message.body.attachments or ():
        if attachment.type == "contact":
            checked = _check(attachment.payload, owner=message.sender, token=token)
            if isinstance(checked, ContactFault):
                return ContactRefused(update_id=update_id, address=address, locale=locale, fault=checked)
            return ContactShared(update_id=update_id, address=address, locale=locale, phone=checked)
    is_start, nonce = nonce_of_command(message.body.text or "")
    return BotStarted(update_id=update_id, address=address, locale=locale, nonce=nonce) if is_start else None


def _check(payload: JsonValue, *, owner: _User, token: str) -> str | ContactFault:
    """Return the number that MAX vouches for as `owner`'s own, or what is wrong with the contact."""
    try:
        contact = _CONTACT.validate_python(payload)
    except ValidationError:
        raise UpdateUnreadable from None
    card = contact.vcf_info or ""
    # The signature says that the card is somebody's own, and the card's user says whose.
    if contact.max_info != owner or not _is_signed(card, contact.hash or "", token):
        return ContactFault.NOT_OWN
    telephone = _TELEPHONE.search(_unescaped(card))
    return (phone_of_contact(telephone[1]) if telephone else None) or ContactFault.NOT_A_PHONE


def _is_signed(card: str, signature: str, token: str) -> bool:
    """Compare with HMAC-SHA256 of the card under the bot's token ("request_contact" in dev.max.ru/docs-api).

    The documentation does not say whether the signature is in hex or in base 64; and line ends of the card, which come
    escaped at times, are signed as real ones.
    """
    for text in {card, _unescaped(card)}:
        digest = hmac.new(token.encode(), text.encode("utf-8", "replace"), hashlib.sha256).digest()
        given = signature.encode("utf-8", "replace")
        if hmac.compare_digest(digest.hex().encode(), given.lower()):
            return True
        if hmac.compare_digest(base64.b64encode(digest), given):
            return True
    return False


def _unescaped(card: str) -> str:
    return card.replace("\\r\\n", "\r\n")
