"""Row-level security, the second wall between tenants (docs/adr/0016): the policies, and how a transaction is scoped.

PostgreSQL hides every tenant's rows unless the transaction says whose it is about, one tenant's or everybody's. It says
so by the setting `app.scope`, which the connection sends along with BEGIN.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import DDL, Connection, Table, event

from models.base import Base, TenantOwned
from models.events import PLATFORM as PLATFORM_STREAM

# What the application works as when it signs in as somebody whom no policy binds: a superuser, or one with BYPASSRLS.
ROLE = "orchestrator_app"
SETTING = "app.scope"
PLATFORM = "platform"
POLICY = "tenant_isolation"

_SCOPE = f"current_setting('{SETTING}', true)"


def enter(connection: Connection, tenant_id: UUID | None) -> None:
    """Have the transaction that a connection is about to begin see one tenant's rows, or with None everybody's.

    To be called before its first statement. A transaction for which it is not called sees nobody's rows.
    """
    # A connection of `server.isolation`; one that was opened in another way is bound by what it signed in as.
    driver: Any = connection.connection.driver_connection
    if hasattr(driver, "next_scope"):
        driver.next_scope = PLATFORM if tenant_id is None else str(tenant_id)


def policies() -> dict[str, str]:
    """Return the condition of each table's policy, by the table's name."""
    mapped = {mapper.local_table: mapper.class_ for mapper in Base.registry.mappers}
    owned = {table.name for table, kind in mapped.items() if isinstance(table, Table) and issubclass(kind, TenantOwned)}
    conditions = dict.fromkeys((*owned, "audit_entries"), f"{_SCOPE} IN ('{PLATFORM}', tenant_id::text)")
    conditions["tenants"] = f"{_SCOPE} IN ('{PLATFORM}', id::text)"
    for name in ("events", "event_streams"):
        # The platform's own stream is no tenant's: whoever takes something from somebody writes to it.
        conditions[name] += f" OR ({_SCOPE} <> '' AND tenant_id = '{PLATFORM_STREAM}')"
    return conditions


def protect() -> None:
    """Give every tenant-owned table its policy when it is created; the migrations do the same by hand."""
    for name, condition in policies().items():
        table = Base.metadata.tables[name]
        for statement in (
            f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY",
            # Without this the owner of a table would not be bound by its policies.
            f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY",
            f"CREATE POLICY {POLICY} ON {name} USING ({condition})",
        ):
            event.listen(table, "after_create", DDL(statement))  # type: ignore[no-untyped-call]
