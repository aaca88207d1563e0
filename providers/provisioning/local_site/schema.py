"""What is inside a site's database: its tables, by numbered migrations, and what it knows about itself."""

import json
from collections.abc import Mapping
from typing import Any, Final

from providers.provisioning.local_site.database import Connection
from providers.provisioning.local_site.site import Site
from providers.provisioning.local_site.speech import Refused, progress, say

_MIGRATIONS: Final = (
    (
        "site information and applications",
        """
        CREATE TABLE site_info (
            key text PRIMARY KEY,
            value jsonb NOT NULL,
            updated_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE TABLE installed_apps (
            name text PRIMARY KEY,
            version text NOT NULL,
            installed_at timestamptz NOT NULL DEFAULT now()
        );
        """,
    ),
    (
        "users",
        """
        CREATE TABLE site_users (
            id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            email text NOT NULL,
            role text NOT NULL DEFAULT 'user',
            enabled boolean NOT NULL DEFAULT true,
            created_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE UNIQUE INDEX site_users_email_key ON site_users (lower(email));
        """,
    ),
    (
        "documents",
        """
        CREATE TABLE documents (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            app text NOT NULL REFERENCES installed_apps (name),
            kind text NOT NULL,
            body jsonb NOT NULL DEFAULT '{}',
            owner_id uuid REFERENCES site_users (id) ON DELETE SET NULL,
            created_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE INDEX documents_kind_created_at ON documents (app, kind, created_at);
        """,
    ),
)
SCHEMA_VERSION: Final = len(_MIGRATIONS)

_APPS: Final = (("core", "1.0.0"), ("accounts", "1.0.0"), ("stock", "1.0.0"), ("crm", "1.0.0"))


async def migrate(connection: Connection) -> None:
    """Apply the missing migrations, each in a transaction of its own, and register the applications."""
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations ("
        "version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    applied = await schema_version(connection)
    if applied > SCHEMA_VERSION:
        raise Refused(f"the database is at schema {applied}, newer than {SCHEMA_VERSION} that is known here")
    for version, (name, statements) in enumerate(_MIGRATIONS, start=1):
        if version > applied:
            async with connection.transaction():
                await connection.execute(statements)
                await connection.execute("INSERT INTO schema_migrations (version, name) VALUES ($1, $2)", version, name)
            say(f"migration {version}: {name}")
        progress(version, SCHEMA_VERSION + 1)
    await connection.executemany(
        "INSERT INTO installed_apps (name, version) VALUES ($1, $2) "
        "ON CONFLICT (name) DO UPDATE SET version = excluded.version",
        _APPS,
    )
    progress(1, 1)


async def schema_version(connection: Connection) -> int:
    """Return the number of the last migration applied, 0 for none."""
    return int(await connection.fetchval("SELECT coalesce(max(version), 0) FROM schema_migrations"))


async def tell_site(connection: Connection, config: Mapping[str, Any]) -> None:
    """Write what the configuration says into the database, and see to the administrator's account."""
    facts = {key: config[key] for key in ("site_name", "site_url", "tenant_id", "plan", "limits")}
    async with connection.transaction():
        await connection.executemany(
            "INSERT INTO site_info (key, value) VALUES ($1, $2::jsonb) ON CONFLICT (key) DO UPDATE "
            "SET value = excluded.value, updated_at = now() "
            "WHERE site_info.value IS DISTINCT FROM excluded.value",
            [(key, json.dumps(value)) for key, value in facts.items()],
        )
        if config["admin_email"]:
            await connection.execute(
                "INSERT INTO site_users (email, role) VALUES ($1, 'admin') ON CONFLICT (lower(email)) DO NOTHING",
                config["admin_email"],
            )


async def verify(connection: Connection, site: Site) -> int:
    """Check, as the site itself, that the database is whole and the tenant's; return its schema version."""
    tenant = await connection.fetchval("SELECT value #>> '{}' FROM site_info WHERE key = 'tenant_id'")
    if tenant != str(site.tenant_id):
        raise Refused(f"the database of {site.name} belongs to another tenant")
    version = await schema_version(connection)
    if version != SCHEMA_VERSION:
        raise Refused(f"the database is at schema {version} instead of {SCHEMA_VERSION}")
    apps = await connection.fetch("SELECT name, version FROM installed_apps ORDER BY name")
    if missing := {name for name, _ in _APPS} - {app["name"] for app in apps}:
        raise Refused(f"not installed: {', '.join(sorted(missing))}")
    for app in apps:
        say(f"{app['name']} {app['version']}")
    return version
