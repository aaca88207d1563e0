"""Alembic's entry: runs migrations on the connection that `server.database` hands over.

Migrations run in one transaction each, under an advisory lock, so that instances starting together do not race.
"""

from alembic import context
from sqlalchemy import Connection, text

from models import Base
from models.isolation import PLATFORM, ROLE, SETTING

# An arbitrary constant of ours: the advisory lock that serialises migrating processes.
_LOCK = 7_221_653_001

# Whom no policy binds works as a role that they do bind (docs/adr/0016). Roles are the whole server's, so that another
# database's migration may have made it, or be making it at this moment; no migration ever drops it.
_ADMIT = text(f"""
DO $$ BEGIN
    IF (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user) THEN
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN
                CREATE ROLE {ROLE} NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
        IF NOT pg_has_role('{ROLE}', 'MEMBER') THEN
            EXECUTE format('GRANT {ROLE} TO %I', current_user);
        END IF;
        GRANT USAGE ON SCHEMA public TO {ROLE};
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {ROLE};
        GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {ROLE};
    END IF;
END $$
""")  # noqa: S608 - no part of it comes from outside


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
    # A migration changes every tenant's rows, and the owner of a table is bound by its policies too.
    connection.execute(text(f"SET {SETTING} = '{PLATFORM}'"))
    connection.commit()
    try:
        run(connection)
        connection.execute(_ADMIT)
        connection.commit()
    finally:
        connection.rollback()
        connection.execute(text(f"RESET {SETTING}"))
        connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
        connection.commit()


main()
