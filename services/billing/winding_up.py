"""Billing of a tenant that is to be deleted: nobody is charged for it any more, and nothing owed to that is lost."""

from uuid import UUID

from sqlalchemy import select

from models.billing import ProviderInstruction, Subscription
from services.billing import journal
from services.billing.announcer import Announcer
from services.billing.change_facts import close_changes
from services.billing.instructions import Instructions, addressee_of
from services.billing.lookup import locked_subscription
from services.unit_of_work import UnitOfWork

_REASON = "the tenant is deleted"


class WindingUp:
    """Ends subscriptions with their tenants; the caller has checked who asks."""

    def __init__(self, *, announcer: Announcer, instructions: Instructions) -> None:
        self._announcer = announcer
        self._instructions = instructions

    async def let_end(self, uow: UnitOfWork, tenant_id: UUID, *, actor_id: UUID) -> None:
        """Let the subscription end with its period; harmless when repeated, or when there is none."""
        subscription = await locked_subscription(uow, Subscription.tenant_id == tenant_id)
        if subscription is None or subscription.is_over or not subscription.cancel_later(reason=_REASON, now=uow.now):
            return
        await self._settle(uow, subscription, actor_id=actor_id, at_period_end=True)

    async def end(self, uow: UnitOfWork, tenant_id: UUID) -> None:
        """End the subscription at once; harmless when repeated, or when there is none."""
        subscription = await locked_subscription(uow, Subscription.tenant_id == tenant_id)
        if subscription is None or subscription.is_over:
            return
        subscription.cancel_now(reason=_REASON, now=uow.now)
        await close_changes(uow, subscription)
        await self._settle(uow, subscription, actor_id=None, at_period_end=False)
        await self._instructions.withdraw_pages(uow, tenant_id)

    async def is_settled(self, uow: UnitOfWork, tenant_id: UUID) -> bool:
        """Tell whether every provider has heard of every instruction about the tenant's."""
        waiting = await uow.session.scalar(
            select(ProviderInstruction.id)
            .where(ProviderInstruction.tenant_id == tenant_id, ProviderInstruction.done_at.is_(None))
            .limit(1)
        )
        return waiting is None

    async def close_books(self, uow: UnitOfWork, tenant_id: UUID) -> None:
        """Leave the books so that reports read the same once the tenant's other rows are gone (docs/adr/0022)."""
        await journal.close(uow, tenant_id)

    async def _settle(
        self, uow: UnitOfWork, subscription: Subscription, *, actor_id: UUID | None, at_period_end: bool
    ) -> None:
        addressee = addressee_of(subscription)
        if addressee is not None:
            # Carried out by the sweep, for the tenant's end must not wait for a provider.
            await self._instructions.cancel(uow, addressee, at_period_end=at_period_end)
        uow.audit(
            "subscription.cancelled",
            actor_id=actor_id,
            tenant_id=subscription.tenant_id,
            subject=("subscription", subscription.id),
            details={"at_period_end": at_period_end, "reason": _REASON},
        )
        self._announcer.subscription_updated(uow, subscription)
