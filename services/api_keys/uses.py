"""When keys were last used: noted in memory, written beside the requests, at most once a minute for each key."""

import asyncio
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy import or_, select, update

from core.clock import Clock
from models.api_keys import ApiKey
from services.unit_of_work import PlatformScope, UnitOfWorkFactory

_EVERY = timedelta(minutes=1)
# Uses are gathered for this long between two writings, in seconds.
_PAUSE_S = 2.0
_SCOPE = PlatformScope("keys of every tenant are used")

logger = structlog.get_logger(__name__)


class Uses:
    """What one process has seen of keys and not written yet; `note` never waits."""

    def __init__(self, units: UnitOfWorkFactory, clock: Clock) -> None:
        self._units = units
        self._clock = clock
        self._noted: set[UUID] = set()
        self._written: dict[UUID, datetime] = {}
        self._wake = asyncio.Event()

    def note(self, key_id: UUID) -> None:
        """Remember that a key is used now."""
        written = self._written.get(key_id)
        if written is None or written + _EVERY <= self._clock.now():
            self._noted.add(key_id)
            self._wake.set()

    async def run(self) -> None:
        """Write, for as long as the process lives."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self.write()
            except Exception as error:  # noqa: BLE001
                # Whatever keeps it from being written must not end the writing; the next use notes it again.
                logger.warning("uses of keys not written", error=repr(error))
            await asyncio.sleep(_PAUSE_S)

    async def write(self) -> None:
        """Write what was noted; of several instances that use one key, the first in a minute does."""
        noted, self._noted = self._noted, set()
        async with self._units(_SCOPE) as uow:
            # Locked by others means that others are writing it, or ending it.
            due = (
                select(ApiKey.id)
                .where(
                    ApiKey.id.in_(noted),
                    or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at <= uow.now - _EVERY),
                )
                .with_for_update(skip_locked=True)
            )
            await uow.session.execute(
                update(ApiKey)
                .where(ApiKey.id.in_(due))
                .values(last_used_at=uow.now)
                .execution_options(synchronize_session=False)
            )
            now = uow.now
        recent = {key_id: at for key_id, at in self._written.items() if at + _EVERY > now}
        self._written = {**recent, **dict.fromkeys(noted, now)}
