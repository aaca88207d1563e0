"""Calls: never more than allowed, however many instances count, and hardly a write while the limit is far."""

import asyncio

import pytest
from sqlalchemy import delete, event, func, select

from models.tenants import Tenant
from models.usage import ApiUsage
from services.entitlements.calls import CallMeter
from services.entitlements.errors import PlanLimitReached
from tests.services.entitlements.conftest import Office
from tests.support.billing import PLATFORM, Shop


async def told(office: Office, shop: Shop) -> int:
    """Return how many calls the database knows of, all months together."""
    async with office.till.units(PLATFORM) as uow:
        total = await uow.session.scalar(select(func.sum(ApiUsage.calls)).where(ApiUsage.tenant_id == shop.tenant_id))
    return int(total or 0)


async def counted(meter: CallMeter, shop: Shop) -> bool:
    try:
        await meter.count(shop.tenant_id)
    except PlanLimitReached:
        return False
    return True


async def test_three_instances_let_through_exactly_what_is_allowed(office: Office, shop: Shop) -> None:
    await office.plan_with(shop, limits={"api_calls_per_month": 40})
    meters = [office.meter() for _ in range(3)]
    outcomes = await asyncio.gather(*(counted(meter, shop) for _ in range(30) for meter in meters))
    assert (outcomes.count(True), await told(office, shop)) == (40, 40)
    with pytest.raises(PlanLimitReached) as refusal:
        await meters[0].count(shop.tenant_id)
    assert refusal.value.details == {"limit": "api_calls_per_month", "used": 40, "allowed": 40}
    assert (await office.show(shop)).usage["api_calls_per_month"].remaining == 0

    # Another plan, an exception and another month open the door at once, for everybody.
    await office.put(shop, "api_calls_per_month", 41)
    assert [await counted(meter, shop) for meter in meters] == [True, False, False]
    office.till.travel(days=32)
    assert await counted(meters[2], shop)
    assert (await office.show(shop)).usage["api_calls_per_month"].used == 1


async def test_far_from_the_limit_calls_are_written_together(office: Office, shop: Shop) -> None:
    await office.plan_with(shop, limits={"api_calls_per_month": 100_000})
    meter, statements = office.meter(), 0
    await meter.count(shop.tenant_id)

    def note(*_: object) -> None:
        nonlocal statements
        statements += 1

    async with office.till.units(PLATFORM) as uow:
        engine = (await uow.session.connection()).engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        for _ in range(1_000):
            await meter.count(shop.tenant_id)
        assert statements == 0
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert await told(office, shop) == 0
    await asyncio.gather(meter.flush(), meter.flush())
    assert await told(office, shop) == 1_001


async def test_nothing_is_lost_on_the_way_to_the_last_calls(office: Office, shop: Shop) -> None:
    await office.plan_with(shop, limits={"api_calls_per_month": 530})
    meter = office.meter()
    outcomes = [await counted(meter, shop) for _ in range(540)]
    assert (outcomes.count(True), outcomes.index(False), await told(office, shop)) == (530, 530, 530)


async def test_who_is_not_limited_is_counted_all_the_same(office: Office, shop: Shop) -> None:
    meter = office.meter()
    for _ in range(5):
        await meter.count(shop.tenant_id)
    await meter.flush()
    shown = (await office.show(shop)).usage["api_calls_per_month"]
    assert (shown.used, shown.allowed, shown.remaining) == (5, -1, None)


async def test_a_smaller_plan_is_known_within_half_a_minute(office: Office, shop: Shop) -> None:
    meter = office.meter()
    await meter.count(shop.tenant_id)
    await office.put(shop, "api_calls_per_month", 0)
    assert await counted(meter, shop)
    office.till.travel(seconds=31)
    assert not await counted(meter, shop)


async def test_a_month_that_ends_before_it_is_told_keeps_its_calls(office: Office, shop: Shop) -> None:
    meter = office.meter()
    await meter.count(shop.tenant_id)
    office.till.travel(days=32)
    await meter.count(shop.tenant_id)
    await meter.flush()
    async with office.till.units(PLATFORM) as uow:
        rows = await uow.session.scalars(select(ApiUsage.calls).where(ApiUsage.tenant_id == shop.tenant_id))
        assert list(rows) == [1, 1]


async def test_a_deleted_tenant_does_not_keep_the_others_calls_from_being_told(office: Office, shop: Shop) -> None:
    gone, meter = await office.till.shop(), office.meter()
    await meter.count(gone.tenant_id)
    await meter.count(shop.tenant_id)
    async with office.till.units(PLATFORM) as uow:
        await uow.session.execute(delete(Tenant).where(Tenant.id == gone.tenant_id))
    await meter.flush()
    assert await told(office, shop) == 1


async def test_what_could_not_be_told_is_told_the_next_time(
    office: Office, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = office.meter()
    await meter.count(shop.tenant_id)
    with monkeypatch.context() as broken:
        broken.setattr(meter, "_units", None)
        with pytest.raises(TypeError):
            await meter.flush()
    await meter.count(shop.tenant_id)
    await meter.flush()
    assert await told(office, shop) == 2
