"""Exceptions from plans, which operators make for single tenants."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from core.errors import InvalidInput
from models.billing import Subscription
from models.entitlements import canonical_name, is_limit
from models.overrides import EntitlementOverride
from models.tenants import Tenant
from services.billing.announcer import Announcer
from services.billing.lookup import locked_subscription
from services.entitlements.catalogue import FLAGS, LIMITS, UnknownEntitlement
from services.entitlements.desk import EntitlementDesk, hold_tenant
from services.entitlements.errors import OverrideNotFound, TenantUnknown
from services.entitlements.usage import usage
from services.entitlements.views import NotedEntitlementsView, NotedOverrideView
from services.identity import Principal, require_superuser
from services.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True, kw_only=True)
class OverrideInput:
    """What a tenant shall have whatever its plan says, and why; `until` None means for good.

    Names are `users`, `webhooks_enabled`, `sockets.connections` and their kin.
    """

    name: str
    value: int | bool
    until: datetime | None
    reason: str


class Overrides:
    """The use cases of superusers; all need a PlatformScope and raise SuperuserRequired and TenantUnknown."""

    def __init__(self, *, desk: EntitlementDesk, announcer: Announcer) -> None:
        self._desk = desk
        self._announcer = announcer

    async def show(self, uow: UnitOfWork, actor: Principal, *, tenant_id: UUID) -> NotedEntitlementsView:
        """Show what a tenant may have, what it uses, and every exception that was made."""
        require_superuser(actor)
        await _require_tenant(uow, tenant_id)
        subscription, overrides = await self._desk.grounds(uow, tenant_id)
        noted = [NotedOverrideView.noted(row, now=uow.now) for row in sorted(overrides, key=lambda row: row.name)]
        entitlements = self._desk.judge(uow, subscription, overrides)
        return NotedEntitlementsView.noted(tenant_id, entitlements, await usage(uow, tenant_id), noted)

    async def put(
        self, uow: UnitOfWork, actor: Principal, *, tenant_id: UUID, wanted: OverrideInput
    ) -> NotedEntitlementsView:
        """Make an exception, in the place of an earlier one of the same name; the tenant hears of it.

        Raises UnknownEntitlement, and InvalidInput when the name needs a value of another kind, or the time is over
        already.
        """
        require_superuser(actor)
        name = canonical_name(wanted.name)
        _check(name, wanted, now=uow.now)
        await self._hold(uow, tenant_id)
        before = await self._value(uow, tenant_id, name)
        told = {
            "value": wanted.value,
            "until": wanted.until,
            "reason": wanted.reason,
            "created_by": actor.user_id,
            "created_at": uow.now,
        }
        await uow.session.execute(
            insert(EntitlementOverride)
            .values(id=uuid4(), tenant_id=tenant_id, name=name, **told)
            .on_conflict_do_update(index_elements=[EntitlementOverride.tenant_id, EntitlementOverride.name], set_=told)
        )
        after = {
            "value": wanted.value,
            "until": wanted.until.isoformat() if wanted.until else None,
            "reason": wanted.reason,
        }
        self._audit(uow, actor, "set", tenant_id=tenant_id, name=name, before=before, after=after)
        await self._tell(uow, tenant_id)
        return await self.show(uow, actor, tenant_id=tenant_id)

    async def remove(self, uow: UnitOfWork, actor: Principal, *, tenant_id: UUID, name: str) -> NotedEntitlementsView:
        """Take an exception back; the tenant hears of it. Raises OverrideNotFound."""
        require_superuser(actor)
        name = canonical_name(name)
        await self._hold(uow, tenant_id)
        before = await self._value(uow, tenant_id, name)
        gone = await uow.session.scalar(
            delete(EntitlementOverride)
            .where(EntitlementOverride.tenant_id == tenant_id, EntitlementOverride.name == name)
            .returning(EntitlementOverride.id)
        )
        if gone is None:
            raise OverrideNotFound
        self._audit(uow, actor, "removed", tenant_id=tenant_id, name=name, before=before)
        await self._tell(uow, tenant_id)
        return await self.show(uow, actor, tenant_id=tenant_id)

    async def _hold(self, uow: UnitOfWork, tenant_id: UUID) -> None:
        await hold_tenant(uow, tenant_id)
        await _require_tenant(uow, tenant_id)

    async def _value(self, uow: UnitOfWork, tenant_id: UUID, name: str) -> dict[str, Any] | None:
        statement = select(EntitlementOverride.value, EntitlementOverride.until).where(
            EntitlementOverride.tenant_id == tenant_id, EntitlementOverride.name == name
        )
        found = (await uow.session.execute(statement)).one_or_none()
        if found is None:
            return None
        return {"value": found.value, "until": found.until.isoformat() if found.until else None}

    async def _tell(self, uow: UnitOfWork, tenant_id: UUID) -> None:
        # Read under its lock and after the change, so that what is told is what holds.
        subscription = await locked_subscription(uow, Subscription.tenant_id == tenant_id)
        if subscription is not None:
            subscription.updated_at = uow.now
            self._announcer.subscription_updated(uow, subscription)

    def _audit(
        self, uow: UnitOfWork, actor: Principal, verb: str, *, tenant_id: UUID, name: str, **details: object
    ) -> None:
        uow.audit(
            f"entitlement_override.{verb}",
            actor_id=actor.user_id,
            tenant_id=tenant_id,
            subject=("entitlement_override", name),
            details=details,
        )


def _check(name: str, wanted: OverrideInput, *, now: datetime) -> None:
    if name not in FLAGS | LIMITS:
        raise UnknownEntitlement("path -> name")
    if name in FLAGS and not isinstance(wanted.value, bool):
        raise _refusal("body -> value", "must be true or false")
    if name in LIMITS and not is_limit(wanted.value):
        raise _refusal("body -> value", "must be a whole number, -1 for unlimited")
    if wanted.until is not None and wanted.until <= now:
        raise _refusal("body -> until", "must be in the future")


def _refusal(field: str, message: str) -> InvalidInput:
    problem = {"field": field, "message": message, "type": "value_error"}
    return InvalidInput(details={"errors": [problem]})


async def _require_tenant(uow: UnitOfWork, tenant_id: UUID) -> None:
    if await uow.session.scalar(select(Tenant.id).where(Tenant.id == tenant_id)) is None:
        raise TenantUnknown
