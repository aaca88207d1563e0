"""Reading what providers list of late, every five minutes: renewals, refunds and disputes that no webhook told of.

What is found bears the id that its webhook would have borne, so whichever comes first, it takes effect once.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import count
from random import uniform
from uuid import UUID, uuid4

import structlog
from sqlalchemy import or_, select, update
from sqlalchemy.dialects.postgresql import insert

from core.errors import DomainError, Unavailable
from models.inbox import EventSource
from models.merchants import PaymentIntegration
from models.reconciliations import ProviderFeed
from providers.payments import PaymentProvider, ProviderRejected, ProviderUnavailable, VerifiedEvent
from services.billing.inbox import MerchantEvents
from services.billing.reconciling.accounts import opened_account, sells
from services.billing.reconciling.pauses import pause_after
from services.billing.stored import store_event
from services.unit_of_work import PlatformScope, UnitOfWork, UnitOfWorkFactory

TASK = "reconciling.read"
MERCHANT_TASK = "reconciling.read_merchants"
"""A task of its own: merchants' servers may be slow on purpose, and must not hold up the platform's lists."""

# How often each list is read, in seconds: with all webhooks lost we must know everything within ten minutes.
_EVERY_S = (240.0, 330.0)
# How long one page may take; who takes longer is given up for dead.
_LEASE = timedelta(minutes=2)
# Webhooks that are on their way are given time to arrive, and lists time to show what they are late with.
_HEAD_START = timedelta(minutes=1)
_OVERLAP = timedelta(minutes=10)
_AT_FIRST = timedelta(days=1)
# A merchant's server could go on listing for ever; what lies beyond is found by the night's sweep.
_MERCHANTS_PAGES = 20
_SCOPE = PlatformScope("an event names its tenant only once it is read")

logger = structlog.get_logger(__name__)


class Feeds:
    """Reads the lists of those providers that have one; a provider that is away delays and loses nothing."""

    def __init__(
        self,
        units: UnitOfWorkFactory,
        *,
        providers: Mapping[str, PaymentProvider],
        merchants: MerchantEvents | None,
    ) -> None:
        self._units = units
        self._providers = providers
        self._merchants = merchants

    async def sweep(self) -> None:
        """Ring for the lists whose time to be read has come, each once among all schedulers."""
        listing = [name for name, provider in self._providers.items() if provider.capabilities.list_events]
        is_own = ProviderFeed.integration_id.is_(None) & ProviderFeed.provider.in_(listing)
        async with self._units(_SCOPE) as uow:
            await _begin_own(uow, listing)
            await _begin_merchants(uow)
            due = (
                select(ProviderFeed.id)
                .where(ProviderFeed.next_at <= uow.now, or_(is_own, sells(ProviderFeed.integration_id, uow.now)))
                .with_for_update(skip_locked=True)
            )
            claimed = await uow.session.execute(
                update(ProviderFeed)
                .where(ProviderFeed.id.in_(due.scalar_subquery()))
                .values(next_at=uow.now + _LEASE)
                .returning(ProviderFeed.id, ProviderFeed.integration_id)
            )
            for feed_id, integration_id in claimed:
                uow.ring(TASK if integration_id is None else MERCHANT_TASK, feed_id)

    async def read(self, feed_id: UUID) -> None:
        """Read a list from where it was read to; each page is kept before the next is asked for."""
        async with self._units(_SCOPE) as uow:
            feed = await uow.session.get(ProviderFeed, feed_id)
            now = uow.now
        # With its account a merchant's list may be gone.
        if feed is None or (feed.integration_id is None and feed.provider not in self._providers):
            return
        until = now - _HEAD_START
        since = until - _AT_FIRST if feed.read_until is None else min(feed.read_until, until) - _OVERLAP
        cursor: str | None = None
        try:
            provider = await self._provider(feed)
            for number in count(1):
                page = await provider.list_events(since=since, until=until, cursor=cursor)
                is_enough = feed.integration_id is not None and number == _MERCHANTS_PAGES
                cursor = None if is_enough else page.next_cursor
                async with self._units(_SCOPE) as uow:
                    feed = await _held(uow, feed_id)
                    if feed is None:
                        return
                    stored = [
                        await store_event(
                            uow,
                            feed.provider,
                            event,
                            integration_id=feed.integration_id,
                            source=EventSource.LISTING,
                        )
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
        except (ProviderUnavailable, ProviderRejected, Unavailable) as fault:
            await self._postpone(feed_id, fault)

    async def _provider(self, feed: ProviderFeed) -> PaymentProvider:
        if feed.integration_id is None:
            return self._providers[feed.provider]
        return await opened_account(self._units, self._merchants, feed.integration_id)

    async def _postpone(self, feed_id: UUID, fault: DomainError) -> None:
        async with self._units(_SCOPE) as uow:
            feed = await _held(uow, feed_id)
            if feed is None:
                return
            wait = pause_after(fault, attempt=feed.failures + 1, cap_s=_EVERY_S[0])
            feed.note_failure(fault.text, next_at=uow.now + wait)
        logger.warning("events not listed", provider=feed.provider, failures=feed.failures)


def in_order(events: Sequence[VerifiedEvent]) -> list[VerifiedEvent]:
    """Put a page into the order in which it happened, so that few have to wait for what they speak of."""
    # Lists show the newest first, also within one second.
    oldest_first = events[::-1]
    return sorted(oldest_first, key=lambda event: event.occurred_at)


async def _begin_own(uow: UnitOfWork, listing: Iterable[str]) -> None:
    known = set(await uow.session.scalars(select(ProviderFeed.provider).where(ProviderFeed.integration_id.is_(None))))
    for name in sorted(set(listing) - known):
        await _begin(uow, name)


async def _begin_merchants(uow: UnitOfWork) -> None:
    known = select(ProviderFeed.integration_id).where(ProviderFeed.integration_id == PaymentIntegration.id)
    new = await uow.session.execute(
        select(PaymentIntegration.provider, PaymentIntegration.id).where(
            sells(PaymentIntegration.id, uow.now), ~known.exists()
        )
    )
    for provider, integration_id in new.all():
        await _begin(uow, provider, integration_id)


async def _begin(uow: UnitOfWork, provider: str, integration_id: UUID | None = None) -> None:
    # Another scheduler may be as fast.
    first_at = uow.now + timedelta(seconds=_EVERY_S[0])
    await uow.session.execute(
        insert(ProviderFeed)
        .values(id=uuid4(), provider=provider, integration_id=integration_id, next_at=first_at, failures=0)
        .on_conflict_do_nothing()
    )


async def _held(uow: UnitOfWork, feed_id: UUID) -> ProviderFeed | None:
    """Hold a list; None for one that was removed with its account meanwhile."""
    feed: ProviderFeed | None = await uow.session.scalar(
        select(ProviderFeed).where(ProviderFeed.id == feed_id).with_for_update()
    )
    return feed
