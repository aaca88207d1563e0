"""Plans: what a fresh installation sells, and how plans look on the wire."""

import asyncio
from decimal import Decimal
from uuid import uuid4

from sqlalchemy import func, select

from core import json
from models.billing import PastDuePolicy, Plan
from services.billing.views import PlanView
from tests.support.billing import PLATFORM, Till

SLUGS = ("trial", "starter", "professional", "business")


async def test_seeding_is_idempotent_and_races_with_nobody(till: Till) -> None:
    async def seed() -> None:
        async with till.units(PLATFORM) as uow:
            await till.billing.seed_plans(uow)

    await asyncio.gather(*(seed() for _ in range(5)))
    async with till.units(PLATFORM) as uow:
        rows = await uow.session.scalars(select(Plan).where(Plan.slug.in_(SLUGS)).order_by(Plan.sort_order))
        plans = list(rows)
    assert tuple(plan.slug for plan in plans) == SLUGS
    trial, _, professional, _ = plans
    assert (trial.name, trial.description, trial.price_monthly, trial.trial_days) == (
        "Trial",
        "14-day free trial",
        Decimal("0.00"),
        14,
    )
    assert trial.limits == {"users": 3, "storage_gb": 10}
    assert trial.features == ["Basic features", "Email support"]
    assert (professional.price_monthly, professional.price_yearly) == (Decimal("49.99"), Decimal("499.99"))
    assert professional.limits == {"users": 10, "storage_gb": 100, "api_calls_per_month": 100_000}
    for plan in plans:
        assert {"listed_in_marketplace", "webhooks_enabled"} <= plan.feature_flags.keys()


async def test_seeding_leaves_an_operators_price_alone(till: Till) -> None:
    plan = await till.plan("business")
    await till.change(Plan, plan.id, price_monthly=Decimal("123.45"))
    try:
        assert (await till.plan("business")).price_monthly == Decimal("123.45")
    finally:
        await till.change(Plan, plan.id, price_monthly=plan.price_monthly)


async def test_a_trial_seeds_its_own_plan(till: Till) -> None:
    shop = await till.shop()
    view = await till.view(shop.owner)
    assert (view.status, view.plan.slug) == ("trial", "trial")
    async with till.units(PLATFORM) as uow:
        count = await uow.session.scalar(select(func.count()).select_from(Plan).where(Plan.slug == "trial"))
    assert count == 1


async def test_only_active_plans_are_shown_in_their_order(till: Till) -> None:
    await till.plan()
    hidden = Plan(
        id=uuid4(),
        slug=f"hidden-{uuid4().hex[:8]}",
        name="Hidden",
        price_monthly=Decimal(1),
        price_yearly=Decimal(1),
        is_active=False,
    )
    async with till.units(PLATFORM) as uow:
        uow.session.add(hidden)
    async with till.units(PLATFORM) as uow:
        shown = await till.billing.plans(uow)
    slugs = [plan.slug for plan in shown]
    assert hidden.slug not in slugs
    assert [slug for slug in slugs if slug in SLUGS] == list(SLUGS)
    assert [plan.sort_order for plan in shown] == sorted(plan.sort_order for plan in shown)


async def test_a_plan_on_the_wire(till: Till) -> None:
    plan = await till.plan()
    wire = json.dumps(PlanView.of(plan).model_dump())
    assert b'"price_monthly":49.99' in wire
    assert b'"yearly_price":499.99' in wire
    shown = json.loads(wire)
    assert shown["limits"] == {
        "users": 10,
        "max_users": 10,
        "storage_gb": 100,
        "max_storage_gb": 100,
        "api_calls_per_month": 100_000,
    }
    assert (shown["max_users"], shown["max_storage"]) == (10, 100)


async def test_a_plan_of_the_other_limit_names_without_description(till: Till) -> None:
    plan = await till.plan()
    odd = Plan(
        id=uuid4(),
        slug="odd",
        name="Odd",
        description=None,
        price_monthly=Decimal(99),
        price_yearly=Decimal(990),
        currency="USD",
        limits={"max_users": -1},
        features=[],
        feature_flags={},
        trial_days=0,
        past_due_policy=PastDuePolicy.EXPIRE,
        is_active=True,
        sort_order=9,
        created_at=plan.created_at,
        updated_at=plan.updated_at,
    )
    view = PlanView.of(odd)
    assert (view.description, view.max_users, view.max_storage) == ("", -1, 0)
    assert view.limits == {"max_users": -1, "users": -1}
    assert b'"price_monthly":99.00' in json.dumps(view.model_dump())
