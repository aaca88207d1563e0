"""The forms that settings are given in: lists, addresses, rules of pace, keys and the details of a bot."""

import re
from ipaddress import ip_network
from typing import Annotated, Final

from limits import parse_many
from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from core.sealing import read_key

_A_DAY_S: Final = 24 * 60 * 60
_BOT_NAMES: Final = {"TELEGRAM_BOT": re.compile(r"[A-Za-z0-9_]{1,64}"), "MAX_BOT": re.compile(r"[A-Za-z0-9_-]{1,64}")}
_WEBHOOK_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{16,256}")


def _split(value: object) -> object:
    return tuple(item.strip() for item in value.split(",") if item.strip()) if isinstance(value, str) else value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _no_trailing_slash(value: str) -> str:
    return value.rstrip("/")


def _are_networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for item in value:
        ip_network(item, strict=False)
    return value


def _is_a_rule(value: str) -> str:
    if value != "off":
        parse_many(value)
    return value


def _are_paces(value: str) -> str:
    # Counted by rows that are kept for two days (services/phones).
    if value != "off" and any(rule.get_expiry() > _A_DAY_S for rule in parse_many(value)):
        raise ValueError("nothing longer than a day is counted")
    return value


def _is_a_key(value: SecretStr) -> SecretStr:
    if key := value.get_secret_value():
        read_key(key)
    return value


def _are_keys(value: SecretStr) -> SecretStr:
    for key in listed(value):
        read_key(key)
    return value


# How a value is read: items between commas, and words in whatever case somebody wrote them.
COMMAS: Final = (NoDecode, BeforeValidator(_split))
UPPER: Final = BeforeValidator(_upper)
LOWER: Final = BeforeValidator(_lower)

Items = Annotated[tuple[str, ...], *COMMAS]
Networks = Annotated[tuple[str, ...], *COMMAS, AfterValidator(_are_networks)]
Address = Annotated[str, AfterValidator(_no_trailing_slash)]
# Rules of the library `limits`, such as `10/minute;100/hour`, or `off`.
Rule = Annotated[str, AfterValidator(_is_a_rule)]
Paces = Annotated[str, AfterValidator(_are_paces)]
SealingKey = Annotated[SecretStr, AfterValidator(_is_a_key)]
SealingKeys = Annotated[SecretStr, AfterValidator(_are_keys)]


def listed(value: SecretStr) -> tuple[str, ...]:
    """Return the secrets that stand side by side in one setting, separated by commas."""
    return tuple(item for item in value.get_secret_value().split(",") if item)


def bot_faults(name: str, token: SecretStr, username: str, secret: SecretStr) -> list[str]:
    """Name what a bot lacks; without a token there is no bot, and its webhook is closed."""
    if not token.get_secret_value():
        return []
    faults = []
    if _BOT_NAMES[name].fullmatch(username) is None:
        faults.append(f"{name}_USERNAME must be the bot's name, which {name}_TOKEN needs")
    if _WEBHOOK_SECRET.fullmatch(secret.get_secret_value()) is None:
        faults.append(f"{name}_WEBHOOK_SECRET must be 16 to 256 of A-Z a-z 0-9 _ -, which {name}_TOKEN needs")
    return faults
