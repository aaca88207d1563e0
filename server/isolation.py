"""Connections that PostgreSQL's row-level security binds, whoever they sign in as (docs/adr/0016).

What a transaction may see goes with its BEGIN in one message, so that the wall costs no round trip.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from models.isolation import ROLE, SETTING

# Before the first migration there is no such role, and nothing to protect.
_UNBOUND = f"""
    SELECT (rolsuper OR rolbypassrls) AND EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}')
    FROM pg_roles WHERE rolname = current_user
"""  # noqa: S608 - no part of it comes from outside


class BoundConnection(asyncpg.Connection):
    """Begins every transaction as a role that cannot bypass the policies, with the scope it was told.

    A scope is good for one transaction. Without one, the transaction sees no tenant's rows.
    """

    next_scope: str | None = None
    # Whether whom we signed in as must step down first.
    unbound = True

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:  # noqa: ASYNC109 - the driver's own
        """Run a statement; the driver's own BEGIN takes the scope along."""
        if args or not query.startswith("BEGIN"):
            answer: str = await super().execute(query, *args, timeout=timeout)
            return answer
        scope, self.next_scope = self.next_scope, None
        try:
            begun: str = await super().execute(query + self._prelude(scope), timeout=timeout)
        except asyncpg.PostgresError:
            # The transaction has begun and failed; the pool believes that there is none.
            await super().execute("ROLLBACK")
            raise
        return begun

    def _prelude(self, scope: str | None) -> str:
        role = f"; SET LOCAL ROLE {ROLE}" if self.unbound else ""
        # A scope is a UUID or a word of ours, never anything from outside.
        return role if scope is None else f"{role}; SET LOCAL {SETTING} = '{scope}'"


async def connect(*args: Any, **options: Any) -> BoundConnection:
    """Open a connection, for SQLAlchemy's `async_creator_fn`."""
    connection: BoundConnection = await asyncpg.connect(*args, connection_class=BoundConnection, **options)
    connection.unbound = bool(await connection.fetchval(_UNBOUND))
    return connection


def forget_scopes(engine: AsyncEngine) -> None:
    """Have no scope outlive the unit of work that was to begin with it, if that ended before its first statement."""
    event.listen(engine.sync_engine, "checkin", _forget_scope)


def _forget_scope(_connection: Any, record: Any) -> None:
    if type(record.driver_connection) is BoundConnection:
        record.driver_connection.next_scope = None


@asynccontextmanager
async def as_owner(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Yield a connection that keeps the rights it signed in with, for migrations and for looking at the schema."""
    async with engine.connect() as connection:
        # Asked of the class itself, for the driver has every connection of its own pass for one of any subclass.
        driver: Any = (await connection.get_raw_connection()).driver_connection
        if type(driver) is not BoundConnection:
            yield connection
            return
        unbound, driver.unbound = driver.unbound, False
        try:
            yield connection
        finally:
            driver.unbound = unbound
