"""Connections of the pool are fit for use, at no cost while they are in use.

SQLAlchemy's own `pool_pre_ping` asks before every use, with three messages there and back (a transaction around
nothing, for pgbouncer's sake), which is as much as a small unit of work needs itself. What has become of a connection
is known without asking: the driver hears at once that the database has closed it, crashed or was killed. Only who went
away without a word, as behind a firewall that forgot, has to be asked.
"""

import time
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_only

# Below what any firewall or load balancer on the way forgets.
_IDLE_S = 10.0
# The smallest statement there is.
_QUESTION = "SELECT"
_ANSWERS_S = 2.0
_SINCE = "idle_since"


def keep_fit(engine: AsyncEngine) -> None:
    """Have the engine's pool replace connections that have ended, and ask those that have been idle for 10 seconds."""
    event.listen(engine.sync_engine, "checkin", _mark)
    event.listen(engine.sync_engine, "checkout", _check)


def _mark(_connection: Any, record: Any) -> None:
    record.info[_SINCE] = time.monotonic()


def _check(_connection: Any, record: Any, _proxy: Any) -> None:
    driver = record.driver_connection
    if driver.is_closed():
        raise InvalidatePoolError
    since = record.info.get(_SINCE)
    if since is None or time.monotonic() - since < _IDLE_S:
        return
    try:
        await_only(driver.execute(_QUESTION, timeout=_ANSWERS_S))
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise InvalidatePoolError from error
