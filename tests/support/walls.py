"""Units of work with one of the two walls between tenants taken down, so that the other is seen to stand alone."""

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, SessionTransaction

from models.isolation import enter
from services.unit_of_work import UnitOfWorkFactory, bind_transaction, guard_tenants
from tests.support.clock import MovableClock
from tests.support.spine import Ears


def walled(engine: AsyncEngine, *, first: bool, second: bool) -> UnitOfWorkFactory:
    """Return units of work behind the walls that are named.

    * `first`: sessions add the tenant's criterion to every statement, and refuse rows of others.
    * `second`: PostgreSQL is told whose rows there are, and not that all of them are.
    """
    sessions = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False, autoflush=False)
    if first:
        guard_tenants(sessions)
        guarded: type[Session] = sessions.kw["sync_session_class"]
    else:
        guarded = type("OpenSession", (Session,), {})
        sessions.configure(sync_session_class=guarded)
        event.listen(guarded, "after_begin", bind_transaction)
    if not second:
        # After what the unit of work says, and in its place.
        event.listen(guarded, "after_begin", _open)
    return UnitOfWorkFactory(sessions, clock=MovableClock(), bell=Ears(), ringer=Ears())


def _open(_: Session, transaction: SessionTransaction, connection: Connection) -> None:
    if not transaction.nested:
        enter(connection, None)
