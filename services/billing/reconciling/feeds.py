"""Reading what providers list of late, every five minutes: renewals, refunds and disputes that no webhook told of.

What is found bears the id that its webhook would have borne, so whichever comes first, it takes effect once.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from random import uniform
from uuid import UUID, uuid4

import structlog
from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert

from models.inbox import EventSource
from models.reconciliations import ProviderFeed
from providers.payments import PaymentProvider, ProviderRejected, ProviderUnavailable, VerifiedEvent
from services.billing.reconciling.pauses import pause_after
from services.billing.stored import store_event
from services.unit_of_work import PlatformScope, UnitOfWork, UnitOfWorkFactory

TASK = "reconciling.read"

# How often each list is read, in seconds: with all webhooks lost we must know everything within ten minutes.
_EVERY_S = (240.0, 330.0)
# How long one page may take; who takes longer is given up for dead.
_LEASE = timedelta(minutes=2)
# Webhooks that are on their way are given time to arrive, and lists time to show what they are late with.
_HEAD_START = timedelta(minutes=1)
_OVERLAP = timedelta(minutes=10)
_AT_FIRST = timedelta(days=1)
_SCOPE = PlatformScope("an event names its tenant only once it is read")

logger = structlog.get_logger(__name__)


class Feeds:
    """Reads the lists of those providers that have one; a provider that is away delays and loses nothing."""

    def __init__(self, units: UnitOfWorkFactory, *, providers: Mapping[str, PaymentProvider]) -> None:
        self._units = units
        self._providers = providers

    async def sweep(self) -> None:
        """Ring for the lists whose time to be read has come, each once among all schedulers."""
        listing = [name for name, provider in self._providers.items() if provider.capabilities.list_events]
        async with self._units(_SCOPE) as uow:
            known = set(await uow.session.scalars(select(ProviderFeed.provider)))
            for name in sorted(set(listing) - known):
                await _begin(uow, name)
            due = (
                select(ProviderFeed.id)
                .where(ProviderFeed.next_at <= uow.now, ProviderFeed.provider.in_(listing))
                .with_for_update(skip_locked=True)
            )
            claimed = await uow.session.scalars(
                update(ProviderFeed)
                .where(ProviderFeed.id.in_(due.scalar_subquery()))
                .values(next_at=uow.now + _LEASE)
                .returning(ProviderFeed.id)
            )
            for feed_id in claimed:
                uow.ring(TASK, feed_id)

    async def read(self, feed_id: UUID) -> None:
        """Read a list from where it was read to; each page is kept before the next is asked for."""
        async with self._units(_SCOPE) as uow:
            feed = await uow.session.get_one(ProviderFeed, feed_id)
            now = uow.now
        provider = self._providers.get(feed.provider)
        if provider is None:
            return
        until = now - _HEAD_START
        since = until - _AT_FIRST if feed.read_until is None else min(feed.read_until, until) - _OVERLAP
        cursor: str | None = None
        try:
            while True:
                page = await provider.list_events(since=since, until=until, cursor=cursor)
                cursor = page.next_cursor
                async with self._units(_SCOPE) as uow:
                    feed = await _held(uow, feed_id)
                    stored = [
                        await store_event(uow, feed.provider, event, source=EventSource.LISTING)
                        for event in in_order(page.events)
                    ]
                    feed.next_at = uow.now + _LEASE
                    if cursor is None:
                        wait_s = uniform(*_EVERY_S)  # noqa: S311 - jitter needs no secrecy
                        feed.note_read(until, next_at=uow.now + timedelta(seconds=wait_s))
                if found := sum(stored):
                    logger.info("events found", provider=feed.provider, count=found)
                if cursor is None:
                    return
        except (ProviderUnavailable, ProviderRejected) as fault:
            await self._postpone(feed_id, fault)

    async def _postpone(self, feed_id: UUID, fault: ProviderUnavailable | ProviderRejected) -> None:
        async with self._units(_SCOPE) as uow:
            feed = await _held(uow, feed_id)
            wait = pause_after(fault, attempt=feed.failures + 1, cap_s=_EVERY_S[0])
            feed.note_failure(fault.text, next_at=uow.now + wait)
        logger.warning("events not listed", provider=feed.provider, failures=feed.failures)


def in_order(events: Sequence[VerifiedEvent]) -> list[VerifiedEvent]:
    """Put a page into the order in which it happened, so that few have to wait for what they speak of."""
    # Lists show the newest first, also within one second.
    oldest_first = events[::-1]
    return sorted(oldest_first, key=lambda event: event.occurred_at)


async def _begin(uow: UnitOfWork, provider: str) -> None:
    # Another scheduler may be as fast.
    first_at = uow.now + timedelta(seconds=_EVERY_S[0])
    await uow.session.execute(
        insert(ProviderFeed)
        .values(id=uuid4(), provider=provider, next_at=first_at, failures=0)
        .on_conflict_do_nothing(index_elements=[ProviderFeed.provider])
    )


async def _held(uow: UnitOfWork, feed_id: UUID) -> ProviderFeed:
    rows = await uow.session.scalars(select(ProviderFeed).where(ProviderFeed.id == feed_id).with_for_update())
    return rows.one()
