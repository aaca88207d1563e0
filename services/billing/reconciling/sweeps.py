"""Sweeps: everything that a provider holds against everything that we hold, at night and on demand.

A sweep goes through the provider's events of a month, then through our purchases, our subscriptions, and the invoices
of merchants who have accounts there, a page at a time. How far it is stands in its row, so that another worker goes on
where one was lost.
"""

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID, uuid4

import structlog
from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.dialects.postgresql import insert

from models.inbox import EventSource
from models.merchants import PaymentIntegration
from models.reconciliations import Reconciliation, ReconciliationStage, ReconciliationState
from providers.payments import PaymentProvider, ProviderRejected, ProviderUnavailable
from services.billing.inbox import MerchantEvents
from services.billing.reconciling.comparing import (
    Part,
    compare_events,
    compare_fees,
    compare_purchases,
    compare_subscriptions,
)
from services.billing.reconciling.merchants import compare_invoices
from services.billing.reconciling.pauses import pause_after
from services.billing.stored import store_event
from services.unit_of_work import PlatformScope, UnitOfWork, UnitOfWorkFactory

TASK = "reconciling.run"

# How long one page may take, and for how long a provider that is away is asked again.
_LEASE = timedelta(minutes=5)
_PATIENCE = timedelta(hours=12)
_LONGEST_PAUSE_S = 900.0
_NOTHING = Part(events=(), checked=0, cursor=None)
_OF_MERCHANTS = select(PaymentIntegration.provider).distinct()
_SCOPE = PlatformScope("a sweep compares what every tenant has bought")

logger = structlog.get_logger(__name__)


class Superseded(Exception):
    """Somebody else has taken the sweep up, or it is over."""


class Sweeps:
    """Carries sweeps out. What differs goes into the inbox, like anything that a provider tells."""

    def __init__(
        self,
        units: UnitOfWorkFactory,
        *,
        providers: Mapping[str, PaymentProvider],
        merchants: MerchantEvents | None,
        nightly_hour: int,
    ) -> None:
        self._units = units
        self._providers = providers
        self._merchants = merchants
        self._nightly_hour = nightly_hour

    async def begin(
        self, uow: UnitOfWork, provider: str, *, requested_by: UUID | None = None, is_nightly: bool = False
    ) -> UUID | None:
        """Record a sweep in the caller's transaction; None when one runs, or when the night's was begun before."""
        row_id: UUID | None = await uow.session.scalar(
            insert(Reconciliation)
            .values(
                id=uuid4(),
                provider=provider,
                state=ReconciliationState.RUNNING,
                stage=ReconciliationStage.EVENTS,
                requested_by=requested_by,
                nightly_on=uow.now.date() if is_nightly else None,
                started_at=uow.now,
                checked=0,
                found=0,
                changed=0,
                attempts=0,
                next_attempt_at=uow.now,
            )
            .on_conflict_do_nothing()
            .returning(Reconciliation.id)
        )
        if row_id is not None:
            uow.audit(
                "reconciliation.started",
                actor_id=requested_by,
                tenant_id=None,
                subject=("reconciliation", row_id),
                details={"provider": provider, "nightly": is_nightly},
            )
            uow.ring(TASK, row_id)
        return row_id

    async def providers(self, uow: UnitOfWork) -> set[str]:
        """Name those at which the platform or a merchant has an account; needs a PlatformScope."""
        return {*self._providers, *await uow.session.scalars(_OF_MERCHANTS)}

    async def sweep(self) -> None:
        """Begin the night's sweeps once their hour has come, and ring again for those that nobody carries out."""
        async with self._units(_SCOPE) as uow:
            if uow.now.hour >= self._nightly_hour:
                begun = select(Reconciliation.provider).where(Reconciliation.nightly_on == uow.now.date())
                names = await self.providers(uow)
                for name in sorted(names - set(await uow.session.scalars(begun))):
                    await self.begin(uow, name, is_nightly=True)
        async with self._units(_SCOPE) as uow:
            left = await uow.session.scalars(select(Reconciliation.id).where(self._is_waiting(uow)))
            for row_id in left:
                uow.ring(TASK, row_id)

    async def run(self, row_id: UUID) -> None:
        """Carry a sweep on to its end; harmless for one that is over or that somebody else carries out."""
        claimed = await self._claim(row_id)
        if claimed is None:
            return
        row, attempt = claimed
        try:
            while row.state is ReconciliationState.RUNNING:
                part = await self._compare(row)
                row = await self._keep(row_id, attempt, part)
        except Superseded:
            return
        except (ProviderUnavailable, ProviderRejected) as fault:
            await self._postpone(row_id, attempt, fault)

    async def _claim(self, row_id: UUID) -> tuple[Reconciliation, int] | None:
        async with self._units(_SCOPE) as uow:
            row = await uow.session.scalar(
                select(Reconciliation)
                .where(Reconciliation.id == row_id, self._is_waiting(uow))
                .with_for_update(skip_locked=True)
            )
            return None if row is None else (row, row.claim(now=uow.now, lease=_LEASE))

    def _is_waiting(self, uow: UnitOfWork) -> ColumnElement[bool]:
        """Select the sweeps that nobody carries out; one whose provider's keys were taken away waits for them."""
        return and_(
            Reconciliation.state == ReconciliationState.RUNNING,
            Reconciliation.next_attempt_at <= uow.now,
            or_(Reconciliation.provider.in_(self._providers), Reconciliation.provider.in_(_OF_MERCHANTS)),
        )

    async def _keep(self, row_id: UUID, attempt: int, part: Part) -> Reconciliation:
        async with self._units(_SCOPE) as uow:
            row = await _held(uow, row_id, attempt)
            found = [
                await store_event(
                    uow,
                    row.provider,
                    event,
                    integration_id=part.integration_id,
                    source=EventSource.SWEEP,
                    reconciliation_id=row_id,
                )
                for event in part.events
            ]
            row.advance(part.cursor, checked=part.checked, found=sum(found), now=uow.now)
            row.next_attempt_at = uow.now + _LEASE
            if row.state is ReconciliationState.DONE:
                _audit_end(uow, row)
            return row

    async def _postpone(self, row_id: UUID, attempt: int, fault: ProviderUnavailable | ProviderRejected) -> None:
        try:
            async with self._units(_SCOPE) as uow:
                row = await _held(uow, row_id, attempt)
                # What a provider refuses today it will refuse in an hour.
                patience = _PATIENCE if isinstance(fault, ProviderUnavailable) else timedelta(0)
                wait = pause_after(fault, attempt=attempt, cap_s=_LONGEST_PAUSE_S)
                row.postpone(fault.text, now=uow.now, wait=wait, patience=patience)
                if row.state is ReconciliationState.FAILED:
                    _audit_end(uow, row)
        except Superseded:
            return
        logger.warning("reconciliation postponed", provider=row.provider, stage=row.stage.value, state=row.state.value)

    async def _compare(self, row: Reconciliation) -> Part:
        if row.stage is ReconciliationStage.MERCHANTS:
            return await compare_invoices(self._units, self._merchants, row)
        provider = self._providers.get(row.provider)
        # Merchants alone may have accounts at it.
        if provider is None:
            return _NOTHING
        match row.stage:
            case ReconciliationStage.EVENTS if provider.capabilities.list_events:
                return await compare_events(provider, row)
            case ReconciliationStage.PURCHASES if provider.capabilities.fetch_payment:
                return await compare_purchases(self._units, provider, row)
            case ReconciliationStage.SUBSCRIPTIONS if provider.capabilities.fetch_subscription:
                return await compare_subscriptions(self._units, provider, row)
            case ReconciliationStage.FEES if provider.capabilities.recurring:
                return await compare_fees(self._units, provider, row)
            case _:
                return _NOTHING


def _audit_end(uow: UnitOfWork, row: Reconciliation) -> None:
    uow.audit(
        "reconciliation.finished" if row.state is ReconciliationState.DONE else "reconciliation.failed",
        actor_id=None,
        tenant_id=None,
        subject=("reconciliation", row.id),
        details={"provider": row.provider, "checked": row.checked, "found": row.found},
    )


async def _held(uow: UnitOfWork, row_id: UUID, attempt: int) -> Reconciliation:
    row: Reconciliation | None = await uow.session.scalar(
        select(Reconciliation)
        .where(
            Reconciliation.id == row_id,
            Reconciliation.state == ReconciliationState.RUNNING,
            Reconciliation.attempts == attempt,
        )
        .with_for_update()
    )
    if row is None:
        raise Superseded
    return row
