"""What the webhooks of messengers have in common: a shared secret in a header, and contacts to be read."""

import hmac
import re
from collections.abc import Mapping
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from core.phones import PhoneInvalid, parse_phone
from providers.messengers.contract import UpdateNotProven, UpdateUnreadable

T = TypeVar("T")

# What every messenger carries in a link: Telegram is the narrowest.
_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Within the alphabets and lengths of Telegram (1 to 256) and MAX (5 to 256); shorter ones could be guessed.
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{16,256}")
_LANGUAGE: Final = re.compile(r"([A-Za-z]{2,3})(?:[-_].*)?", re.DOTALL)


class Wire(BaseModel):
    """A part of an update: what is named is checked strictly, what is new is ignored."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class SharedSecret:
    """The secret that a messenger repeats in `header` with every call.

    Raises:
        ValueError: the secret is not 16 to 256 of `A-Z a-z 0-9 _ -`.
    """

    def __init__(self, header: str, value: str) -> None:
        if _SECRET.fullmatch(value) is None:
            raise ValueError("a webhook secret is 16 to 256 of A-Z a-z 0-9 _ -")
        self._header = header.lower()
        self.value = value

    def prove(self, headers: Mapping[str, str]) -> None:
        """Raise UpdateNotProven unless `headers` repeat the secret."""
        found = next((value for name, value in headers.items() if name.lower() == self._header), "")
        # Compared as bytes: beyond ASCII, comparing texts in constant time raises TypeError.
        if not hmac.compare_digest(found.encode("utf-8", "replace"), self.value.encode()):
            raise UpdateNotProven


def read_json(adapter: TypeAdapter[T], body: bytes) -> T:
    """Read a body; raises UpdateUnreadable."""
    try:
        return adapter.validate_json(body)
    except ValidationError:
        # Not chained: the library's error repeats the input, and with it phone numbers.
        raise UpdateUnreadable from None


def is_nonce(text: str) -> bool:
    """Tell whether a text can have come from `MessengerBot.start_link`."""
    return _NONCE.fullmatch(text) is not None


def nonce_of_command(text: str) -> tuple[bool, str | None]:
    """Read `/start <nonce>`: whether the text is that command, and its nonce if it has a good one."""
    words = text.split(" ")
    if words[0] != "/start":
        return False, None
    return True, words[1] if len(words) == 2 and is_nonce(words[1]) else None


def phone_of_contact(text: str) -> str | None:
    """Read the number of a contact, which messengers write in full, with or without the plus; None if it is none."""
    written = text.strip()
    try:
        return parse_phone(written if written.startswith("+") else f"+{written}")
    except PhoneInvalid:
        return None


def language(text: str | None) -> str | None:
    """Return the language of an IETF tag in lower case (`pt-BR` gives `pt`), None if it is no tag."""
    found = _LANGUAGE.fullmatch(text or "")
    return found[1].lower() if found else None
