"""A merchant's accounts at payment providers: told once, never shown again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from uuid import UUID, uuid4

from pydantic.alias_generators import to_camel
from sqlalchemy import select

from core.errors import InvalidInput
from models.merchants import PaymentIntegration
from models.tenants import Tenant
from providers.payments.accounts import AccountKind, Accounts
from services.closed_tenants import require_not_ending
from services.identity import Principal, require_permission, require_tenant
from services.merchants.announcer import MerchantAnnouncer
from services.merchants.errors import IntegrationNotFound, ProviderNotOffered
from services.merchants.lookup import current_integration
from services.merchants.vault import Vault
from services.merchants.views import IntegrationsView, IntegrationView
from services.permissions import Permission
from services.step_up import require_recent_second_factor
from services.unit_of_work import RequestTrace, TenantScope, UnitOfWork, UnitOfWorkFactory

Change = Literal["provider_changed", "provider_removed"]

_ACTIONS: dict[Change, str] = {
    "provider_changed": "payment_provider.changed",
    "provider_removed": "payment_provider.removed",
}
_MASK = "••••"
# What tells keys apart and opens nothing: four characters, and of a short key no more than a third.
_HINT_LENGTH = 4
_HINT_SHARE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountInput:
    """What a merchant tells of an account; `keys` by the names of `AccountKind.needed`, others are ignored.

    `return_url` is where customers return to when an order's payment names no other place.
    """

    provider: str
    keys: Mapping[str, str]
    return_url: str | None


class Integrations:
    """The use cases about merchants' accounts; for owners."""

    def __init__(
        self,
        units: UnitOfWorkFactory,
        *,
        accounts: Accounts,
        vault: Vault,
        announcer: MerchantAnnouncer,
        public_url: str,
    ) -> None:
        self._units = units
        self._accounts = accounts
        self._vault = vault
        self._announcer = announcer
        self._public_url = public_url

    async def require_keeper(self, uow: UnitOfWork, actor: Principal) -> UUID:
        """Return the tenant whose accounts the caller may change.

        Raises:
            RoleRequired, Impersonated, ApiKeyRefused: the caller is not the owner in person.
            StepUpRequired: the owner has a second factor, and has not shown it of late.
        """
        tenant_id = _owner_of(actor)
        await require_recent_second_factor(uow, actor)
        return tenant_id

    async def put(self, actor: Principal, wanted: AccountInput, *, trace: RequestTrace) -> IntegrationView:
        """Set an account up, or replace its keys; orders are paid there from now on.

        Raises ProviderNotOffered and AccountRefused when the account cannot be used, TenantDeleted when the tenant is
        to be deleted, and what `require_keeper` does.
        """
        tenant_id = _owner_of(actor)
        # Before anything is asked of the address that the account names.
        async with self._units(TenantScope(tenant_id), trace=trace) as uow:
            await self.require_keeper(uow, actor)
            await require_not_ending(uow, tenant_id)
        name = self._name(wanted)
        kind = self._accounts.kinds[name]
        keys = _keys(kind, wanted.keys)
        await self._accounts.check(name, keys)
        async with self._units(TenantScope(tenant_id), trace=trace) as uow:
            # Two first accounts at once would not see each other.
            await uow.session.execute(select(Tenant.id).where(Tenant.id == tenant_id).with_for_update(key_share=True))
            # Again, for its deletion may have been asked for while the provider was.
            await require_not_ending(uow, tenant_id)
            row = await self._row(uow, tenant_id, name)
            account = {name: keys[name] for name in kind.shown}
            if row.account != account:
                row.account, row.account_since = account, uow.now
            row.hint, row.return_url, row.chosen_at = _hint(keys[kind.named_by]), wanted.return_url, uow.now
            self._vault.lock(row, keys)
            uow.session.add(row)
            await self._tell(uow, actor, row, "provider_changed")
            return self._view(row, is_current=True)

    async def show(self, uow: UnitOfWork, actor: Principal) -> IntegrationsView:
        """Show the tenant's accounts, without their keys; raises IntegrationNotFound when there is none."""
        _owner_of(actor)
        current = await current_integration(uow)
        if current is None:
            raise IntegrationNotFound
        rows = await uow.session.scalars(select(PaymentIntegration).order_by(PaymentIntegration.provider))
        views = [self._view(row, is_current=row.id == current.id) for row in rows]
        shown = self._view(current, is_current=True)
        return IntegrationsView(**shown.model_dump(), integrations=views)

    async def remove(self, uow: UnitOfWork, actor: Principal, *, provider: str | None) -> None:
        """Delete an account with its keys, the current one unless another is named; its webhook is closed.

        Raises IntegrationNotFound, and what `require_keeper` does.
        """
        await self.require_keeper(uow, actor)
        conditions = [] if provider is None else [PaymentIntegration.provider == provider]
        row = await current_integration(uow, *conditions)
        if row is None:
            raise IntegrationNotFound
        await self._tell(uow, actor, row, "provider_removed")
        await uow.session.delete(row)

    def _name(self, wanted: AccountInput) -> str:
        name = wanted.provider
        if name == "coinbase":
            # One name for two products (contract.md 4.6); the newer one's keys have a name.
            name = "coinbase_business" if wanted.keys.get("key_id") else "coinbase_commerce"
        if name not in self._accounts.kinds:
            raise ProviderNotOffered
        return name

    async def _row(self, uow: UnitOfWork, tenant_id: UUID, provider: str) -> PaymentIntegration:
        row = await uow.session.scalar(
            select(PaymentIntegration).where(PaymentIntegration.provider == provider).with_for_update()
        )
        return row or PaymentIntegration(
            id=uuid4(),
            tenant_id=tenant_id,
            provider=provider,
            account={},
            account_since=uow.now,
            created_at=uow.now,
        )

    async def _tell(self, uow: UnitOfWork, actor: Principal, row: PaymentIntegration, news: Change) -> None:
        uow.audit(
            _ACTIONS[news],
            actor_id=actor.user_id,
            tenant_id=row.tenant_id,
            subject=("payment_integration", row.id),
            details={"provider": row.provider, "hint": row.hint, **row.account},
        )
        # Whoever could change where the money goes unseen could take it.
        await self._announcer.notify(
            uow,
            news,
            tenant_id=row.tenant_id,
            data={"integration_id": str(row.id)},
            provider=row.provider,
            hint=row.hint,
        )

    def _view(self, row: PaymentIntegration, *, is_current: bool) -> IntegrationView:
        url = f"{self._public_url}/api/tenant/payments/webhook/{row.id}"
        return IntegrationView.of(row, webhook_url=url, is_current=is_current)


def _owner_of(actor: Principal) -> UUID:
    tenant_id = require_tenant(actor)
    require_permission(actor.role, Permission.PROVIDER_CONFIGURE)
    return tenant_id


def _keys(kind: AccountKind, given: Mapping[str, str]) -> dict[str, str]:
    missing = [name for name in kind.needed if not given.get(name)]
    if missing:
        fields = [f"body -> {to_camel(name)}" for name in missing]
        problems = [{"field": field, "message": "Field required", "type": "missing"} for field in fields]
        raise InvalidInput(details={"errors": problems})
    return {name: given[name] for name in kind.needed}


def _hint(key: str) -> str:
    shown = min(_HINT_LENGTH, len(key.strip()) // _HINT_SHARE)
    return _MASK + (key.strip()[-shown:] if shown else "")
