"""Exceptions that operators make: who may, what is kept, what is told, and what it changes."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from core.errors import InvalidInput
from models.audit import AuditEntry
from models.billing import Subscription
from models.entitlements import Flag, Limit
from realtime.limits import SocketLimits
from services.entitlements.errors import FeatureNotInPlan, OverrideNotFound, PlanLimitReached
from services.identity import SuperuserRequired
from services.unit_of_work import TenantScope
from tests.services.entitlements.conftest import Office
from tests.support.billing import PLATFORM, Shop

DEFAULTS = SocketLimits(connections=1, connects_per_s=2, events_per_s=3, socket_events_per_s=4, payload_bytes=5)


def named(refusal: InvalidInput) -> list[str]:
    """Return the fields that a refusal names."""
    problems: Any = refusal.details["errors"]
    return [problem["field"] for problem in problems]


async def test_an_exception_is_kept_told_noted_and_taken_back(office: Office, shop: Shop) -> None:
    until = office.till.now + timedelta(days=9)
    view = await office.put(shop, "max_users", 7, until=until)
    assert (view.limits["users"], view.limits["max_users"], view.changes_at) == (7, 7, until)
    (noted,) = view.overrides
    assert (noted.name, noted.value, noted.reason, noted.created_by) == ("users", 7, "a test", office.operator.user_id)
    shown = await office.show(shop)
    assert [(row.name, row.value, row.until) for row in shown.overrides] == [("users", 7, until)]
    assert (shown.plan, shown.state, shown.usage["users"].used, shown.usage["max_users"].remaining) == (
        "trial", "in_force", 3, 4,
    )  # fmt: skip

    await office.put(shop, "users", 8)
    view = await office.remove(shop, "max_users")
    assert (view.limits["users"], view.overrides) == (3, [])
    assert [told["limits"]["users"] for told in office.told(shop)] == [7, 8, 3]
    with pytest.raises(OverrideNotFound):
        await office.remove(shop, "users")
    async with office.till.units(PLATFORM) as uow:
        entries = await uow.session.scalars(
            select(AuditEntry)
            .where(AuditEntry.tenant_id == shop.tenant_id, AuditEntry.subject_type == "entitlement_override")
            .order_by(AuditEntry.id)
        )
        noted_changes = [(entry.action, entry.actor_id, entry.details) for entry in entries]
    assert [action for action, _, _ in noted_changes] == ["entitlement_override.set"] * 2 + [
        "entitlement_override.removed"
    ]
    assert {actor for _, actor, _ in noted_changes} == {office.operator.user_id}
    assert noted_changes[1][2] == {
        "before": {"value": 7, "until": until.isoformat()},
        "after": {"value": 8, "until": None, "reason": "a test"},
    }


async def test_two_at_once_leave_one_exception_and_tell_of_both(office: Office, shop: Shop) -> None:
    await asyncio.gather(*(office.put(shop, "users", value) for value in range(10, 18)))
    view = await office.show(shop)
    (row,) = view.overrides
    told = [entitlements["limits"]["users"] for entitlements in office.told(shop)]
    assert sorted(told) == list(range(10, 18))
    assert (row.value, view.limits["users"]) == (told[-1], told[-1])


async def test_exceptions_are_for_operators_alone(office: Office, shop: Shop) -> None:
    with pytest.raises(SuperuserRequired):
        await office.put(shop, "users", 99, by=shop.owner)
    assert (await office.of(shop)).allowed(Limit.USERS) == 3


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("users", True, "body -> value"),
        ("users", -2, "body -> value"),
        ("sockets.connections", False, "body -> value"),
        ("webhooks_enabled", 1, "body -> value"),
        ("sockets", 5, "path -> name"),
        ("Users", 5, "path -> name"),
        ("a.b", 5, "path -> name"),
        ("warp", 5, "path -> name"),
        ("magic", True, "path -> name"),
        ("sockets.colour", 5, "path -> name"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    office: Office, shop: Shop, name: str, value: int | bool, field: str
) -> None:
    with pytest.raises(InvalidInput) as refusal:
        await office.put(shop, name, value)
    assert named(refusal.value) == [field]
    assert (refusal.value.code == "UNKNOWN_ENTITLEMENT") is (field == "path -> name")
    assert (await office.show(shop)).overrides == []


async def test_what_would_be_over_already_is_refused(office: Office, shop: Shop) -> None:
    with pytest.raises(InvalidInput) as refusal:
        await office.put(shop, "users", 5, until=office.till.now)
    assert named(refusal.value) == ["body -> until"]


async def test_limits_of_sockets_come_from_the_plan_then_from_exceptions(office: Office, shop: Shop) -> None:
    await office.plan_with(shop, limits={"sockets": {"connections": 50, "events_per_s": "many", "colour": 3}})
    await office.put(shop, "sockets.payload_bytes", 90)
    async with office.till.units(TenantScope(shop.tenant_id)) as uow:
        found = await office.service.socket_limits(uow, shop.tenant_id, DEFAULTS)
    assert (found.connections, found.payload_bytes, found.events_per_s, found.connects_per_s) == (50, 90, 3, 2)


async def test_a_feature_is_asked_for_where_it_is_used(office: Office, shop: Shop) -> None:
    async with office.till.units(TenantScope(shop.tenant_id)) as uow:
        with pytest.raises(FeatureNotInPlan) as refusal:
            await office.desk.require_feature(uow, shop.tenant_id, Flag.WEBHOOKS_ENABLED)
    assert (refusal.value.code, refusal.value.details) == ("FEATURE_NOT_IN_PLAN", {"feature": "webhooks_enabled"})
    await office.put(shop, "webhooks_enabled", value=True)
    async with office.till.units(TenantScope(shop.tenant_id)) as uow:
        await office.desk.require_feature(uow, shop.tenant_id, Flag.WEBHOOKS_ENABLED)


async def test_what_is_over_a_limit_stays_and_nothing_is_added(office: Office, shop: Shop) -> None:
    await office.put(shop, "users", 2)
    shown = (await office.show(shop)).usage["users"]
    assert (shown.used, shown.allowed, shown.remaining, shown.is_over) == (3, 2, 0, True)
    async with office.till.units(TenantScope(shop.tenant_id)) as uow:
        with pytest.raises(PlanLimitReached) as refusal:
            await office.desk.require_room(uow, shop.tenant_id, Limit.USERS, used=3)
    assert refusal.value.details == {"limit": "users", "used": 3, "allowed": 2}


async def test_a_payment_brings_the_plan_and_its_end_takes_it_after_the_grace(office: Office, shop: Shop) -> None:
    till = office.till
    await till.buy(shop, plan="professional")
    assert (await office.of(shop)).allowed(Limit.USERS) == 10
    assert office.told(shop)[-1]["limits"]["max_users"] == 10
    await till.cancel(shop.owner, at_period_end=False)
    assert office.told(shop)[-1]["state"] == "grace"
    assert (await office.of(shop)).allowed(Limit.USERS) == 10
    till.travel(days=3)
    assert (await office.of(shop)).allowed(Limit.USERS) == 1
    await till.change(Subscription, (await till.subscription(shop)).id, entitlements_told_at=till.now)
