"""Merchants beside a till: their accounts at fakes of the providers, their orders, and a worker one can step."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import select

from core.sealing import KeyRing, new_key, read_key
from models.inbox import ProviderEvent
from models.journal import Account
from models.merchants import CommissionLog
from models.orders import OrderInvoice
from providers.http import HttpClient
from providers.payments import Reading, read_event
from server.merchants import MerchantAccounts
from server.settings import Settings
from services.billing import BillingService
from services.billing.inbox import Told
from services.billing.journal import balances
from services.mail import MailService
from services.merchants import AccountInput, MerchantService, OrderInput, PayInput
from services.merchants.views import IntegrationView, OrderInvoiceView, OrderView
from services.notifications import NotificationService
from services.unit_of_work import RequestTrace, TenantScope
from tests.fakes import btcpay_api, coinbase_business_api, coinbase_commerce_api
from tests.fakes.btcpay_api import FakeBtcPay
from tests.fakes.coinbase_business_api import FakeBusiness
from tests.fakes.coinbase_commerce_api import FakeCommerce
from tests.fakes.server import FakeServer
from tests.providers.payments.harness_one_time import quick_policy
from tests.support.billing import PLATFORM, Shop, Till, Unsent

FAKES: dict[str, type[Any]] = {
    "btcpay": FakeBtcPay,
    "coinbase_commerce": FakeCommerce,
    "coinbase_business": FakeBusiness,
}
_TASKS = ("billing.apply_merchants", "merchants.look")


def keys_of(fake: Any) -> dict[str, str]:
    """Return what opens the account at a fake, as a merchant tells it."""
    if isinstance(fake, FakeBtcPay):
        return {
            "host": fake.base_url,
            "store_id": btcpay_api.STORE,
            "api_key": btcpay_api.API_KEY,
            "webhook_secret": btcpay_api.WEBHOOK_SECRET,
        }
    if isinstance(fake, FakeCommerce):
        return {"api_key": coinbase_commerce_api.API_KEY, "webhook_secret": coinbase_commerce_api.WEBHOOK_SECRET}
    return {
        "key_id": coinbase_business_api.KEY_ID,
        "key_secret": fake.key_secret,
        "webhook_secret": coinbase_business_api.WEBHOOK_SECRET,
    }


def signed(fake: Any, event: Any, *, at: int | None = None) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers with which a fake delivers an event."""
    if isinstance(fake, FakeBtcPay):
        body = fake.encode(event)
        return body, {"BTCPay-Sig": fake.sign(body)}
    if isinstance(fake, FakeCommerce):
        body = fake.deliver(event)
        return body, {"X-CC-Webhook-Signature": fake.sign(body)}
    body = json.dumps(event).encode()
    return body, fake.sign(body, at=fake.now() if at is None else at)


@dataclass(slots=True)
class Bazaar:
    """The service under test, and the providers at which its merchants have accounts."""

    till: Till
    merchants: MerchantService
    accounts: MerchantAccounts
    fakes: dict[str, Any]
    accounts_of: dict[UUID, IntegrationView] = field(default_factory=dict)
    _stepped: int = 0

    @property
    def btcpay(self) -> FakeBtcPay:
        fake: FakeBtcPay = self.fakes["btcpay"]
        return fake

    # ----------------------------------------------------------------------------------------- merchants

    async def merchant(self, provider: str = "btcpay", **options: Any) -> Shop:
        """Found a tenant that has an account at a provider."""
        shop = await self.till.shop(**options)
        await self.set_up(shop, provider)
        return shop

    async def set_up(self, shop: Shop, provider: str, **keys: str) -> IntegrationView:
        wanted = AccountInput(
            provider=provider, keys={**keys_of(self.fakes[provider]), **keys}, return_url="https://shop.example/back"
        )
        view = await self.merchants.integrations.put(shop.owner, wanted, trace=RequestTrace())
        self.accounts_of[shop.tenant_id] = view
        return view

    async def order(self, shop: Shop, amount: str = "49.90", currency: str = "USD", **more: Any) -> OrderView:
        wanted = OrderInput(
            amount=Decimal(amount),
            currency=currency,
            **{"items": [{"name": "Tea"}], "note": None, "external_reference": None, **more},
        )
        async with self.till.units(TenantScope(shop.tenant_id)) as uow:
            return await self.merchants.create_order(uow, shop.owner, wanted)

    async def pay(self, shop: Shop, order: OrderView) -> str:
        """Send the customer to pay; returns where."""
        wanted = PayInput(amount=Decimal(order.amount), currency=order.currency, success_url=None, cancel_url=None)
        return (await self.merchants.paying.pay(shop.owner, order.id, wanted, trace=RequestTrace())).url

    async def begin(self, shop: Shop, order: OrderView) -> str:
        """Send the customer to pay; returns the provider's id of the invoice."""
        await self.pay(shop, order)
        session_id = (await self.invoices(shop, order))[-1].provider_invoice_id
        assert session_id is not None
        return session_id

    # ------------------------------------------------------------------------------------------- events

    async def bring(self, shop: Shop, event: Any) -> bool:
        """Deliver an event of a merchant's account; returns whether it was new."""
        view = self.accounts_of[shop.tenant_id]
        body, headers = signed(self.fakes[view.provider], event)
        return await self.merchants.inbox.receive(
            integration_id=view.id, tenant=None, body=body, headers=headers, trace=RequestTrace()
        )

    async def take(self, shop: Shop, events: Sequence[Any]) -> None:
        """Deliver events and let the worker apply each."""
        for event in events:
            await self.bring(shop, event)
            await self.work()

    async def work(self) -> None:
        """Let the worker do what the bell has rung for since the last time."""
        tasks = [task for task in self.till.ears.tasks[self._stepped :] if task.name in _TASKS]
        self._stepped = len(self.till.ears.tasks)
        for task in tasks:
            if task.name == "merchants.look":
                await self.merchants.look(task.row_id)
            else:
                await self.till.billing.apply_merchants(task.row_id)

    async def read(self, shop: Shop, event: Any) -> Told:
        """Tell what an event means at this moment, as the worker would."""
        view = self.accounts_of[shop.tenant_id]
        fake = self.fakes[view.provider]
        body, headers = signed(fake, event)
        provider = self.accounts.open(view.provider, keys_of(fake))
        reading = await read_event(provider, provider.verify(body=body, headers=headers, now=self.till.now))
        return self.told(shop, reading)

    def told(self, shop: Shop, reading: Reading) -> Told:
        view = self.accounts_of[shop.tenant_id]
        return Told(tenant_id=shop.tenant_id, integration_id=view.id, provider=view.provider, reading=reading)

    # ------------------------------------------------------------------------------------------ the books

    async def look_at(self, shop: Shop, order: OrderView) -> OrderView:
        """Show an order as it stands now."""
        async with self.till.units(TenantScope(shop.tenant_id)) as uow:
            return await self.merchants.order(uow, shop.owner, order_id=order.id)

    async def invoices(self, shop: Shop, order: OrderView) -> list[OrderInvoiceView]:
        return (await self.look_at(shop, order)).invoices

    async def commissions(self, shop: Shop) -> list[Decimal]:
        """Return the steps of a merchant's commissions, as they were logged."""
        async with self.till.units(PLATFORM) as uow:
            rows = await uow.session.scalars(
                select(CommissionLog)
                .where(CommissionLog.tenant_id == shop.tenant_id)
                .order_by(CommissionLog.order_id, CommissionLog.number)
            )
            return [row.commission_amount for row in rows]

    async def journal(self, shop: Shop) -> dict[Account, Decimal]:
        """Return what each account of the journal holds of a merchant, in one currency."""
        async with self.till.units(PLATFORM) as uow:
            found = await balances(uow, shop.tenant_id)
        assert sum(found.values()) == 0
        return {account: amount for (account, _), amount in found.items()}

    async def rows(self, shop: Shop) -> list[OrderInvoice]:
        async with self.till.units(PLATFORM) as uow:
            mine = select(OrderInvoice).where(OrderInvoice.tenant_id == shop.tenant_id)
            return list(await uow.session.scalars(mine.order_by(OrderInvoice.created_at)))

    async def events(self, shop: Shop) -> list[ProviderEvent]:
        """Return what the inbox holds of a merchant's account."""
        async with self.till.units(PLATFORM) as uow:
            account = self.accounts_of[shop.tenant_id].id
            return list(await uow.session.scalars(select(ProviderEvent).where(ProviderEvent.integration_id == account)))


@asynccontextmanager
async def open_bazaar(till: Till, *, percent: str = "5", ring: KeyRing | None = None) -> AsyncIterator[Bazaar]:
    """Open a bazaar on the till's clock and database; the till's billing then knows its merchants."""
    async with AsyncExitStack() as stack:
        fakes: dict[str, FakeServer] = {
            name: await stack.enter_async_context(kind(clock=lambda: till.clock.now().timestamp()))
            for name, kind in FAKES.items()
        }
        settings = Settings(
            _env_file=None,
            environment="test",
            merchant_private_hosts=True,
            coinbase_api_base=fakes["coinbase_commerce"].base_url,
            coinbase_business_api_base=fakes["coinbase_business"].base_url,
        )
        http = HttpClient(quick_policy(), clock=till.clock)
        stack.push_async_callback(http.aclose)
        accounts = MerchantAccounts(settings, http, http, clock=till.clock)
        merchants = MerchantService(
            units=till.units,
            accounts=accounts,
            ring=ring or KeyRing([read_key(new_key())]),
            notifications=NotificationService(),
            commission_percent=Decimal(percent),
            public_url="https://erp.example",
        )
        till.billing = BillingService(
            units=till.units,
            providers=till.providers,
            default_provider="stripe",
            notifications=NotificationService(),
            documents=till.documents,
            mail=MailService(till.units, Unsent()),
            merchants=merchants.inbox,
        )
        yield Bazaar(till=till, merchants=merchants, accounts=accounts, fakes=dict(fakes))
