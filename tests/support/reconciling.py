"""A till whose scheduler and worker look after it while time passes, and that no webhook reaches."""

import asyncio
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import delete, func, select, text

from models.inbox import EventSource, ProviderEvent
from models.reconciliations import ProviderFeed, Reconciliation
from services.billing.reconciling import ReconciliationView
from services.merchants import MerchantService
from tests.support.billing import PLATFORM, Till

NEVER = 24
"""An hour that does not come, so that the night's sweeps find nothing before others do."""


@dataclass(slots=True)
class Watch:
    """Lets time pass. `tasks` counts what of the bell was carried out."""

    till: Till
    tasks: int = 0
    merchants: MerchantService | None = None

    async def pass_minutes(self, minutes: int) -> None:
        """Let time pass, with the scheduler looking every minute and the worker doing what it rings for."""
        for _ in range(minutes):
            self.till.travel(minutes=1)
            await self.look()

    async def look(self) -> None:
        """Let the scheduler look once, and the worker work until nothing is left to do."""
        await self.till.billing.reconciling.sweep()
        await self.till.billing._inbox.sweep()
        if self.merchants is not None:
            await self.merchants.sweep()
        await self.work()

    async def work(self) -> None:
        billing = self.till.billing
        does = {
            "billing.apply": billing.apply,
            "reconciling.poll": billing.reconciling.poll,
            "reconciling.read": billing.reconciling.read,
            "reconciling.run": billing.reconciling.run,
            "reconciling.read_merchants": billing.reconciling.read_merchants,
            "billing.apply_merchants": billing.apply_merchants,
        }
        if self.merchants is not None:
            does["merchants.look"] = self.merchants.look
        while self.tasks < len(self.till.ears.tasks):
            task = self.till.ears.tasks[self.tasks]
            self.tasks += 1
            if task.name in does:
                await does[task.name](task.row_id)

    def rung(self, name: str) -> list[UUID]:
        """Return what was rung for under a name since the worker last worked."""
        return [task.row_id for task in self.till.ears.tasks[self.tasks :] if task.name == name]

    async def feed(self, provider: str) -> ProviderFeed:
        async with self.till.units(PLATFORM) as uow:
            return (await uow.session.scalars(select(ProviderFeed).where(ProviderFeed.provider == provider))).one()

    async def found(self, provider: str) -> int:
        """Count the events of a provider that nobody told us."""
        async with self.till.units(PLATFORM) as uow:
            counted = await uow.session.scalar(
                select(func.count())
                .select_from(ProviderEvent)
                .where(ProviderEvent.provider == provider, ProviderEvent.source != EventSource.WEBHOOK)
            )
            return counted or 0

    async def swept(self, provider: str) -> ReconciliationView:
        """Sweep a provider to the end, and apply what was found."""
        reconciling = self.till.billing.reconciling
        async with self.till.units(PLATFORM) as uow:
            begun = await reconciling.begin(uow, provider)
        await self.work()
        async with self.till.units(PLATFORM) as uow:
            return await reconciling.view(uow, begun.id)


async def open_watch(till: Till, merchants: MerchantService | None = None) -> Watch:
    """Begin to watch, free of what tests at other times have left in this database; before merchants are founded."""
    async with till.units(PLATFORM) as uow:
        await uow.session.execute(delete(ProviderFeed))
        await uow.session.execute(delete(Reconciliation))
        await uow.session.execute(text("UPDATE checkout_sessions SET next_poll_at = NULL"))
        await uow.session.execute(text("UPDATE order_invoices SET integration_id = NULL, look_at = NULL"))
        # What others wait for is not to be waited for here.
        await uow.session.execute(text("UPDATE provider_events SET state = 'dead' WHERE state = 'received'"))
    till.billing.reconciling._sweeps._nightly_hour = NEVER
    watch = Watch(till, tasks=len(till.ears.tasks), merchants=merchants)
    await watch.look()
    return watch


async def both(*works: object) -> None:
    """Do things at the same time."""
    await asyncio.gather(*works)  # type: ignore[call-overload]
