"""Outages: telling a database that cannot be reached now from a fault of ours."""

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

# SQLSTATEs in which not the query is at fault but the moment: the server is going down, starting up or out of
# connections, or the row is held by somebody who takes too long.
_AWAY_STATES = ("57P", "53", "08", "55P03", "40P01", "40001")


def is_outage(error: BaseException) -> bool:
    """Tell whether an exception means that the database is away, so that the same words may help later."""
    if isinstance(error, DBAPIError):
        state = str(getattr(error.orig, "sqlstate", "") or "")
        return (
            error.connection_invalidated
            or state.startswith(_AWAY_STATES)
            or (not state and isinstance(error, InterfaceError | OperationalError))
        )
    # The driver itself raises bare OSErrors when a name, a port or a socket leads nowhere.
    return isinstance(error, PoolTimeout | OSError)
