"""The content of providers' events holds people's names and addresses: it is kept no longer than anybody needs it.

Most events name a tenant, if at all, by what their provider calls its customer, and some come when the tenant is gone.
So age decides, for all of them, and not the tenant's end.
"""

from datetime import timedelta

from sqlalchemy import select, update

from models.inbox import InboxState, ProviderEvent
from services.unit_of_work import PlatformScope, UnitOfWorkFactory

_BATCH = 2_000
_SCOPE = PlatformScope("the content of old events is removed, whosever they are")


class Forgetting:
    """Removes the content of settled events that are older than `keep`.

    The row stays, with the event's id, type and state: an event that is delivered again is still a known one.
    """

    def __init__(self, units: UnitOfWorkFactory, *, keep: timedelta) -> None:
        self._units = units
        self._keep = keep

    async def prune(self) -> int:
        """Empty what is old enough, in several transactions; returns how many events that were."""
        total = 0
        while emptied := await self._empty_some():
            total += emptied
        return total

    async def _empty_some(self) -> int:
        async with self._units(_SCOPE) as uow:
            old = (
                select(ProviderEvent.id)
                .where(
                    # In this order, so that the content of young events is not even read.
                    ProviderEvent.received_at < uow.now - self._keep,
                    ProviderEvent.state != InboxState.RECEIVED,
                    ProviderEvent.payload != {},
                )
                .limit(_BATCH)
                .with_for_update(skip_locked=True)
            )
            found = await uow.session.scalars(
                update(ProviderEvent)
                .where(ProviderEvent.id.in_(old.scalar_subquery()))
                .values(payload={})
                .returning(ProviderEvent.id)
                .execution_options(synchronize_session=False)
            )
            return len(found.all())
