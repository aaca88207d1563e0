"""Events of merchants' accounts: verified with the merchant's secret, stored once, applied to the merchant's orders."""

import logging
from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import ColumnElement, select

from models.inbox import ProviderEvent
from models.merchants import PaymentIntegration
from models.tenants import Tenant
from providers.payments import BadPayload, PaymentProvider, Reading, read_event
from providers.payments.accounts import Accounts
from services.billing.errors import NotThereYet, WebhookUnknown
from services.billing.inbox import Told
from services.billing.stored import event_of, log_event, log_stored, store_event, verified_event
from services.merchants.announcer import MerchantAnnouncer
from services.merchants.settlement import Settlement
from services.merchants.vault import Vault
from services.unit_of_work import PlatformScope, RequestTrace, UnitOfWork, UnitOfWorkFactory

_SCOPE = PlatformScope("the address of a webhook names a merchant's account, of whichever tenant")


class MerchantInbox:
    """Takes events of merchants' accounts, and understands those that are stored."""

    def __init__(
        self,
        units: UnitOfWorkFactory,
        *,
        accounts: Accounts,
        vault: Vault,
        settlement: Settlement,
        announcer: MerchantAnnouncer,
    ) -> None:
        self._units = units
        self._accounts = accounts
        self._vault = vault
        self._settlement = settlement
        self._announcer = announcer

    async def receive(
        self,
        *,
        integration_id: UUID | None,
        tenant: str | None,
        body: bytes,
        headers: Mapping[str, str],
        trace: RequestTrace,
    ) -> bool:
        """Store a signed event of an account, which is named by its id, or by the tenant's id or slug.

        Returns False for an event that was stored before.

        Raises:
            WebhookUnknown: there is no such account.
            BadSignature, BadPayload: it is not the provider's, or no event.
            KeysUnreadable: the account's secret cannot be read now.
        """
        async with self._units(_SCOPE, trace=trace) as uow:
            if integration_id is not None:
                integration = await uow.session.get(PaymentIntegration, integration_id)
            else:
                integration = await self._of_tenant(uow, tenant or "", headers)
            if integration is None:
                raise WebhookUnknown
            provider = self.opened(integration)
            event = verified_event(provider, body=body, headers=headers, now=uow.now)
            is_new = await store_event(uow, integration.provider, event, integration_id=integration.id)
        log_stored(event, is_new=is_new)
        return is_new

    async def read(self, row: ProviderEvent) -> Told:
        """See `MerchantEvents.read`."""
        async with self._units(_SCOPE) as uow:
            integration = await uow.session.get(PaymentIntegration, row.integration_id)
        if integration is None:
            raise NotThereYet("account")
        try:
            reading = await read_event(self.opened(integration), event_of(row))
        except BadPayload:
            # It concerns nothing of ours: whatever its provider holds of our orders is found by asking (looking.py).
            log_event(logging.WARNING, row, "unreadable")
            reading = Reading(facts=())
        if reading.is_missing:
            raise NotThereYet("payment at the provider")
        return Told(
            tenant_id=integration.tenant_id,
            integration_id=integration.id,
            provider=integration.provider,
            reading=reading,
        )

    async def apply(self, uow: UnitOfWork, told: Told) -> None:
        """See `MerchantEvents.apply`."""
        await self._settlement.take_in(uow, told)

    async def alert(self, uow: UnitOfWork, row: ProviderEvent) -> None:
        """See `MerchantEvents.alert`."""
        tenant_id = await uow.session.scalar(
            select(PaymentIntegration.tenant_id).where(PaymentIntegration.id == row.integration_id)
        )
        if tenant_id is not None:
            await self._announcer.dead(uow, row, tenant_id=tenant_id)

    def opened(self, integration: PaymentIntegration) -> PaymentProvider:
        """Return an adapter for a merchant's account; raises KeysUnreadable."""
        return self._accounts.open(integration.provider, self._vault.open(integration))

    async def _of_tenant(self, uow: UnitOfWork, tenant: str, headers: Mapping[str, str]) -> PaymentIntegration | None:
        """Find the account of a tenant whose provider signs in the header that was sent."""
        sent = {name.lower() for name in headers}
        rows = await uow.session.scalars(
            select(PaymentIntegration).join(Tenant, Tenant.id == PaymentIntegration.tenant_id).where(_named(tenant))
        )
        # By its provider alone: keys of an account that is not meant need not be readable.
        return next((row for row in rows if self._accounts.kinds[row.provider].signature_header.lower() in sent), None)


def _named(tenant: str) -> ColumnElement[bool]:
    try:
        return Tenant.id == UUID(tenant)
    except ValueError:
        return Tenant.slug == tenant
