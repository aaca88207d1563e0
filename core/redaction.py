"""What bears the name of a secret is kept out of logs and of the audit, however deep somebody put it."""

from collections.abc import Mapping
from typing import Any

_SECRET_WORDS = (
    *("password", "passwd", "passphrase", "secret", "credential", "token", "authorization", "cookie", "signature"),
    *("apikey", "accesskey", "privatekey"),
)
_MASK = "[hidden]"


def redacted(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with the values of keys that name a secret replaced, at any depth."""
    return {key: _MASK if _names_a_secret(key) else _masked(value) for key, value in values.items()}


def _masked(value: object) -> object:
    if isinstance(value, Mapping):
        return redacted(value)
    if isinstance(value, list | tuple):
        return [_masked(item) for item in value]
    return value


def _names_a_secret(key: object) -> bool:
    name = str(key).lower().replace("_", "").replace("-", "")
    return any(word in name for word in _SECRET_WORDS)
