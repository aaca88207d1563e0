"""JSON as this project speaks it: UTC times with `Z`, Decimals as numbers with two or more decimals, never floats."""

import json as standard_json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson

# Deeper than people nest, and shallower than orjson can encode.
_MAX_DEPTH = 100

_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC


def _default(value: object) -> object:
    if isinstance(value, Decimal):
        return orjson.Fragment(decimal_text(value))
    if isinstance(value, UUID):
        # asyncpg's UUIDs are of a subclass, which orjson does not know.
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON serialisable")


def decimal_text(value: Decimal) -> str:
    """Render money for the wire: at least two decimals, no exponent (contract.md 1.7: `99.00`).

    >>> decimal_text(Decimal("99"))
    '99.00'
    """
    if not value.is_finite():
        raise TypeError(f"{value} is no number that JSON knows")
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and exponent > -2:
        value = value.quantize(Decimal("0.01"))
    return f"{value:f}"


def dumps(value: object) -> bytes:
    """Encode `value`; raises TypeError for what JSON cannot hold."""
    return orjson.dumps(value, default=_default, option=_OPTIONS)


def dumps_text(value: object) -> str:
    """Encode `value` as text, for those who want no bytes."""
    return dumps(value).decode()


def loads_exact(raw: bytes | str) -> Any:
    """Decode trusted JSON with fractions as Decimals, so that stored money keeps its digits."""
    return standard_json.loads(raw, parse_float=Decimal)


def loads(raw: bytes | str) -> Any:
    """Decode JSON; raises ValueError when `raw` is malformed, holds a NUL, or is nested beyond reason."""
    value = orjson.loads(raw)
    refuse_nul(value)
    return value


def loads_any(raw: bytes | str) -> Any:
    """Decode whatever JavaScript's `JSON.stringify` writes; raises ValueError when malformed or nested beyond reason.

    U+0000 stays, and half of a surrogate pair, which is no character, becomes U+FFFD.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        value = _whole(standard_json.loads(raw, parse_constant=_refuse_constant))
    _refuse_depth(value)
    return value


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_whole(key): _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _refuse_depth(value: object, *, depth: int = 0) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(value, dict):
        for item in value.values():
            _refuse_depth(item, depth=depth + 1)
    elif isinstance(value, list):
        for item in value:
            _refuse_depth(item, depth=depth + 1)


def refuse_nul(value: object, *, depth: int = 0) -> None:
    """Raise ValueError when any text within `value` holds U+0000, or when it is nested beyond `_MAX_DEPTH`."""
    # PostgreSQL cannot store U+0000 in text or jsonb, so it is refused at the door rather than deep in a query.
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        if "\x00" in value:
            raise ValueError("the character U+0000 is not allowed")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            refuse_nul(key, depth=depth + 1)
            refuse_nul(item, depth=depth + 1)
    elif isinstance(value, Sequence):
        for item in value:
            refuse_nul(item, depth=depth + 1)
