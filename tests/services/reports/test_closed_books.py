"""What a tenant has paid stays in the books when the tenant is deleted: past months read as they did."""

from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from models.base import Base, OutlivesTenant
from models.billing import BillingPeriod
from models.documents import Document
from models.journal import EntryKind
from models.merchants import CommissionLog
from models.tenants import Tenant
from services.billing.journal import MoneyFact, balances, post
from services.mail import MailService
from services.reports import money
from services.reports.months import Months
from services.reports.recurring import recurring, recurring_by_plan
from services.tenants.deletion import Deletion
from services.tenants.export import exported_mappers
from services.unit_of_work import TenantScope
from services.verification import NOT_REQUIRED
from tests.support.billing import PLATFORM, Shop, Till, Unsent, press_sandbox
from tests.support.books import open_books
from tests.support.running import Orchestrator, Running

pytestmark = pytest.mark.embedded

BOOKS: set[Any] = {mapper.local_table for mapper in Base.registry.mappers if issubclass(mapper.class_, OutlivesTenant)}


@pytest.fixture
async def books(engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    """A database for one test, for its reports are about all tenants, and in the future of the other tests."""
    running = Running(partial(open_books, engine=engine))
    yield await running.started()
    await running.stop()


async def test_past_months_are_the_same_to_the_cent(till: Till, shop: Shop, orchestrator: Orchestrator) -> None:
    other = await till.shop()
    first = till.now.date().replace(day=1)
    await live(till, shop)
    await till.buy(other, plan="professional")
    till.travel(days=40)
    months = Months.asked(first, (till.now.date().replace(day=1) - timedelta(days=1)).replace(day=1), now=till.now)
    before = await reports(till, months)
    assert {line.plan for line in await by_plan(till)} == {"professional", "business"}
    assert {"professional", "business"} <= {line.plan for line in before[0]}

    await delete(till, shop, orchestrator)

    assert await reports(till, months) == before
    async with till.units(PLATFORM) as uow:
        held = await balances(uow, shop.tenant_id)
    assert held
    assert sum(held.values()) == 0
    # It brings nothing any more.
    assert {line.plan for line in await by_plan(till)} == {"professional"}


async def test_only_the_books_stay_and_only_the_platform_reads_them(
    till: Till, shop: Shop, orchestrator: Orchestrator
) -> None:
    other = await till.shop()
    await live(till, shop)

    await delete(till, shop, orchestrator)

    async with till.units(PLATFORM) as uow:
        for mapper in exported_mappers():
            table: Any = mapper.local_table
            left = select(func.count()).select_from(table).where(table.c.tenant_id == shop.tenant_id)
            assert bool(await uow.session.scalar(left)) is (table in BOOKS or table.name == "audit_entries")
    async with till.units(TenantScope(other.tenant_id)) as uow:
        for table in BOOKS:
            # Past the first wall, so that it is the database that answers.
            seen = select(func.count()).select_from(table).where(table.c.tenant_id == shop.tenant_id)
            assert await uow.session.scalar(seen) == 0, table.name


def test_no_book_but_the_papers_tells_of_people() -> None:
    for table in BOOKS - {Document.__table__}:
        assert {key.target_fullname for key in table.foreign_keys} <= {"plans.id"}, table.name
        assert not {"email", "name", "address", "created_by", "event_metadata"} & set(table.columns.keys()), table.name


async def live(till: Till, shop: Shop) -> None:
    """Buy, renew, give back, dispute, change to another plan by another provider, and earn commission."""
    stripe = await till.buy(shop, plan="professional")
    charge = till.stripe.charge_of(stripe)
    till.travel(days=3)
    await till.take(*till.stripe.refund(charge["id"], 1_000))
    till.travel(days=28)
    await till.take(*till.stripe.renew(stripe))
    await till.take(*till.stripe.open_dispute(till.stripe.charge_of(stripe)["id"]))
    await till.cancel(shop.owner, at_period_end=False)
    await press_sandbox(till, shop, "pay", plan="business", period=BillingPeriod.YEARLY)
    await press_sandbox(till, shop, "pay", plan="business", period=BillingPeriod.YEARLY)
    order_id = uuid4()
    earned = MoneyFact(
        tenant_id=shop.tenant_id,
        provider="merchants",
        kind=EntryKind.COMMISSION,
        key=str(order_id),
        currency="USD",
        occurred_at=till.now,
    )
    async with till.units(PLATFORM) as uow:
        await post(uow, earned, Decimal("2.50"))
        uow.session.add(
            CommissionLog(
                tenant_id=shop.tenant_id,
                order_id=order_id,
                number=1,
                commission_percent=Decimal(5),
                commission_amount=Decimal("2.50"),
                kept_amount=Decimal(50),
                currency="USD",
            )
        )


async def delete(till: Till, shop: Shop, orchestrator: Orchestrator) -> None:
    """Let a tenant's time run out and be carried out, as the scheduler does."""
    deletion = Deletion(
        units=till.units,
        billing=till.billing,
        provisioning=orchestrator.services.provisioning,
        mail=MailService(till.units, Unsent()),
        public_url="http://localhost",
        grace=timedelta(days=30),
        verification=NOT_REQUIRED,
    )
    await till.change(Tenant, shop.tenant_id, deletion_due_at=till.now)
    for _ in range(3):
        await deletion.sweep()
        till.travel(minutes=5)
        await till.billing.sweep()
    async with till.units(PLATFORM) as uow:
        assert await uow.session.get(Tenant, shop.tenant_id) is None


async def reports(till: Till, months: Months) -> list[Any]:
    async with till.units(PLATFORM) as uow:
        return [
            await money.revenue(uow, months),
            await money.commission(uow, months),
            await recurring(uow, months),
        ]


async def by_plan(till: Till) -> list[Any]:
    async with till.units(PLATFORM) as uow:
        return [line for line in await recurring_by_plan(uow) if line.currency == "USD"]
