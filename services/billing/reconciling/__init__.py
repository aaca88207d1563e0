"""Reconciliation: what providers hold is what we hold, also when their webhooks are lost (issue 5, part 9).

Three ways lead into the inbox beside webhooks: polls of purchases (polls.py), lists of what happened of late
(feeds.py), and sweeps of everything (sweeps.py). From there on it is the webhooks' own road, so a fact takes effect
once, whoever tells it first.
"""

from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import func, select

from core.pagination import Page, PageRequest
from models.reconciliations import Reconciliation
from providers.payments import PaymentProvider
from services.billing.errors import NothingToReconcile, ReconciliationNotFound, ReconciliationRunning
from services.billing.inbox import MerchantEvents
from services.billing.reconciling.feeds import Feeds
from services.billing.reconciling.polls import Polls
from services.billing.reconciling.sweeps import Sweeps
from services.billing.reconciling.views import ReconciliationView
from services.identity import Principal, require_superuser
from services.unit_of_work import UnitOfWork, UnitOfWorkFactory

__all__ = ["ReconciliationView", "Reconciling"]


class Reconciling:
    """The use cases of reconciliation.

    Args:
        providers, aliases, merchants: as for `BillingService`.
        nightly_hour: from which hour of the day (UTC) on each provider is swept.
    """

    def __init__(
        self,
        units: UnitOfWorkFactory,
        *,
        providers: Mapping[str, PaymentProvider],
        aliases: Mapping[str, str],
        merchants: MerchantEvents | None,
        nightly_hour: int,
    ) -> None:
        self._aliases = aliases
        self._polls = Polls(units, providers=providers)
        self._feeds = Feeds(units, providers=providers, merchants=merchants)
        self._sweeps = Sweeps(units, providers=providers, merchants=merchants, nightly_hour=nightly_hour)

    async def sweep(self) -> None:
        """Ring for everything whose time to be asked about has come. For the scheduler; asks nobody itself."""
        await self._polls.sweep()
        await self._feeds.sweep()
        await self._sweeps.sweep()

    async def poll(self, checkout_id: UUID) -> None:
        """Ask about one purchase; see `Polls.poll`. For the worker."""
        await self._polls.poll(checkout_id)

    async def read(self, feed_id: UUID) -> None:
        """Read a provider's list of what happened; see `Feeds.read`. For the worker."""
        await self._feeds.read(feed_id)

    async def read_merchants(self, feed_id: UUID) -> None:
        """Read the list of a merchant's account likewise. For the worker."""
        await self._feeds.read(feed_id)

    async def run(self, row_id: UUID) -> None:
        """Carry a sweep out; see `Sweeps.run`. For the worker."""
        await self._sweeps.run(row_id)

    async def request(self, uow: UnitOfWork, actor: Principal, *, provider: str) -> ReconciliationView:
        """Begin a sweep of a provider; for superusers. Needs a PlatformScope.

        Raises NothingToReconcile and ReconciliationRunning.
        """
        require_superuser(actor)
        return await self.begin(uow, provider, requested_by=actor.user_id)

    async def begin(self, uow: UnitOfWork, provider: str, *, requested_by: UUID | None = None) -> ReconciliationView:
        """Begin a sweep for whoever runs the server; raises what `request` does. Needs a PlatformScope."""
        name = provider.strip().lower()
        name = self._aliases.get(name, name)
        known = await self._sweeps.providers(uow)
        if name not in known:
            raise NothingToReconcile(sorted(known))
        row_id = await self._sweeps.begin(uow, name, requested_by=requested_by)
        if row_id is None:
            raise ReconciliationRunning
        return await self.view(uow, row_id)

    async def view(self, uow: UnitOfWork, row_id: UUID) -> ReconciliationView:
        """Show a sweep; the caller has checked who asks. Raises ReconciliationNotFound."""
        row = await uow.session.get(Reconciliation, row_id)
        if row is None:
            raise ReconciliationNotFound
        return ReconciliationView.of(row)

    async def show(self, uow: UnitOfWork, actor: Principal, *, row_id: UUID) -> ReconciliationView:
        """Show superusers a sweep; raises ReconciliationNotFound. Needs a PlatformScope."""
        require_superuser(actor)
        return await self.view(uow, row_id)

    async def list(self, uow: UnitOfWork, actor: Principal, page: PageRequest) -> Page[ReconciliationView]:
        """Show superusers the sweeps, newest first; needs a PlatformScope."""
        require_superuser(actor)
        total = await uow.session.scalar(select(func.count()).select_from(Reconciliation))
        rows = await uow.session.scalars(
            select(Reconciliation)
            .order_by(Reconciliation.started_at.desc(), Reconciliation.id)
            .offset(page.offset)
            .limit(page.size)
        )
        return Page(items=[ReconciliationView.of(row) for row in rows], total=total or 0, request=page)
