"""Asking about purchases that nobody told us the end of: after 5 minutes, after an hour, then daily."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy import select, update

from models.billing import CheckoutSession, CheckoutState
from models.inbox import EventSource
from providers.payments import (
    PaymentProvider,
    PaymentState,
    PaymentStatus,
    ProviderRejected,
    ProviderUnavailable,
    saw_state,
)
from services.billing.reconciling.known import knows_payment
from services.billing.reconciling.pauses import pause_after
from services.billing.stored import store_event
from services.unit_of_work import PlatformScope, UnitOfWork, UnitOfWorkFactory

TASK = "reconciling.poll"

# Longer than any provider is given to answer, so that two workers do not ask at once.
_LEASE = timedelta(minutes=2)
# How long to wait at most before somebody is asked again who could not answer, in seconds. Failures are not counted:
# the provider's circuit is what spares it.
_LONGEST_PAUSE_S = 240.0
_PATIENT = 10
_SWEEP_LIMIT = 200
_SCOPE = PlatformScope("purchases of every tenant are asked about")

logger = structlog.get_logger(__name__)


class Polls:
    """Asks providers about purchases. What differs goes into the inbox, like anything that a provider tells."""

    def __init__(self, units: UnitOfWorkFactory, *, providers: Mapping[str, PaymentProvider]) -> None:
        self._units = units
        self._providers = providers

    async def sweep(self) -> None:
        """Ring for the purchases whose time to be asked about has come, each once among all schedulers."""
        async with self._units(_SCOPE) as uow:
            due = (
                select(CheckoutSession.id)
                # Whose keys were taken away waits until they are given back.
                .where(CheckoutSession.next_poll_at <= uow.now, CheckoutSession.provider.in_(self._providers))
                .order_by(CheckoutSession.next_poll_at)
                .limit(_SWEEP_LIMIT)
                .with_for_update(skip_locked=True)
            )
            claimed = await uow.session.scalars(
                update(CheckoutSession)
                .where(CheckoutSession.id.in_(due.scalar_subquery()))
                .values(next_poll_at=uow.now + _LEASE)
                .returning(CheckoutSession.id)
            )
            for checkout_id in claimed:
                uow.ring(TASK, checkout_id)

    async def poll(self, checkout_id: UUID) -> None:
        """Ask about one purchase; harmless for one that nothing more can come of. A provider that is away delays."""
        async with self._units(_SCOPE) as uow:
            checkout = await uow.session.scalar(
                select(CheckoutSession).where(
                    CheckoutSession.id == checkout_id, CheckoutSession.next_poll_at.is_not(None)
                )
            )
        provider = None if checkout is None else self._providers.get(checkout.provider)
        if checkout is None or provider is None:
            return
        try:
            state = await _ask(provider, checkout)
        except ProviderUnavailable as away:
            await self._postpone(checkout_id, away)
            return
        async with self._units(_SCOPE) as uow:
            checkout = await _held(uow, checkout_id)
            await self._compare(uow, provider, checkout, state)
            checkout.polled(uow.now)

    async def _compare(
        self, uow: UnitOfWork, provider: PaymentProvider, checkout: CheckoutSession, state: PaymentState | None
    ) -> None:
        if state is not None and not await knows_payment(uow, provider, checkout, state):
            await store_event(uow, checkout.provider, saw_state(state), source=EventSource.POLL)
            return
        is_waiting = state is None or state.status is PaymentStatus.PENDING
        if (
            is_waiting
            and self._has_run_out(checkout, uow.now)
            and checkout.tell(CheckoutState.EXPIRED, at=checkout.expires_at)
        ):
            uow.audit(
                "checkout.expired",
                actor_id=None,
                tenant_id=checkout.tenant_id,
                subject=("checkout", checkout.id),
                details={"provider": checkout.provider},
            )

    def _has_run_out(self, checkout: CheckoutSession, now: datetime) -> bool:
        """Tell whether our own clock must end it, since the provider does not say when a page is closed."""
        tells = self._providers[checkout.provider].capabilities.tells_expiry
        return not tells and checkout.expires_at is not None and now > checkout.expires_at + _LEASE

    async def _postpone(self, checkout_id: UUID, fault: ProviderUnavailable) -> None:
        async with self._units(_SCOPE) as uow:
            checkout = await _held(uow, checkout_id)
            checkout.next_poll_at = uow.now + pause_after(fault, attempt=_PATIENT, cap_s=_LONGEST_PAUSE_S)


async def _ask(provider: PaymentProvider, checkout: CheckoutSession) -> PaymentState | None:
    if checkout.session_id is None or not provider.capabilities.fetch_payment:
        return None
    try:
        return await provider.fetch_payment(checkout.session_id)
    except ProviderRejected as refusal:
        logger.warning("poll refused", provider=checkout.provider, checkout=str(checkout.id), reason=refusal.text)
        return None


async def _held(uow: UnitOfWork, checkout_id: UUID) -> CheckoutSession:
    rows = await uow.session.scalars(select(CheckoutSession).where(CheckoutSession.id == checkout_id).with_for_update())
    return rows.one()
