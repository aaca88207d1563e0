"""Attempts at what guards secrets, counted in the database while Redis is away.

Counted by each instance for itself, they would be as many times more as there are instances.
"""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, select, text

from core.tokens import token_hash
from models.attempts import AttemptWindow
from services.unit_of_work import PlatformScope, UnitOfWorkFactory

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

    async def hit(self, key: str, *, allowed: int, within_s: int) -> int | None:
        """Count one attempt; returns None when it is one of those `allowed` within the time, else the seconds to wait.

        Raises Unavailable while the database is away too.
        """
        window, digest = timedelta(seconds=within_s), token_hash(key)
        async with self._units(_SCOPE) as uow:
            values = {
                "key": digest,
                "now": uow.now,
                "since": uow.now - window,
                "expires_at": uow.now + window,
                "allowed": allowed,
            }
            if (await uow.session.execute(_COUNT, values)).one_or_none() is not None:
                return None
            moments = await uow.session.scalar(select(AttemptWindow.moments).where(AttemptWindow.key == digest))
            return _wait_s(moments or (), allowed, window, uow.now)

    async def prune(self) -> None:
        """Forget windows that are over."""
        async with self._units(_SCOPE) as uow:
            await uow.session.execute(delete(AttemptWindow).where(AttemptWindow.expires_at <= uow.now))


def _wait_s(moments: Sequence[datetime], allowed: int, window: timedelta, now: datetime) -> int:
    """Return after how many seconds fewer than `allowed` moments are left in the window, at least 1."""
    blocking = sorted(moments)[-allowed:]
    return max(1, math.ceil((blocking[0] + window - now).total_seconds())) if blocking else 1
