"""The plans that are sold, and the ones that a fresh installation starts with (contract.md 4.2)."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from core.errors import InvalidInput
from core.money import exponent, is_currency
from models.billing import BillingPeriod, Plan, PlanPrice
from services.billing.errors import PlanNotFound, UnknownCurrency, UnknownProvider
from services.billing.views import PlanPriceView, PlanView, PricedPlanView
from services.identity import Principal, require_superuser
from services.unit_of_work import UnitOfWork

TRIAL_SLUG: Final = "trial"
# Prices of plans have no more, also in currencies that have three.
_STORED_DECIMALS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceInput:
    """What one period of a plan shall cost at a provider; `currency` is upper case."""

    plan_id: UUID
    provider: str
    billing_period: BillingPeriod
    amount: Decimal
    currency: str


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


async def plans_for_sale(uow: UnitOfWork) -> list[PricedPlanView]:
    """Show the active plans in their order, with what each costs at providers that have prices of their own."""
    plans = await uow.session.scalars(select(Plan).where(Plan.is_active).order_by(Plan.sort_order, Plan.slug))
    prices: defaultdict[UUID, list[PlanPriceView]] = defaultdict(list)
    for price in await uow.session.scalars(
        select(PlanPrice).order_by(PlanPrice.provider, PlanPrice.billing_period.desc())
    ):
        prices[price.plan_id].append(PlanPriceView.of(price))
    return [PricedPlanView(**PlanView.of(plan).model_dump(), offers=prices[plan.id]) for plan in plans]


async def price_at(uow: UnitOfWork, plan: Plan, provider: str, period: BillingPeriod) -> tuple[Decimal, str]:
    """Return what one period of a plan costs at a provider, and in which currency."""
    own: PlanPrice | None = await uow.session.scalar(
        select(PlanPrice).where(
            PlanPrice.plan_id == plan.id, PlanPrice.provider == provider, PlanPrice.billing_period == period
        )
    )
    return (plan.price(period), plan.currency) if own is None else (own.amount, own.currency)


async def set_price(
    uow: UnitOfWork, actor: Principal, price: PriceInput, *, providers: Collection[str]
) -> PlanPriceView:
    """Say what a plan costs at one of the `providers` from now on, whether it has keys yet or not; for superusers.

    Purchases that were begun keep the price that was asked. Raises PlanNotFound, UnknownProvider, UnknownCurrency, and
    InvalidInput when the amount does not fit its currency.
    """
    require_superuser(actor)
    if price.provider not in providers:
        raise UnknownProvider(sorted(providers))
    require_currency(price.currency)
    if await uow.session.get(Plan, price.plan_id) is None:
        raise PlanNotFound
    if price.amount <= 0 or not _fits(price.amount, price.currency):
        raise InvalidInput(details={"errors": [_no_price("amount", price.currency)]})
    told = {"amount": price.amount, "currency": price.currency}
    before = await _own_price(uow, price)
    row = await uow.session.scalars(
        insert(PlanPrice)
        .values(
            id=uuid4(),
            plan_id=price.plan_id,
            provider=price.provider,
            billing_period=price.billing_period,
            **told,
        )
        .on_conflict_do_update(
            index_elements=[PlanPrice.plan_id, PlanPrice.provider, PlanPrice.billing_period], set_=told
        )
        .returning(PlanPrice)
    )
    uow.audit(
        "plan.price_set",
        actor_id=actor.user_id,
        tenant_id=None,
        subject=("plan", price.plan_id),
        details={
            "provider": price.provider,
            "billing_period": price.billing_period.value,
            "before": before and _as_text(before),
            "after": _as_text(told),
        },
    )
    return PlanPriceView.of(row.one())


def require_currency(code: str) -> None:
    """Raise UnknownCurrency unless there is one of this code, in upper case."""
    if not is_currency(code):
        raise UnknownCurrency


def require_prices(prices: Mapping[str, Decimal], currency: str) -> None:
    """Raise InvalidInput, which names the fields, for prices with more decimals than their currency."""
    problems = [_no_price(name, currency) for name, amount in prices.items() if not _fits(amount, currency)]
    if problems:
        raise InvalidInput(details={"errors": problems})


def _fits(amount: Decimal, currency: str) -> bool:
    return amount % Decimal(1).scaleb(-min(exponent(currency), _STORED_DECIMALS)) == 0


def _no_price(field: str, currency: str) -> dict[str, str]:
    return {"field": f"body -> {field}", "message": f"is no price in {currency}", "type": "value_error"}


async def _own_price(uow: UnitOfWork, price: PriceInput) -> Mapping[str, object] | None:
    """Return what the plan has cost at the provider until now, held until it is changed; None if it had no price."""
    own = await uow.session.scalar(
        select(PlanPrice)
        .where(
            PlanPrice.plan_id == price.plan_id,
            PlanPrice.provider == price.provider,
            PlanPrice.billing_period == price.billing_period,
        )
        .with_for_update()
    )
    return None if own is None else {"amount": own.amount, "currency": own.currency}


def _as_text(values: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}


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
