"""The audit trail of what facts, not people, do to a subscription."""

from models.billing import Subscription
from services.unit_of_work import UnitOfWork


def audit(uow: UnitOfWork, action: str, subscription: Subscription, **details: object) -> None:
    """Note what happened to a subscription without anybody's doing."""
    uow.audit(
        action,
        actor_id=None,
        tenant_id=subscription.tenant_id,
        subject=("subscription", subscription.id),
        details=details,
    )
