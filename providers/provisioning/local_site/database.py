"""The database and the role of a site, made and dropped with the administrator's rights."""

import base64
import hashlib
import hmac
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import quote, urlsplit
from uuid import UUID

import asyncpg

from providers.provisioning.local_site.site import Site
from providers.provisioning.local_site.speech import Refused

# In quotes, because the class takes a parameter only in the eyes of a type checker.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_CONNECT_TIMEOUT_S: Final = 15.0
_CONNECTIONS_PER_SITE: Final = 20
_SCRAM_ITERATIONS: Final = 4096


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL server, by the address with which its administrator connects."""

    dsn: str

    @classmethod
    def at(cls, address: str) -> "Server":
        """Accept an address also in the form SQLAlchemy uses. Raises Refused when it is not PostgreSQL's."""
        scheme, _, rest = address.partition("://")
        if scheme.partition("+")[0] not in {"postgresql", "postgres"}:
            raise Refused("PROVISIONING_DATABASE_URL is not the address of a PostgreSQL server")
        return cls(f"postgresql://{rest}")

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[Connection]:
        """Connect as the administrator."""
        connection = await asyncpg.connect(self.dsn, timeout=_CONNECT_TIMEOUT_S)
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def site(self, site: Site) -> AsyncIterator[Connection]:
        """Connect to the site's database with the site's own credentials."""
        connection = await asyncpg.connect(
            self.dsn,
            user=site.database,
            password=site.password(),
            database=site.database,
            timeout=_CONNECT_TIMEOUT_S,
        )
        try:
            yield connection
        finally:
            await connection.close()

    def site_address(self, site: Site, database: str) -> str:
        """Return the address for libpq's tools to connect as the site's role; the password is given apart."""
        parts = urlsplit(self.dsn)
        place = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=f"{quote(site.database)}@{place}", path=f"/{database}").geturl()


async def create_role(admin: Connection, name: str, password: str, *, owner: UUID) -> None:
    """Create a role that can log in and nothing more, or give the one that exists this password.

    `owner` is the tenant, noted on the role. Raises Refused when the role was made for another one.
    """
    await check_role_owner(admin, name, owner)
    verb = "ALTER" if await role_exists(admin, name) else "CREATE"
    async with admin.transaction():
        # The server is given the verifier, never the password, so no statement log can hold it.
        await admin.execute(
            f'{verb} ROLE "{name}" LOGIN NOCREATEDB NOCREATEROLE INHERIT '
            f"CONNECTION LIMIT {_CONNECTIONS_PER_SITE} PASSWORD '{scram_verifier(password)}'"
        )
        await admin.execute(f"COMMENT ON ROLE \"{name}\" IS '{_role_note(owner)}'")
    superuser = await admin.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
    if not superuser:
        # Only a member may give a database to a role.
        await admin.execute(f'GRANT "{name}" TO CURRENT_USER')


async def check_role_owner(admin: Connection, name: str, owner: UUID) -> None:
    """Raises Refused when there is such a role and it was made for another tenant.

    Two installations can share a server, or a data folder can be lost: the folder alone does not tell whose
    site the database belongs to.
    """
    note = await admin.fetchval("SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = $1", name)
    if note is not None and note != _role_note(owner):
        raise Refused(f"the database role {name} belongs to another tenant")


def _role_note(owner: UUID) -> str:
    return f"site of tenant {owner}"


async def create_database(admin: Connection, name: str, *, owner: str) -> bool:
    """Create a database that only its owner can enter; tell whether it was missing."""
    created = not await database_exists(admin, name)
    if created:
        # The bare template: what an operator added to the other one does not belong into a site.
        await admin.execute(f'CREATE DATABASE "{name}" OWNER "{owner}" TEMPLATE template0 ENCODING \'UTF8\'')
    await admin.execute(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')
    return created


async def drop_database(admin: Connection, name: str) -> bool:
    """Drop a database, ending the sessions in it; tell whether there was one."""
    existed = await database_exists(admin, name)
    await admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    return existed


async def drop_role(admin: Connection, name: str) -> None:
    await admin.execute(f'DROP ROLE IF EXISTS "{name}"')


async def rename_databases(admin: Connection, *renames: tuple[str, str]) -> None:
    """Rename databases in one transaction, ending the sessions that are in the way."""
    names = [old for old, _ in renames]
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = ANY($1::text[]) AND pid <> pg_backend_pid()",
        names,
    )
    async with admin.transaction():
        for old, new in renames:
            await admin.execute(f'ALTER DATABASE "{old}" RENAME TO "{new}"')


async def database_exists(admin: Connection, name: str) -> bool:
    return bool(await admin.fetchval("SELECT true FROM pg_database WHERE datname = $1", name))


async def role_exists(admin: Connection, name: str) -> bool:
    return bool(await admin.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", name))


async def database_note(admin: Connection, name: str) -> str | None:
    """Return the comment on a database."""
    note = await admin.fetchval(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $1", name
    )
    return None if note is None else str(note)


async def server_major(admin: Connection) -> int:
    """Return the major version of the server."""
    return int(await admin.fetchval("SELECT current_setting('server_version_num')::int / 10000"))


def scram_verifier(password: str) -> str:
    """Return what PostgreSQL stores for a password (RFC 5803, RFC 7677); `password` must be ASCII."""
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, _SCRAM_ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(value).decode() for value in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${_SCRAM_ITERATIONS}:{encoded[0]}${encoded[1]}:{encoded[2]}"
