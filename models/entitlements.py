"""What a tenant may have: computed from its subscription and the exceptions made for it, and stored nowhere.

The names are those of the plans' JSON (contract.md 4.2). No other can be given any more
(services/entitlements/catalogue.py); one that a plan got before is handed on as it is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from models.billing import Subscription
from models.overrides import EntitlementOverride
from models.plans import Plan

UNLIMITED: Final = -1


class Limit(StrEnum):
    """How many, or how much; -1 and a name that a plan does not have mean unlimited.

    * `users`: members and open invitations together.
    * `storage_gb`: what is kept for the tenant, in 10^9 bytes.
    * `sites`: sites that it has or that are being made.
    * `subdomains`: names under which it is reached, its slug included.
    * `api_calls_per_month`: calls of the routes that count, in a month of UTC.
    * `products`, `staff`, `domains`: goods, people and own domains of a shop; counted by the shop.
    """

    USERS = "users"
    STORAGE_GB = "storage_gb"
    SITES = "sites"
    SUBDOMAINS = "subdomains"
    API_CALLS = "api_calls_per_month"
    PRODUCTS = "products"
    STAFF = "staff"
    DOMAINS = "domains"


class Flag(StrEnum):
    """Features that a plan has or has not; one that it does not name is not there.

    The last two are a shop's (contract.md 4.2).
    """

    LISTED_IN_MARKETPLACE = "listed_in_marketplace"
    WEBHOOKS_ENABLED = "webhooks_enabled"
    AI_ASSISTANT = "ai_assistant"
    CUSTOM_THEMES = "custom_themes"


SOCKETS: Final = "sockets"
"""Under this name a plan's limits hold those of realtime, such as `connections`; an exception says `sockets.…`."""

TWINS: Final[Mapping[str, str]] = MappingProxyType({"users": "max_users", "storage_gb": "max_storage_gb"})
"""The same limit under the names that different clients look for (contract.md 4.2)."""

_CANONICAL: Final = {twin: name for name, twin in TWINS.items()}
# Whoever pays for nothing keeps what is there, may look at it, and makes nothing new.
_FLOOR: Final[Mapping[str, int]] = {
    **dict.fromkeys(Limit, 0),
    Limit.USERS: 1,
    Limit.SUBDOMAINS: 1,
    Limit.API_CALLS: UNLIMITED,
}


class Grant(StrEnum):
    """Whether the plan's entitlements are the tenant's.

    * `in_force`: they are.
    * `grace`: the subscription is over, and they are left to the tenant for some days.
    * `none`: there is no subscription, or its days of grace are over.
    """

    IN_FORCE = "in_force"
    GRACE = "grace"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entitlements:
    """What a tenant may have at one moment; `changes_at` is when time alone will change it, if it will."""

    grant: Grant
    plan: Plan | None
    limits: Mapping[str, Any]
    sockets: Mapping[str, Any]
    flags: Mapping[str, Any]
    changes_at: datetime | None

    def allowed(self, limit: str) -> int:
        """Return how much is allowed, -1 for as much as one likes."""
        value = self.limits.get(limit, UNLIMITED)
        # What an operator wrote into a plan by mistake must not keep anybody out.
        return value if is_limit(value) else UNLIMITED

    def has(self, flag: str) -> bool:
        """Tell whether a feature is there."""
        return self.flags.get(flag) is True


def is_limit(value: object) -> bool:
    """Tell whether a value can be a limit: a whole number, not below -1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= UNLIMITED


def canonical_name(name: str) -> str:
    """Return the name under which an entitlement is kept, whichever of its names a client uses."""
    return _CANONICAL.get(name, name)


def with_twins(limits: Mapping[str, Any]) -> dict[str, Any]:
    """Return limits with each under all of its names."""
    both = dict(limits)
    for name, twin in TWINS.items():
        if name in limits or twin in limits:
            both[name] = both[twin] = limits.get(name, limits.get(twin))
    return both


def entitlements_of(
    subscription: Subscription | None,
    overrides: Iterable[EntitlementOverride],
    *,
    grace: timedelta,
    now: datetime,
) -> Entitlements:
    """Compute what a tenant may have; the subscription's `plan` must be loaded.

    Trial, paid and past due subscriptions give what their plan says. One that is over still does until `grace` after
    its end (the period's end, or the earlier moment at which it was cancelled), then next to nothing is left. What an
    exception says goes before all of it.
    """
    grant, changes = Grant.NONE, []
    if subscription is not None:
        grace_ends = subscription.current_period_end + grace
        if not subscription.is_over:
            grant = Grant.IN_FORCE
        elif now < grace_ends:
            grant, changes = Grant.GRACE, [grace_ends]
    plan = subscription.plan if subscription is not None else None
    limits, sockets, flags = _granted(plan, grant)
    for override in overrides:
        if override.holds(now):
            _apply(override, limits, sockets, flags)
            changes += [override.until] if override.until is not None else []
    return Entitlements(
        grant=grant,
        plan=plan,
        limits=MappingProxyType(limits),
        sockets=MappingProxyType(sockets),
        flags=MappingProxyType(flags),
        changes_at=min(changes, default=None),
    )


def _granted(plan: Plan | None, grant: Grant) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    limits = {canonical_name(name): value for name, value in plan.limits.items()} if plan is not None else {}
    sockets = limits.pop(SOCKETS, None)
    flags = dict(plan.feature_flags) if plan is not None else {}
    if grant is not Grant.NONE:
        return limits, dict(sockets) if isinstance(sockets, dict) else {}, flags
    # Also of what only the plan knows nothing more is to be had.
    unknown = {name: 0 for name, value in limits.items() if is_limit(value)}
    return {**unknown, **{name.value: _FLOOR[name] for name in Limit}}, {}, dict.fromkeys((*flags, *Flag), False)


def _apply(
    override: EntitlementOverride, limits: dict[str, Any], sockets: dict[str, Any], flags: dict[str, Any]
) -> None:
    realm, _, name = override.name.rpartition(".")
    if realm == SOCKETS:
        sockets[name] = override.value
    elif isinstance(override.value, bool):
        flags[override.name] = override.value
    else:
        limits[override.name] = override.value
