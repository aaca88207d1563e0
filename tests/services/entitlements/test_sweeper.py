"""Tenants hear of what time, or an operator at a plan, has changed: each change once."""

import asyncio
from datetime import timedelta

from services.platform.plans import Plans
from tests.services.entitlements.conftest import Office
from tests.support.billing import PLATFORM, Shop


async def test_the_end_of_the_grace_is_told_once(office: Office, shop: Shop) -> None:
    till = office.till
    till.travel(days=14)
    await till.billing.sweep()
    await office.service.sweep()
    assert [told["state"] for told in office.told(shop)] == ["grace"]
    till.travel(days=2, hours=23, minutes=59)
    await office.service.sweep()
    assert len(office.told(shop)) == 1
    till.travel(minutes=1)
    await asyncio.gather(*(office.service.sweep() for _ in range(4)))
    await office.service.sweep()
    assert [told["state"] for told in office.told(shop)] == ["grace", "none"]
    assert office.told(shop)[-1]["limits"]["users"] == 1


async def test_the_end_of_an_exception_is_told_once(office: Office, shop: Shop) -> None:
    await office.put(shop, "users", 9, until=office.till.now + timedelta(hours=1))
    await office.service.sweep()
    assert [told["limits"]["users"] for told in office.told(shop)] == [9]
    office.till.travel(hours=1)
    await asyncio.gather(*(office.service.sweep() for _ in range(4)))
    await office.service.sweep()
    assert [told["limits"]["users"] for told in office.told(shop)] == [9, 3]
    # The next exception of the same name is news of its own.
    await office.put(shop, "users", 8, until=office.till.now + timedelta(hours=1))
    office.till.travel(hours=2)
    await office.service.sweep()
    assert [told["limits"]["users"] for told in office.told(shop)] == [9, 3, 8, 3]


async def test_a_changed_plan_is_told_to_its_tenants_alone(office: Office, shop: Shop) -> None:
    plan_id, other = await office.plan_with(shop, limits={"users": 5}), await office.till.shop()
    plans = Plans()

    async def change(**values: object) -> None:
        async with office.till.units(PLATFORM) as uow:
            await plans.change(uow, office.operator, plan_id=plan_id, values=values)

    await change(name="Another name")
    await change(limits={"users": 5})
    await office.service.sweep()
    assert office.told(shop) == []
    await change(limits={"users": 6})
    await asyncio.gather(*(office.service.sweep() for _ in range(4)))
    await change(feature_flags={"webhooks_enabled": True})
    await office.service.sweep()
    await office.service.sweep()
    assert [(told["limits"]["users"], told["feature_flags"]) for told in office.told(shop)] == [
        (6, {}),
        (6, {"webhooks_enabled": True}),
    ]
    assert office.told(other) == []


async def test_what_is_told_is_what_is_written(office: Office, shop: Shop) -> None:
    till = office.till

    async def agree() -> None:
        event = till.heard(shop, "subscription:updated")[-1]
        subscription = await till.subscription(shop)
        # Noting that it was told must not move the time that was told.
        assert event.payload["updated_at"] == subscription.updated_at.isoformat().replace("+00:00", "Z")

    till.travel(days=5)
    await till.buy(shop, plan="professional")
    await agree()
    await office.put(shop, "users", 9, until=till.now + timedelta(hours=1))
    await agree()
    till.travel(hours=2)
    await office.service.sweep()
    await agree()


async def test_what_a_payment_has_told_is_not_told_again(office: Office, shop: Shop) -> None:
    await office.put(shop, "sites", 4, until=office.till.now + timedelta(hours=1))
    office.till.travel(hours=2)
    await office.till.buy(shop, plan="professional")
    told = len(office.told(shop))
    await office.service.sweep()
    assert len(office.told(shop)) == told
    assert "sites" not in office.told(shop)[-1]["limits"]
