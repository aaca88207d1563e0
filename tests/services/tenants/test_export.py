"""The export: everything of the tenant, nothing of another, and no secrets."""

import re
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Table, select

from core import json
from models.audit import AuditEntry
from models.entitlements import Limit
from models.tenants import Role
from services.auth.views import SessionView
from services.identity import RoleRequired
from services.step_up import RECENT, StepUpRequired
from services.tenants import export
from services.tenants.errors import NoTenantAccess
from services.tenants.export import REDACTED, SECRETS, exported_mappers
from services.unit_of_work import RequestTrace
from tests.support.identity import Identity, tenant_of


async def exported(identity: Identity, who: SessionView, tenant_id: UUID) -> dict[str, Any]:
    actor = await identity.actor(who)
    pieces = await identity.tenants.export.begin(actor, tenant_id=tenant_id, trace=RequestTrace())
    document: dict[str, Any] = json.loads(b"".join([piece async for piece in pieces]))
    return document


async def test_everything_of_the_tenant_and_nothing_else(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_PAGE", 2)
    owner, other = await identity.sign_up(), await identity.sign_up()
    tenant_id = tenant_of(owner)
    await identity.allow(owner, Limit.USERS, 7)
    for _ in range(5):
        await identity.invite(owner, f"{uuid4().hex}@example.org")
    await identity.invite(owner, other.user.email)

    document = await exported(identity, owner, tenant_id)

    assert document["tenant"]["id"] == str(tenant_id)
    tables = document["tables"]
    assert sorted(tables) == [mapper.local_table.name for mapper in exported_mappers()]  # type: ignore[attr-defined]
    assert {row["tenant_id"] for rows in tables.values() for row in rows} == {str(tenant_id)}
    assert {row["email"] for row in tables["user_tenants"]} == {owner.user.email, other.user.email}
    assert len({row["id"] for row in tables["invitations"]}) == 5
    assert {row["token_hash"] for row in tables["invitations"]} == {REDACTED}
    numbers = [row["seq"] for row in tables["events"]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert {"subscriptions", "provisioning_jobs", "audit_entries"} <= {name for name, rows in tables.items() if rows}
    entry = await identity.one(
        select(AuditEntry).where(AuditEntry.tenant_id == tenant_id, AuditEntry.action == "tenant.exported")
    )
    assert entry.actor_id == owner.user.id


async def test_only_an_owner_who_has_just_proved_it_takes_it(identity: Identity) -> None:
    owner, admin, stranger = await identity.sign_up(), await identity.sign_up(), await identity.sign_up()
    await identity.invite(owner, admin.user.email, Role.ADMIN)

    with pytest.raises(RoleRequired):
        await exported(identity, admin, tenant_of(owner))
    with pytest.raises(NoTenantAccess):
        await exported(identity, stranger, tenant_of(owner))
    identity.clock.offset += RECENT + timedelta(seconds=1)
    with pytest.raises(StepUpRequired):
        await exported(identity, owner, tenant_of(owner))


@pytest.mark.embedded
def test_what_sounds_like_a_secret_is_redacted() -> None:
    columns = {
        f"{table.name}.{column.name}"
        for table in (mapper.local_table for mapper in exported_mappers())
        if isinstance(table, Table)
        for column in table.columns
    }
    suspicious = {name for name in columns if re.search(r"\..*(hash|secret|token|passw|digest|sealed|cipher)", name)}
    assert suspicious <= SECRETS <= columns
