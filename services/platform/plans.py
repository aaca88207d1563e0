"""What is sold, as those who sell it see it: plans made, changed, retired and brought back."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from models.plans import Plan
from services.billing.plans import TRIAL_SLUG, require_currency, require_prices
from services.billing.views import PlanView
from services.entitlements.catalogue import require_known
from services.identity import Principal, require_superuser
from services.platform.errors import PlanNotFound, PlanSlugTaken, TrialNotRetirable
from services.unit_of_work import UnitOfWork

# What of a plan says what its tenants may have.
_ENTITLING = frozenset(("limits", "feature_flags"))
_PRICES = ("price_monthly", "price_yearly")


class Plans:
    """The use cases of superusers about plans; all need a PlatformScope and raise SuperuserRequired.

    A change of a price concerns purchases to come: what is bought keeps the amount it was bought for. A retired plan is
    not sold any more and lives on in its subscriptions.
    """

    async def list(self, uow: UnitOfWork, actor: Principal) -> list[PlanView]:
        """Show all plans, also the retired ones."""
        require_superuser(actor)
        plans = await uow.session.scalars(select(Plan).order_by(Plan.sort_order, Plan.slug))
        return [PlanView.of(plan) for plan in plans]

    async def create(self, uow: UnitOfWork, actor: Principal, *, slug: str, values: Mapping[str, Any]) -> PlanView:
        """Make a plan, which is sold at once; `values` are fields of `Plan`.

        Raises PlanSlugTaken, UnknownCurrency, UnknownEntitlement, and InvalidInput when a price does not fit its
        currency.
        """
        require_superuser(actor)
        require_currency(values["currency"])
        require_prices(_prices(values), values["currency"])
        require_known(values)
        # Of two who make it at once, the database decides who was first.
        statement = (
            insert(Plan)
            .values(id=uuid4(), slug=slug, is_active=True, created_at=uow.now, updated_at=uow.now, **values)
            .on_conflict_do_nothing(index_elements=[Plan.slug])
            .returning(Plan)
        )
        plan = (await uow.session.scalars(statement)).one_or_none()
        if plan is None:
            raise PlanSlugTaken
        _audit(uow, actor, "plan.created", plan, after={"slug": slug, **values})
        return PlanView.of(plan)

    async def change(self, uow: UnitOfWork, actor: Principal, *, plan_id: UUID, values: Mapping[str, Any]) -> PlanView:
        """Change fields of a plan; raises PlanNotFound and what `create` does of the fields that are given."""
        require_superuser(actor)
        require_known(values)
        plan = await self._held(uow, actor, plan_id)
        require_prices(_prices(values), plan.currency)
        before = {name: getattr(plan, name) for name in values}
        for name, value in values.items():
            setattr(plan, name, value)
        if any(before[name] != values[name] for name in _ENTITLING & values.keys()):
            # Their tenants are told by a sweep (services/entitlements/sweeper.py), for there may be thousands.
            plan.entitlements_changed_at = uow.now
        if values:
            plan.updated_at = uow.now
            _audit(uow, actor, "plan.changed", plan, before=before, after=dict(values))
        return PlanView.of(plan)

    async def retire(self, uow: UnitOfWork, actor: Principal, *, plan_id: UUID) -> PlanView:
        """Sell a plan no more. Raises PlanNotFound and TrialNotRetirable."""
        plan = await self._held(uow, actor, plan_id)
        if plan.slug == TRIAL_SLUG:
            raise TrialNotRetirable
        return self._put(uow, actor, plan, on_sale=False)

    async def restore(self, uow: UnitOfWork, actor: Principal, *, plan_id: UUID) -> PlanView:
        """Sell a retired plan again; raises PlanNotFound."""
        return self._put(uow, actor, await self._held(uow, actor, plan_id), on_sale=True)

    def _put(self, uow: UnitOfWork, actor: Principal, plan: Plan, *, on_sale: bool) -> PlanView:
        if plan.is_active is not on_sale:
            plan.is_active, plan.updated_at = on_sale, uow.now
            _audit(uow, actor, "plan.restored" if on_sale else "plan.retired", plan)
        return PlanView.of(plan)

    async def _held(self, uow: UnitOfWork, actor: Principal, plan_id: UUID) -> Plan:
        require_superuser(actor)
        plan: Plan | None = await uow.session.scalar(
            select(Plan).where(Plan.id == plan_id).with_for_update(key_share=True)
        )
        if plan is None:
            raise PlanNotFound
        return plan


def _prices(values: Mapping[str, Any]) -> dict[str, Decimal]:
    return {name: values[name] for name in _PRICES if name in values}


def _audit(uow: UnitOfWork, actor: Principal, action: str, plan: Plan, **details: Mapping[str, Any]) -> None:
    shown = {name: {field: _plain(value) for field, value in values.items()} for name, values in details.items()}
    uow.audit(action, actor_id=actor.user_id, tenant_id=None, subject=("plan", plan.id), details=shown)


def _plain(value: object) -> object:
    """Return what JSON can hold: prices as texts with all their digits."""
    return value if isinstance(value, int | dict | list) else str(value)
