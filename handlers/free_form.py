"""Objects whose content is the client's own: stored as they are, within bounds that every reader can bear."""

from typing import Any

from core import json

_BYTES = 64 * 1024
_DEPTH = 16
# Larger whole numbers do not survive the way through JSON in every client (RFC 8259, 6).
_LARGEST_NUMBER = 2**53


def read_free_form(value: Any) -> Any:
    """Return the value as it is; raises ValueError when it is too large or too deep, or holds too large a number."""
    _refuse_unstorable(value, _DEPTH)
    if len(json.dumps(value)) > _BYTES:
        raise ValueError(f"must not be larger than {_BYTES} bytes")
    return value


def _refuse_unstorable(value: object, depth: int) -> None:
    if depth < 0:
        raise ValueError(f"must not be nested deeper than {_DEPTH} levels")
    if isinstance(value, int | float) and abs(value) > _LARGEST_NUMBER:
        raise ValueError("holds a number that is too large")
    if isinstance(value, dict):
        for item in value.values():
            _refuse_unstorable(item, depth - 1)
    if isinstance(value, list):
        for item in value:
            _refuse_unstorable(item, depth - 1)
