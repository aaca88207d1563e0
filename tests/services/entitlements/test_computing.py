"""What follows from a plan, a subscription's state and exceptions; no database is asked."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from models.billing import Plan, Subscription, SubscriptionStatus
from models.entitlements import UNLIMITED, Entitlements, Flag, Grant, Limit, entitlements_of, with_twins
from models.overrides import EntitlementOverride

pytestmark = pytest.mark.embedded

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
GRACE = timedelta(days=3)
OVER = (SubscriptionStatus.CANCELLED, SubscriptionStatus.EXPIRED)


def subscribed(status: SubscriptionStatus, *, ends: datetime = NOW, **plan: Any) -> Subscription:
    row = Plan(id=uuid4(), slug="pro", trial_days=14, **{"limits": {}, "feature_flags": {}, **plan})
    subscription = Subscription.trial(uuid4(), row, now=NOW)
    subscription.status, subscription.current_period_end = status, ends
    return subscription


def excepted(name: str, *, value: int | bool, until: datetime | None = None) -> EntitlementOverride:
    return EntitlementOverride(name=name, value=value, until=until)


def granted(subscription: Subscription | None, *overrides: EntitlementOverride, now: datetime = NOW) -> Entitlements:
    return entitlements_of(subscription, overrides, grace=GRACE, now=now)


@pytest.mark.parametrize("status", [status for status in SubscriptionStatus if status not in OVER], ids=str)
def test_whoever_is_served_has_what_the_plan_says_however_late_it_is(status: SubscriptionStatus) -> None:
    subscription = subscribed(
        status,
        limits={"max_users": 5, "api_calls_per_month": 10, "warp": 9, "sockets": {"connections": 7}},
        feature_flags={"webhooks_enabled": True, "magic": True},
        ends=NOW - timedelta(days=99),
    )
    found = granted(subscription)
    assert (found.grant, found.changes_at) == (Grant.IN_FORCE, None)
    assert [found.allowed(limit) for limit in (Limit.USERS, Limit.API_CALLS, Limit.SITES, "warp")] == [5, 10, -1, 9]
    assert [found.has(flag) for flag in (Flag.WEBHOOKS_ENABLED, Flag.LISTED_IN_MARKETPLACE, "magic")] == [
        True, False, True,
    ]  # fmt: skip
    assert found.sockets == {"connections": 7}
    assert with_twins(found.limits) == {"users": 5, "max_users": 5, "api_calls_per_month": 10, "warp": 9}


@pytest.mark.parametrize("status", OVER, ids=str)
def test_days_of_grace_follow_the_end_and_then_next_to_nothing_is_left(status: SubscriptionStatus) -> None:
    subscription = subscribed(
        status,
        limits={"users": 50, "warp": 9, "sockets": {"connections": 7}},
        feature_flags={"webhooks_enabled": True, "magic": True},
    )
    last = NOW + GRACE - timedelta(microseconds=1)
    for moment in (NOW, last):
        found = granted(subscription, now=moment)
        assert (found.grant, found.changes_at, found.allowed("users")) == (Grant.GRACE, NOW + GRACE, 50)
        assert found.has("magic")
    found = granted(subscription, now=NOW + GRACE)
    assert (found.grant, found.changes_at, found.plan) == (Grant.NONE, None, subscription.plan)
    assert dict(found.limits) == {
        "users": 1, "storage_gb": 0, "sites": 0, "subdomains": 1, "api_calls_per_month": UNLIMITED, "products": 0,
        "staff": 0, "domains": 0, "warp": 0,
    }  # fmt: skip
    assert (set(found.flags.values()), dict(found.sockets)) == ({False}, {})


def test_without_a_subscription_there_is_the_same_floor() -> None:
    found = granted(None)
    assert (found.grant, found.plan, found.allowed("users"), found.allowed("sites")) == (Grant.NONE, None, 1, 0)


def test_exceptions_go_before_the_plan_until_their_time_is_over() -> None:
    subscription = subscribed(SubscriptionStatus.ACTIVE, limits={"users": 5, "sockets": {"connections": 7}})
    until = NOW + timedelta(days=1)
    overrides = (
        excepted("users", value=UNLIMITED, until=until),
        excepted("webhooks_enabled", value=True, until=until + timedelta(days=1)),
        excepted("sockets.connections", value=90),
        excepted("warp", value=4),
        excepted("storage_gb", value=3, until=NOW),
    )
    found = granted(subscription, *overrides)
    assert (found.allowed("users"), found.has(Flag.WEBHOOKS_ENABLED)) == (UNLIMITED, True)
    assert (dict(found.sockets), found.allowed("warp")) == ({"connections": 90}, 4)
    assert found.allowed("storage_gb") == UNLIMITED
    assert found.changes_at == until
    later = granted(subscription, *overrides, now=until)
    assert (later.allowed("users"), later.has(Flag.WEBHOOKS_ENABLED)) == (5, True)
    assert granted(None, *overrides).allowed("users") == UNLIMITED


@pytest.mark.parametrize("value", [True, "5", 1.5, None, -2], ids=repr)
def test_what_is_no_limit_keeps_nobody_out_and_is_handed_on(value: object) -> None:
    found = granted(subscribed(SubscriptionStatus.ACTIVE, limits={"users": value, "sockets": value}))
    assert found.allowed("users") == UNLIMITED
    assert found.limits["users"] is value
    assert found.sockets == {}
