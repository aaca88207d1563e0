"""Refusals of what a plan does not allow."""

from decimal import Decimal

from core.errors import DomainError, ErrorKind, NotFound


class PlanLimitReached(DomainError):
    """The tenant has as much of something as it may; `details` tell of what, how much it has and how much it may.

    What is over a limit, after a change to a smaller plan, stays; nothing is added to it.
    """

    kind = ErrorKind.PAYMENT_REQUIRED
    code = "PLAN_LIMIT_REACHED"
    message = "Your plan allows no more of this"

    def __init__(self, limit: str, *, used: int | Decimal, allowed: int) -> None:
        super().__init__(details={"limit": limit, "used": used, "allowed": allowed})


class FeatureNotInPlan(DomainError):
    """The tenant's plan does not have a feature, which `details` name."""

    kind = ErrorKind.PAYMENT_REQUIRED
    code = "FEATURE_NOT_IN_PLAN"
    message = "Your plan does not include this"

    def __init__(self, feature: str) -> None:
        super().__init__(details={"feature": feature})


class OverrideNotFound(NotFound):
    """No exception of this name was made for the tenant."""

    message = "Override not found"


class TenantUnknown(NotFound):
    """No tenant has this id."""

    message = "Tenant not found"


class TariffNotFound(NotFound):
    """No plan has this id (contract.md 4.5)."""

    message = "Tariff not found"
