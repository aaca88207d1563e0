"""Everything that is stored of a tenant, as one JSON document that is written while it is read.

Tables are found by their mark (`models.base.TenantOwned`), so that one that is added later is exported too. Nothing is
held while the reader is slow: rows are read page by page, each in a unit of work of its own and within the tenant's
scope. What changes meanwhile may be found as it was or as it is.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Table, literal, select, tuple_
from sqlalchemy.orm import Mapper

from core import json
from models.audit import AuditEntry
from models.base import Base, TenantOwned
from models.tenants import Membership, Tenant
from models.users import User
from services.identity import Principal
from services.permissions import Permission
from services.step_up import require_recent_authentication
from services.tenants.members import membership_of
from services.unit_of_work import RequestTrace, TenantScope, UnitOfWorkFactory

FORMAT = "erpmax-tenant-export/1"
REDACTED = "[redacted]"
# What opens doors or was never shown to anybody: hashes of tokens, and what the steps of a recipe told each other.
SECRETS = frozenset(
    (
        "api_keys.secret_hash",
        "invitations.token_hash",
        "sso_tokens.token_hash",
        "provisioning_steps.outputs",
        "tenants_payment_integrations.sealed",
    )
)
_PAGE = 500

Row = Mapping[str, Any]


class Export:
    """The use case of taking one's data along."""

    def __init__(self, units: UnitOfWorkFactory) -> None:
        self._units = units

    async def begin(self, actor: Principal, *, tenant_id: UUID, trace: RequestTrace) -> AsyncIterator[bytes]:
        """Return the document in pieces; for owners who have just proved who they are.

        Raises NoTenantAccess, RoleRequired and StepUpRequired before anything is returned.
        """
        async with self._units(TenantScope(tenant_id), trace=trace) as uow:
            membership = await membership_of(uow, actor, tenant_id, Permission.TENANT_EXPORT)
            await require_recent_authentication(uow, actor)
            uow.audit("tenant.exported", actor_id=actor.user_id, tenant_id=tenant_id, subject=("tenant", tenant_id))
            head = {"format": FORMAT, "exported_at": uow.now, "tenant": _columns(membership.tenant)}
        return self._document(tenant_id, head)

    async def _document(self, tenant_id: UUID, head: Row) -> AsyncIterator[bytes]:
        yield json.dumps(head)[:-1] + b',"tables":{'
        for number, (name, statement, key) in enumerate(_tables(tenant_id)):
            yield (b"," if number else b"") + json.dumps(name) + b":["
            is_first = True
            async for rows in self._pages(tenant_id, statement, key):
                yield (b"" if is_first else b",") + b",".join(json.dumps(_shown(name, row)) for row in rows)
                is_first = False
            yield b"]"
        yield b"}}"

    async def _pages(
        self, tenant_id: UUID, statement: Select[Any], key: tuple[ColumnElement[Any], ...]
    ) -> AsyncIterator[Sequence[Row]]:
        """Read a table in the order of its key, from where the page before ended."""
        page = statement.order_by(*key).limit(_PAGE)
        while True:
            async with self._units(TenantScope(tenant_id)) as uow:
                rows = [dict(row) for row in (await uow.session.execute(page)).mappings()]
            if rows:
                yield rows
            if len(rows) < _PAGE:
                return
            last = [literal(rows[-1][column.key], column.type) for column in key]
            page = statement.where(tuple_(*key) > tuple_(*last)).order_by(*key).limit(_PAGE)


def exported_mappers() -> list[Mapper[Any]]:
    """Return what is exported besides the tenant's own row, in the order of the tables' names."""
    owned = [item for item in Base.registry.mappers if issubclass(item.class_, TenantOwned | AuditEntry)]
    return sorted(owned, key=lambda item: _table(item).name)


def _tables(tenant_id: UUID) -> Iterator[tuple[str, Select[Any], tuple[ColumnElement[Any], ...]]]:
    for mapper in exported_mappers():
        table = _table(mapper)
        statement = select(*table.columns).where(table.c.tenant_id == tenant_id)
        if mapper.class_ is Membership:
            # A place says little without whose it is.
            statement = statement.add_columns(User.email, User.full_name).join(User, User.id == table.c.user_id)
        yield table.name, statement, tuple(table.primary_key.columns)


def _table(mapper: Mapper[Any]) -> Table:
    table = mapper.local_table
    if not isinstance(table, Table):
        raise TypeError(f"{mapper} is mapped to no table")
    return table


def _columns(tenant: Tenant) -> Row:
    return {column.key: getattr(tenant, column.key) for column in Tenant.__table__.columns}


def _shown(table: str, row: Row) -> Row:
    shown = {name: REDACTED if f"{table}.{name}" in SECRETS else value for name, value in row.items()}
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in shown.items()}
