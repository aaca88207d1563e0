"""Billing of a tenant that is to be deleted: nobody is charged for it any more, and nothing owed to that is lost."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import select

from models.billing import ProviderInstruction, Subscription
from services.billing import journal
from services.billing.announcer import Announcer
from services.billing.change_facts import close_changes
from services.billing.instructions import Instructions, addressee_of
from services.billing.lookup import locked_subscription, period_purchase
from services.billing.owed import keep_superseded
from services.closed_tenants import DELETION_REASON
from services.unit_of_work import UnitOfWork


class WindingUp:
    """Ends subscriptions with their tenants; the caller has checked who asks."""

    def __init__(self, *, announcer: Announcer, instructions: Instructions) -> None:
        self._announcer = announcer
        self._instructions = instructions

    async def let_end(self, uow: UnitOfWork, tenant_id: UUID, *, actor_id: UUID) -> None:
        """Let the subscription end with its period, and close the pages at which something could still be paid.

        Harmless when repeated, or when there is none. What is paid all the same ends likewise (fulfilment.py).
        """
        subscription = await locked_subscription(uow, Subscription.tenant_id == tenant_id)
        if subscription is None:
            return
        if not subscription.is_over and subscription.cancel_later(reason=DELETION_REASON, now=uow.now):
            await self._settle(uow, subscription, actor_id=actor_id, at_period_end=True)
        await self._instructions.withdraw_pages(uow, tenant_id)

    async def end(self, uow: UnitOfWork, tenant_id: UUID, *, due_at: datetime) -> None:
        """End the subscription at once; harmless when repeated, or when there is none.

        A period that was paid for when the tenant's time was over already, at `due_at`, has bought nothing and is owed.
        """
        subscription = await locked_subscription(uow, Subscription.tenant_id == tenant_id)
        if subscription is None or subscription.is_over:
            return
        subscription.cancel_now(reason=DELETION_REASON, now=uow.now)
        await close_changes(uow, subscription)
        await self._owe_late(uow, subscription, due_at)
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

    async def _owe_late(self, uow: UnitOfWork, subscription: Subscription, due_at: datetime) -> None:
        purchase = await period_purchase(uow, subscription)
        if purchase is None or purchase.completed_at is None or purchase.completed_at < due_at:
            return
        await keep_superseded(
            uow,
            purchase,
            payment_key=str(purchase.id),
            amount=purchase.amount,
            currency=purchase.currency,
            occurred_at=purchase.completed_at,
        )

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
            details={"at_period_end": at_period_end, "reason": DELETION_REASON},
        )
        self._announcer.subscription_updated(uow, subscription)
