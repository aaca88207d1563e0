"""The plans that are sold, and the ones that a fresh installation starts with (contract.md 4.2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from models.billing import Plan
from services.billing.views import PlanView
from services.unit_of_work import UnitOfWork

TRIAL_SLUG: Final = "trial"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSeed:
    """A plan of the first day; limits of -1 mean unlimited."""

    slug: str
    name: str
    description: str
    price_monthly: Decimal
    price_yearly: Decimal
    limits: Mapping[str, int]
    features: tuple[str, ...]
    feature_flags: Mapping[str, bool]


_TRIAL: Final = PlanSeed(
    slug=TRIAL_SLUG,
    name="Trial",
    description="14-day free trial",
    price_monthly=Decimal("0.00"),
    price_yearly=Decimal("0.00"),
    limits={"users": 3, "storage_gb": 10},
    features=("Basic features", "Email support"),
    feature_flags={"listed_in_marketplace": False, "webhooks_enabled": False},
)

SEEDS: Final = (
    _TRIAL,
    PlanSeed(
        slug="starter",
        name="Starter",
        description="For a small team that begins",
        price_monthly=Decimal("19.99"),
        price_yearly=Decimal("199.99"),
        limits={"users": 5, "storage_gb": 25, "api_calls_per_month": 10_000},
        features=("All basic features", "Daily backups", "Email support"),
        feature_flags={"listed_in_marketplace": True, "webhooks_enabled": False},
    ),
    PlanSeed(
        slug="professional",
        name="Professional",
        description="For a growing company",
        price_monthly=Decimal("49.99"),
        price_yearly=Decimal("499.99"),
        limits={"users": 10, "storage_gb": 100, "api_calls_per_month": 100_000},
        features=("All starter features", "Webhooks", "Priority support"),
        feature_flags={"listed_in_marketplace": True, "webhooks_enabled": True},
    ),
    PlanSeed(
        slug="business",
        name="Business",
        description="For a company with several departments",
        price_monthly=Decimal("99.00"),
        price_yearly=Decimal("990.00"),
        limits={"users": -1, "storage_gb": 500, "api_calls_per_month": 1_000_000},
        features=("All professional features", "Unlimited users", "Phone support"),
        feature_flags={"listed_in_marketplace": True, "webhooks_enabled": True},
    ),
)


async def seed_plans(uow: UnitOfWork) -> None:
    """Add the plans that are missing; those that are there stay as an operator has made them."""
    for place, seed in enumerate(SEEDS):
        await _add_once(uow, seed, sort_order=place)


async def trial_plan(uow: UnitOfWork) -> Plan:
    """Return the plan of trials, seeded when nobody has done so."""
    trial = select(Plan).where(Plan.slug == TRIAL_SLUG)
    plan = await uow.session.scalar(trial)
    if plan is None:
        await _add_once(uow, _TRIAL, sort_order=0)
        plan = (await uow.session.scalars(trial)).one()
    return plan


async def plans_for_sale(uow: UnitOfWork) -> list[PlanView]:
    """Show the active plans in their order."""
    plans = await uow.session.scalars(select(Plan).where(Plan.is_active).order_by(Plan.sort_order, Plan.slug))
    return [PlanView.of(plan) for plan in plans]


async def plan_for_sale(uow: UnitOfWork, plan_id: UUID) -> Plan | None:
    """Return an active plan."""
    plan: Plan | None = await uow.session.scalar(select(Plan).where(Plan.id == plan_id, Plan.is_active))
    return plan


async def _add_once(uow: UnitOfWork, seed: PlanSeed, *, sort_order: int) -> None:
    # Processes that start together seed together, so the database decides who was first.
    await uow.session.execute(
        insert(Plan)
        .values(
            id=uuid4(),
            slug=seed.slug,
            name=seed.name,
            description=seed.description,
            price_monthly=seed.price_monthly,
            price_yearly=seed.price_yearly,
            currency="USD",
            limits=dict(seed.limits),
            features=list(seed.features),
            feature_flags=dict(seed.feature_flags),
            sort_order=sort_order,
        )
        .on_conflict_do_nothing(index_elements=[Plan.slug])
    )
