"""Attempts at what guards secrets, counted in the database while Redis is away.

Counted by each instance for itself, they would be as many times more as there are instances.
"""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, select, text

from core.tokens import token_hash
from core.windows import Window
from models.attempts import AttemptWindow
from services.unit_of_work import PlatformScope, UnitOfWork, UnitOfWorkFactory

_SCOPE = PlatformScope("attempts are counted before anybody is known")
# One statement, in which whoever is second waits for the first: of a crowd at once no more than are allowed pass.
_COUNT = text(
    """
    INSERT INTO attempt_windows AS known (key, moments, expires_at)
    VALUES (:key, ARRAY[CAST(:now AS timestamptz)], :expires_at)
    ON CONFLICT (key) DO UPDATE SET
        moments = ARRAY(SELECT moment FROM unnest(known.moments) AS moment WHERE moment > :since)
            || CAST(:now AS timestamptz),
        expires_at = excluded.expires_at
    WHERE (SELECT count(*) FROM unnest(known.moments) AS moment WHERE moment > :since) < :allowed
    RETURNING key
    """
)


class AttemptCounts:
    """Counts attempts over moving windows; opens units of work of its own."""

    def __init__(self, units: UnitOfWorkFactory) -> None:
        self._units = units

    async def hit(self, *windows: Window) -> int | None:
        """Count one attempt in all windows or in none; returns None when all allow it, else the seconds to wait.

        Whoever counts in the same windows names them in the same order, or two would wait for each other. Of several
        that refuse, the longest wait is told. Raises Unavailable while the database is away too.
        """
        async with self._units(_SCOPE) as uow:
            return await count_attempt(uow, *windows)

    async def clear(self, *keys: str) -> None:
        """Forget what was counted under these keys, as if nobody had tried. Raises Unavailable as `hit` does."""
        hashes = [token_hash(key) for key in keys]
        async with self._units(_SCOPE) as uow:
            await uow.session.execute(delete(AttemptWindow).where(AttemptWindow.key.in_(hashes)))

    async def prune(self) -> None:
        """Forget windows that are over."""
        async with self._units(_SCOPE) as uow:
            await uow.session.execute(delete(AttemptWindow).where(AttemptWindow.expires_at <= uow.now))


async def count_attempt(uow: UnitOfWork, *windows: Window) -> int | None:
    """Do as `AttemptCounts.hit` in the caller's transaction: what is undone with it has not counted.

    Whoever counts in the same windows waits until it is over. Needs a PlatformScope.
    """
    counted = await uow.session.begin_nested()
    for window in windows:
        if not await _count(uow, window):
            # What one window refuses is no attempt in the others.
            await counted.rollback()
            # Others may have been forgotten meanwhile.
            return await full_s(uow, *windows) or 1
    await counted.commit()
    return None


async def full_s(uow: UnitOfWork, *windows: Window) -> int | None:
    """Return how many seconds the next attempt would have to wait, None when not at all; counts nothing."""
    waits = [await _full_s(uow, window) for window in windows]
    return max((wait_s for wait_s in waits if wait_s is not None), default=None)


async def _count(uow: UnitOfWork, window: Window) -> bool:
    time = timedelta(seconds=window.within_s)
    values = {
        "key": token_hash(window.key),
        "now": uow.now,
        "since": uow.now - time,
        "expires_at": uow.now + time,
        "allowed": window.allowed,
    }
    return (await uow.session.execute(_COUNT, values)).one_or_none() is not None


async def _full_s(uow: UnitOfWork, window: Window) -> int | None:
    found = await uow.session.scalar(select(AttemptWindow.moments).where(AttemptWindow.key == token_hash(window.key)))
    time = timedelta(seconds=window.within_s)
    moments = [moment for moment in found or () if moment > uow.now - time]
    return _wait_s(moments, window.allowed, time, uow.now) if len(moments) >= window.allowed else None


def _wait_s(moments: Sequence[datetime], allowed: int, window: timedelta, now: datetime) -> int:
    """Return after how many seconds fewer than `allowed` moments are left in the window, at least 1."""
    blocking = sorted(moments)[-allowed:]
    return max(1, math.ceil((blocking[0] + window - now).total_seconds())) if blocking else 1
