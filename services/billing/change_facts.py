"""Paid changes of plan: which of them count, what those change, and what is owed for the others."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import and_, or_, select, update
from sqlalchemy.orm import joinedload

from models.billing import (
    CheckoutKind,
    CheckoutSession,
    CheckoutState,
    Subscription,
)
from models.checkouts import changes_in_force, in_time
from providers.payments import PaymentProvider
from services.billing.announcer import Announcer
from services.billing.instructions import Addressee, Instructions
from services.billing.owed import keep_superseded
from services.billing.trail import audit
from services.unit_of_work import UnitOfWork


async def close_changes(uow: UnitOfWork, subscription: Subscription) -> None:
    """Let no change of a subscription that has just ended count if it is paid from now on, whatever begins later.

    Nor is anything left of its own period for a later purchase to replace. The subscription's lock is held.
    """
    if subscription.checkout is None:
        return
    root_id = subscription.checkout.period_purchase_id
    # Providers count whole seconds, so what was paid within the last one may have come after the end.
    end = subscription.current_period_end.replace(microsecond=0)
    await uow.session.execute(
        update(CheckoutSession)
        .where(
            CheckoutSession.tenant_id == subscription.tenant_id,
            or_(
                and_(CheckoutSession.root_id == root_id, CheckoutSession.valid_until > end),
                and_(CheckoutSession.id == root_id, CheckoutSession.valid_until.is_(None)),
            ),
        )
        .values(valid_until=end)
    )


class ChangeFacts:
    """Settles a tenant's changes from all that is known of them, so that the order of the news does not matter."""

    def __init__(
        self, *, providers: Mapping[str, PaymentProvider], announcer: Announcer, instructions: Instructions
    ) -> None:
        self._providers = providers
        self._announcer = announcer
        self._instructions = instructions

    async def settle(self, uow: UnitOfWork, subscription: Subscription) -> list[UUID]:
        """Put the newest change that counts in force, and keep a credit for each that does not.

        The subscription's lock is held. Returns the instructions to its provider that this gave rise to.
        """
        await uow.session.flush()
        paid = await _paid(uow, subscription.tenant_id)
        changes = [purchase for purchase in paid if purchase.kind is CheckoutKind.CHANGE]
        if not changes:
            return []
        periods = in_time(purchase for purchase in paid if purchase.kind is CheckoutKind.PERIOD)
        instructions: list[UUID] = []
        counting: set[UUID] = set()
        for root, replaced_by in zip(periods, [*periods[1:], None], strict=True):
            chain = changes_in_force(root, changes, replaced_by=replaced_by)
            counting |= {change.id for change in chain}
            if chain and _is_in_force(subscription, root):
                instructions += await self._put_in_force(uow, subscription, chain[-1])
        for change in changes:
            await self._owe(uow, subscription, change, is_owed=change.id not in counting)
        return instructions

    async def _put_in_force(self, uow: UnitOfWork, subscription: Subscription, change: CheckoutSession) -> list[UUID]:
        if subscription.checkout_id == change.id or change.completed_at is None:
            return []
        subscription.change(change, paid_at=change.completed_at, now=uow.now)
        audit(uow, "subscription.plan_changed", subscription, plan=change.plan.slug, checkout=str(change.id))
        self._announcer.subscription_updated(uow, subscription)
        await self._announcer.notify(uow, "plan_changed", subscription)
        provider, ref = self._providers.get(change.provider), subscription.external_subscription_id
        if provider is None or not provider.capabilities.recurring or ref is None:
            return []
        # A new period is charged for when it is over, also where the provider has told of its own since.
        new_period_end = change.bought_until if change.restarts else None
        told = Addressee(tenant_id=subscription.tenant_id, provider=change.provider, subscription_ref=ref)
        return [
            await self._instructions.reprice(
                uow,
                told,
                amount=change.price,
                currency=change.currency,
                period=change.billing_period,
                charge_from=new_period_end or subscription.current_period_end,
            )
        ]

    async def _owe(
        self, uow: UnitOfWork, subscription: Subscription, change: CheckoutSession, *, is_owed: bool
    ) -> None:
        """Keep the credit for a change that bought nothing, or drop it, unless an operator has settled it."""
        owed = await keep_superseded(
            uow,
            change,
            payment_key=str(change.id),
            amount=change.amount if is_owed else change.amount * 0,
            currency=change.currency,
            occurred_at=change.place_in_time[0],
        )
        if owed is not None:
            await self._announcer.notify(
                uow, "payment_superseded", subscription, amount=owed.amount, currency=owed.currency
            )


async def _paid(uow: UnitOfWork, tenant_id: UUID) -> Sequence[CheckoutSession]:
    rows = await uow.session.scalars(
        select(CheckoutSession)
        .options(joinedload(CheckoutSession.plan))
        .where(CheckoutSession.tenant_id == tenant_id, CheckoutSession.state == CheckoutState.PAID)
    )
    return list(rows)


def _is_in_force(subscription: Subscription, root: CheckoutSession) -> bool:
    in_force = subscription.checkout
    return in_force is not None and in_force.period_purchase_id == root.id and not subscription.is_over
