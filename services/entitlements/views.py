"""Entitlements as clients see them, and the forms in which two ancestors showed subscriptions (contract.md 4.5)."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Self
from uuid import UUID

from core import json
from core.money import Money
from models.entitlements import TWINS, UNLIMITED, Entitlements, Grant, Limit, with_twins
from models.overrides import EntitlementOverride
from models.plans import Plan
from services.billing.views import EntitlementsView, View


class UsageView(View):
    """How much of a limit is used; `remaining` is None where nothing is limited, and never below 0."""

    used: Decimal | int
    allowed: int
    remaining: Decimal | int | None
    is_over: bool

    @classmethod
    def of(cls, used: Decimal | int, allowed: int) -> Self:
        if allowed == UNLIMITED:
            return cls(used=used, allowed=allowed, remaining=None, is_over=False)
        return cls(used=used, allowed=allowed, remaining=max(allowed - used, 0), is_over=used > allowed)


class OverrideView(View):
    """An exception from the plan, as the tenant sees it."""

    name: str
    value: bool | int
    until: datetime | None

    @classmethod
    def of(cls, override: EntitlementOverride) -> Self:
        return cls(name=override.name, value=override.value, until=override.until)


class NotedOverrideView(OverrideView):
    """An exception from the plan, as operators see it; `is_in_force` is false once its time is over."""

    reason: str
    created_by: UUID | None
    created_at: datetime
    is_in_force: bool

    @classmethod
    def noted(cls, override: EntitlementOverride, *, now: datetime) -> Self:
        return cls(
            **OverrideView.of(override).model_dump(),
            reason=override.reason,
            created_by=override.created_by,
            created_at=override.created_at,
            is_in_force=override.holds(now),
        )


class UsedEntitlementsView(EntitlementsView):
    """What a tenant may have and how much of it is used, by the limits' names and their twins (contract.md 4.2)."""

    usage: dict[str, UsageView]

    @classmethod
    def used(cls, entitlements: Entitlements, usage: Mapping[Limit, int | Decimal]) -> Self:
        return cls(**_used(entitlements, usage))


class TenantEntitlementsView(UsedEntitlementsView):
    """The same with the exceptions that are in force, for the tenant's people."""

    overrides: list[OverrideView]

    @classmethod
    def shown(
        cls, entitlements: Entitlements, usage: Mapping[Limit, int | Decimal], overrides: list[OverrideView]
    ) -> Self:
        return cls(**_used(entitlements, usage), overrides=overrides)


class NotedEntitlementsView(UsedEntitlementsView):
    """The same with every exception that was made, for operators."""

    tenant_id: UUID
    overrides: list[NotedOverrideView]

    @classmethod
    def noted(
        cls,
        tenant_id: UUID,
        entitlements: Entitlements,
        usage: Mapping[Limit, int | Decimal],
        overrides: list[NotedOverrideView],
    ) -> Self:
        return cls(**_used(entitlements, usage), tenant_id=tenant_id, overrides=overrides)


class ModuleSubscriptionView(View):
    """The second ancestor's form; whoever is not served gets `{"active": false}` and nothing else."""

    active: bool
    plan: str | None = None
    limits: dict[str, Any] | None = None
    features: dict[str, Any] | None = None
    expires: datetime | None = None


class SoldTariffView(View):
    """The third ancestor's form of a plan; `features_json` is a text that holds JSON."""

    id: UUID
    name: str
    price_monthly: Money
    subdomain_limit: int
    is_active: bool
    features_json: str

    @classmethod
    def of(cls, plan: Plan) -> Self:
        features = {**with_twins(plan.limits), **plan.feature_flags, "features": plan.features}
        return cls(
            id=plan.id,
            name=plan.name,
            price_monthly=plan.price_monthly,
            subdomain_limit=plan.limits.get(Limit.SUBDOMAINS, UNLIMITED),
            is_active=plan.is_active,
            features_json=json.dumps(features).decode(),
        )


class TariffSubscriptionView(View):
    """The third ancestor's form of a subscription; it is active for as long as the tenant is served."""

    id: UUID
    tenant_id: UUID
    tariff_id: UUID
    start_date: datetime
    end_date: datetime
    is_active: bool


def _used(entitlements: Entitlements, usage: Mapping[Limit, int | Decimal]) -> dict[str, Any]:
    shown = {limit.value: UsageView.of(used, entitlements.allowed(limit)) for limit, used in usage.items()}
    twins = {twin: shown[name] for name, twin in TWINS.items() if name in shown}
    return {**EntitlementsView.of(entitlements).model_dump(), "usage": {**shown, **twins}}


def is_served(grant: Grant) -> bool:
    """Tell whether a tenant still has what it subscribed to."""
    return grant is not Grant.NONE
