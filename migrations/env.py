"""Alembic's entry: runs migrations on the connection that `server.database` hands over.

Migrations run in one transaction each, under an advisory lock, so that instances starting together do not race.
"""

from alembic import context
from sqlalchemy import Connection, text

from models import Base

# An arbitrary constant of ours: the advisory lock that serialises migrating processes.
_LOCK = 7_221_653_001


def run(connection: Connection) -> None:
    """Bring the schema of `connection` to the wanted revision."""
    context.configure(
        connection=connection, target_metadata=Base.metadata, compare_type=True, transaction_per_migration=True
    )
    with context.begin_transaction():
        context.run_migrations()


def main() -> None:
    connection: Connection | None = context.config.attributes.get("connection")
    if connection is None:
        raise SystemExit("run migrations by `orchestrator migrate`, which knows the database")
    # However long another process takes to migrate, this one waits; the migrations themselves set their own patience.
    connection.execute(text("SET LOCAL lock_timeout = 0"))
    connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
    connection.commit()
    try:
        run(connection)
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
        connection.commit()


main()
