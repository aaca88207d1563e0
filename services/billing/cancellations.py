"""Telling providers to stop charging: ordered with the decision, carried out after it, until it is done."""

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID, uuid4

import structlog
from sqlalchemy import or_, select

from core.backoff import full_jitter_s
from models.billing import ProviderCancellation
from providers.payments import PaymentProvider, ProviderRejected, ProviderUnavailable
from services.unit_of_work import PlatformScope, UnitOfWork, UnitOfWorkFactory

# Longer than any provider is given to answer, so that two workers do not ask at once.
_LEASE = timedelta(minutes=2)
_SWEEP_LIMIT = 50
_SCOPE = PlatformScope("orders to providers outlive the request that gave them")

logger = structlog.get_logger(__name__)


class Cancellations:
    """Orders to stop charging. Asking a provider twice does no harm, so each is tried at least once."""

    def __init__(self, units: UnitOfWorkFactory, providers: Mapping[str, PaymentProvider]) -> None:
        self._units = units
        self._providers = providers

    def order(
        self, uow: UnitOfWork, *, tenant_id: UUID, provider: str, subscription_ref: str, at_period_end: bool
    ) -> UUID:
        """Record an order in the caller's transaction; returns its id, for `carry_out` once that has committed."""
        order = ProviderCancellation(
            id=uuid4(),
            tenant_id=tenant_id,
            provider=provider,
            subscription_ref=subscription_ref,
            at_period_end=at_period_end,
            attempts=0,
            created_at=uow.now,
            next_attempt_at=uow.now,
        )
        uow.session.add(order)
        return order.id

    async def is_waiting(self, uow: UnitOfWork, *, provider: str, subscription_ref: str) -> bool:
        """Tell whether the provider has yet to hear of a cancellation."""
        found = await uow.session.scalar(
            select(ProviderCancellation.id)
            .where(
                ProviderCancellation.provider == provider,
                ProviderCancellation.subscription_ref == subscription_ref,
                ProviderCancellation.done_at.is_(None),
            )
            .limit(1)
        )
        return found is not None

    async def carry_out(self, order_id: UUID) -> None:
        """Ask the provider, outside any unit of work; when it is away, the sweeper asks again."""
        claimed = await self._claim(order_id)
        if claimed is None:
            return
        order, attempt = claimed
        try:
            provider = self._providers.get(order.provider)
            if provider is None:
                # Its keys were taken away; an operator who puts them back wants the order carried out.
                raise ProviderUnavailable(retryable=False)
            await provider.cancel(order.subscription_ref, at_period_end=order.at_period_end)
        except ProviderUnavailable:
            await self._postpone(order_id, attempt)
        except ProviderRejected as refusal:
            await self._finish(order_id, refusal)
        else:
            await self._finish(order_id, None)

    async def sweep(self) -> None:
        """Carry out what is due: retries, and orders whose process died before it could ask."""
        async with self._units(_SCOPE) as uow:
            due = await uow.session.scalars(
                select(ProviderCancellation.id)
                .where(ProviderCancellation.done_at.is_(None), ProviderCancellation.next_attempt_at <= uow.now)
                .order_by(ProviderCancellation.next_attempt_at)
                .limit(_SWEEP_LIMIT)
            )
            order_ids = list(due)
        for order_id in order_ids:
            await self.carry_out(order_id)

    async def _claim(self, order_id: UUID) -> tuple[ProviderCancellation, int] | None:
        async with self._units(_SCOPE) as uow:
            order = await uow.session.scalar(
                select(ProviderCancellation)
                .where(
                    ProviderCancellation.id == order_id,
                    ProviderCancellation.done_at.is_(None),
                    or_(ProviderCancellation.next_attempt_at <= uow.now, ProviderCancellation.attempts == 0),
                )
                .with_for_update(skip_locked=True)
            )
            return None if order is None else (order, order.claim(now=uow.now, lease=_LEASE))

    async def _postpone(self, order_id: UUID, attempt: int) -> None:
        async with self._units(_SCOPE) as uow:
            order = await self._held(uow, order_id)
            wait = timedelta(seconds=full_jitter_s(attempt, base_s=30.0, cap_s=3600.0))
            order.next_attempt_at = uow.now + wait
            order.last_error = "provider unavailable"
            logger.warning("cancellation postponed", provider=order.provider, order=str(order_id), attempt=attempt)

    async def _finish(self, order_id: UUID, refusal: ProviderRejected | None) -> None:
        async with self._units(_SCOPE) as uow:
            order = await self._held(uow, order_id)
            order.done_at = uow.now
            order.last_error = None if refusal is None else refusal.text
            uow.audit(
                "provider_cancellation.done" if refusal is None else "provider_cancellation.refused",
                actor_id=None,
                tenant_id=order.tenant_id,
                subject=("provider_cancellation", order.id),
                details={"provider": order.provider, "at_period_end": order.at_period_end},
            )
            if refusal is not None:
                logger.error("cancellation refused", provider=order.provider, order=str(order_id))

    async def _held(self, uow: UnitOfWork, order_id: UUID) -> ProviderCancellation:
        rows = await uow.session.scalars(
            select(ProviderCancellation).where(ProviderCancellation.id == order_id).with_for_update()
        )
        return rows.one()
