"""The names of what a plan or an exception can give: one that nobody knows would give nothing, and seem to."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, Final

from core.errors import InvalidInput
from models.entitlements import SOCKETS, TWINS, Flag, Limit
from realtime.limits import SocketLimits

FLAGS: Final = frozenset(flag.value for flag in Flag)
SOCKET_LIMITS: Final = frozenset(field.name for field in fields(SocketLimits))
# As exceptions name them.
LIMITS: Final = frozenset((*(limit.value for limit in Limit), *(f"{SOCKETS}.{name}" for name in SOCKET_LIMITS)))
_OF_PLANS: Final = frozenset((*(limit.value for limit in Limit), *TWINS.values(), SOCKETS))


class UnknownEntitlement(InvalidInput):
    """A limit or a feature has a name that is not in the catalogue; `details["errors"]` tells where."""

    code = "UNKNOWN_ENTITLEMENT"
    message = "This limit or feature does not exist"

    def __init__(self, *places: str) -> None:
        super().__init__(
            details={
                "errors": [
                    {"field": place, "message": "is no name of a limit or feature", "type": "value_error"}
                    for place in places
                ]
            }
        )


def require_known(values: Mapping[str, Any]) -> None:
    """Raise UnknownEntitlement when a plan's `limits` or `feature_flags` have a name that nobody knows."""
    limits = values.get("limits", {})
    unknown = [
        *_unknown("limits", limits, _OF_PLANS),
        *_unknown(f"limits -> {SOCKETS}", limits.get(SOCKETS) or {}, SOCKET_LIMITS),
        *_unknown("feature_flags", values.get("feature_flags", {}), FLAGS),
    ]
    if unknown:
        raise UnknownEntitlement(*unknown)


def _unknown(place: str, given: Iterable[str], known: frozenset[str]) -> list[str]:
    return [f"body -> {place} -> {name}" for name in given if name not in known]
