"""Merchants' accounts: written once and never shown, bound to their row, and only where strangers may send us."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import select, text

from core.errors import InvalidInput
from models.merchants import PaymentIntegration
from models.second_factors import SecondFactor
from models.tenants import Tenant
from models.users import UserSession
from providers.payments.accounts import AccountRefused
from server.merchants import MerchantAccounts
from server.settings import Settings
from services.closed_tenants import TenantDeleted
from services.identity import ApiKeyRefused, Impersonated, RoleRequired
from services.merchants import AccountInput
from services.merchants.errors import IntegrationNotFound, KeysUnreadable, ProviderNotOffered
from services.merchants.integrations import Integrations
from services.merchants.views import IntegrationsView
from services.permissions import KeyScope
from services.step_up import RECENT, StepUpRequired
from services.unit_of_work import RequestTrace, TenantScope
from tests.fakes import btcpay_api
from tests.support.billing import PLATFORM, Shop
from tests.support.merchants import FAKES, Bazaar, keys_of


async def shown(bazaar: Bazaar, shop: Shop) -> IntegrationsView:
    async with bazaar.till.units(TenantScope(shop.tenant_id)) as uow:
        return await bazaar.merchants.integrations.show(uow, shop.owner)


async def row_of(bazaar: Bazaar, shop: Shop) -> PaymentIntegration:
    async with bazaar.till.units(PLATFORM) as uow:
        return (
            await uow.session.scalars(select(PaymentIntegration).where(PaymentIntegration.tenant_id == shop.tenant_id))
        ).one()


@pytest.mark.parametrize("provider", FAKES)
async def test_keys_are_told_once_and_never_shown(bazaar: Bazaar, provider: str) -> None:
    shop = await bazaar.merchant(provider)
    view = await shown(bazaar, shop)
    assert (view.provider, view.is_current) == (provider, True)
    assert view.webhook_url == f"https://erp.example/api/tenant/payments/webhook/{view.id}"
    keys = keys_of(bazaar.fakes[provider])
    row = await row_of(bazaar, shop)
    async with bazaar.till.units(PLATFORM) as uow:
        stored = str((await uow.session.execute(text("SELECT * FROM tenants_payment_integrations"))).all())
    heard = str([event.payload for event in bazaar.till.ears.events])
    for name in ("api_key", "key_secret", "webhook_secret"):
        for place in (str(view.plain()), stored, heard, row.sealed):
            assert keys.get(name, "-no-such-") not in place
    assert "payment_provider.changed" in await bazaar.till.audit(shop)
    titles = [note.title for note in await bazaar.till.notifications(shop)]
    assert titles.count("Payment provider changed") == 2


async def test_the_hint_tells_keys_apart(bazaar: Bazaar, shop: Shop) -> None:
    assert (await shown(bazaar, shop)).hint == f"••••{btcpay_api.API_KEY[-4:]}"
    # Of a short key no more than a third is shown.
    for key, end in (("0123456789ab", "89ab"), ("0123456789a", "89a"), ("0123", "3"), ("01", ""), (" 0123 ", "3")):
        assert (await bazaar.set_up(shop, "btcpay", api_key=key)).hint == f"••••{end}"


async def test_a_second_telling_replaces_the_first(bazaar: Bazaar, shop: Shop) -> None:
    before = await row_of(bazaar, shop)
    view = await bazaar.set_up(shop, "btcpay", webhook_secret="another")
    after = await row_of(bazaar, shop)
    assert (after.id, view.id) == (before.id, before.id)
    assert after.sealed != before.sealed
    assert bazaar.merchants.inbox._vault.open(after)["webhook_secret"] == "another"


async def test_accounts_that_are_set_up_at_once_are_one(bazaar: Bazaar) -> None:
    shop = await bazaar.till.shop()
    views = await asyncio.gather(*(bazaar.set_up(shop, "btcpay") for _ in range(4)))
    assert len({view.id for view in views}) == 1


async def test_a_row_copied_to_another_merchant_opens_nothing(bazaar: Bazaar, shop: Shop) -> None:
    thief = await bazaar.merchant()
    stolen, own = await row_of(bazaar, shop), await row_of(bazaar, thief)
    await bazaar.till.change(PaymentIntegration, own.id, sealed=stolen.sealed, key_id=stolen.key_id)
    with pytest.raises(KeysUnreadable):
        bazaar.merchants.inbox.opened(await row_of(bazaar, thief))
    # Nor does the whole row, moved to another tenant or another provider.
    for change in ({"tenant_id": thief.tenant_id}, {"provider": "coinbase_commerce"}, {"id": uuid4()}):
        moved = PaymentIntegration(
            **{
                "id": stolen.id,
                "tenant_id": stolen.tenant_id,
                "provider": stolen.provider,
                "sealed": stolen.sealed,
                "key_id": stolen.key_id,
                **change,
            }
        )
        with pytest.raises(KeysUnreadable):
            bazaar.merchants.inbox.opened(moved)


async def test_one_name_for_both_coinbases(bazaar: Bazaar) -> None:
    for keys, name in (
        (keys_of(bazaar.fakes["coinbase_commerce"]), "coinbase_commerce"),
        (keys_of(bazaar.fakes["coinbase_business"]), "coinbase_business"),
    ):
        shop = await bazaar.till.shop()
        wanted = AccountInput(provider="coinbase", keys=keys, return_url=None)
        view = await bazaar.merchants.integrations.put(shop.owner, wanted, trace=RequestTrace())
        assert view.provider == name


async def test_what_is_missing_is_named(bazaar: Bazaar) -> None:
    shop = await bazaar.till.shop()
    wanted = AccountInput(provider="btcpay", keys={"host": "https://pay.example"}, return_url=None)
    with pytest.raises(InvalidInput) as refusal:
        await bazaar.merchants.integrations.put(shop.owner, wanted, trace=RequestTrace())
    fields = [problem["field"] for problem in refusal.value.details["errors"]]  # type: ignore[attr-defined]
    assert fields == ["body -> storeId", "body -> apiKey", "body -> webhookSecret"]


async def test_a_key_that_is_none_is_refused(bazaar: Bazaar) -> None:
    shop = await bazaar.till.shop()
    keys = {**keys_of(bazaar.fakes["coinbase_business"]), "key_secret": "no key"}
    with pytest.raises(AccountRefused):
        await bazaar.merchants.integrations.put(
            shop.owner, AccountInput(provider="coinbase_business", keys=keys, return_url=None), trace=RequestTrace()
        )


async def test_other_providers_are_not_offered(bazaar: Bazaar) -> None:
    shop = await bazaar.till.shop()
    for provider in ("stripe", "sandbox", "", "nobody"):
        with pytest.raises(ProviderNotOffered):
            await bazaar.merchants.integrations.put(
                shop.owner, AccountInput(provider=provider, keys={}, return_url=None), trace=RequestTrace()
            )


async def test_a_tenant_that_is_to_be_deleted_keeps_its_account_and_may_remove_it(
    bazaar: Bazaar, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await row_of(bazaar, shop)
    due_at = bazaar.till.now + timedelta(days=1)
    asked: list[str] = []
    check = bazaar.accounts.check

    async def deleted_meanwhile(name: str, keys: Mapping[str, str]) -> None:
        asked.append(name)
        await check(name, keys)
        await bazaar.till.change(Tenant, shop.tenant_id, deletion_due_at=due_at)

    monkeypatch.setattr(bazaar.accounts, "check", deleted_meanwhile)
    # The second time it is known before the account is asked.
    for _ in range(2):
        with pytest.raises(TenantDeleted):
            await bazaar.set_up(shop, "btcpay", webhook_secret="another")
    assert asked == ["btcpay"]
    assert (await row_of(bazaar, shop)).sealed == before.sealed
    async with bazaar.till.units(TenantScope(shop.tenant_id)) as uow:
        await bazaar.merchants.integrations.remove(uow, shop.owner, provider=None)


async def test_only_the_owner_in_person(bazaar: Bazaar, shop: Shop) -> None:
    wanted = AccountInput(provider="btcpay", keys=keys_of(bazaar.btcpay), return_url=None)
    for actor in (shop.admin, shop.member):
        with pytest.raises(RoleRequired):
            await bazaar.merchants.integrations.put(actor, wanted, trace=RequestTrace())
    acting = replace(shop.owner, impersonator_id=uuid4())
    with pytest.raises(Impersonated):
        await bazaar.merchants.integrations.put(acting, wanted, trace=RequestTrace())
    async with bazaar.till.units(TenantScope(shop.tenant_id)) as uow:
        with pytest.raises(Impersonated):
            await bazaar.merchants.integrations.remove(uow, acting, provider=None)
        with pytest.raises(RoleRequired):
            await bazaar.merchants.integrations.show(uow, shop.admin)


async def test_no_key_of_a_machine_may(bazaar: Bazaar, shop: Shop) -> None:
    wanted = AccountInput(provider="btcpay", keys=keys_of(bazaar.btcpay), return_url=None)
    machine = replace(shop.owner, scopes=frozenset(KeyScope))
    with pytest.raises(ApiKeyRefused):
        await bazaar.merchants.integrations.put(machine, wanted, trace=RequestTrace())
    async with bazaar.till.units(TenantScope(shop.tenant_id)) as uow:
        with pytest.raises(ApiKeyRefused):
            await bazaar.merchants.integrations.remove(uow, machine, provider=None)


async def test_who_has_a_second_factor_steps_up(bazaar: Bazaar, shop: Shop) -> None:
    now = bazaar.till.now
    session = UserSession(
        id=shop.owner.session_id,
        user_id=shop.owner.user_id,
        current_jti="-",
        authenticated_at=now,
        last_seen_at=now,
        expires_at=now + 9 * RECENT,
    )
    factor = SecondFactor(user_id=shop.owner.user_id, secret="-", created_at=now)
    async with bazaar.till.units(PLATFORM) as uow:
        uow.session.add_all([session, factor])
    bazaar.till.clock.offset += 2 * RECENT
    # An app that was not yet confirmed is none.
    await bazaar.set_up(shop, "btcpay", webhook_secret="first")
    sealed = (await row_of(bazaar, shop)).sealed
    async with bazaar.till.units(PLATFORM) as uow:
        (await uow.session.get_one(SecondFactor, shop.owner.user_id)).confirmed_at = uow.now
    with pytest.raises(StepUpRequired):
        await bazaar.set_up(shop, "btcpay", webhook_secret="second")
    async with bazaar.till.units(TenantScope(shop.tenant_id)) as uow:
        with pytest.raises(StepUpRequired):
            await bazaar.merchants.integrations.remove(uow, shop.owner, provider=None)
    assert (await row_of(bazaar, shop)).sealed == sealed
    async with bazaar.till.units(PLATFORM) as uow:
        (await uow.session.get_one(UserSession, session.id)).authenticated_at = uow.now
    await bazaar.set_up(shop, "btcpay", webhook_secret="second")
    assert (await row_of(bazaar, shop)).sealed != sealed
    async with bazaar.till.units(TenantScope(shop.tenant_id)) as uow:
        await bazaar.merchants.integrations.remove(uow, shop.owner, provider=None)


async def test_a_removed_account_is_gone_with_its_events(bazaar: Bazaar, shop: Shop) -> None:
    order = await bazaar.order(shop)
    await bazaar.take(shop, bazaar.btcpay.pay(await bazaar.begin(shop, order), "0.4"))
    assert await bazaar.events(shop)
    async with bazaar.till.units(TenantScope(shop.tenant_id)) as uow:
        await bazaar.merchants.integrations.remove(uow, shop.owner, provider=None)
    assert await bazaar.events(shop) == []
    with pytest.raises(IntegrationNotFound):
        await shown(bazaar, shop)
    # The order and its invoice stay for the books.
    assert len((await bazaar.look_at(shop, order)).invoices) == 1


PRIVATE = (
    "http://127.0.0.1:8080",
    "https://127.0.0.1",
    "https://localhost",
    "https://10.1.2.3",
    "https://192.168.1.1",
    "https://169.254.169.254/latest/meta-data",
    "https://[::1]",
    "https://[fe80::1]",
    "https://[fd00::1]",
    "https://[::ffff:10.0.0.1]",
    "https://[64:ff9b::a9fe:a9fe]",
    "https://2130706433",
    "https://0.0.0.0",
    "https://100.64.0.1",
    "https://metadata.invalid",
)
MALFORMED = (
    "",
    "ftp://pay.example",
    "https://",
    "pay.example",
    "https://user:pw@pay.example",
    "https://pay.example?x=1",
)


@pytest.mark.parametrize("host", [*PRIVATE, *MALFORMED])
async def test_a_host_in_our_own_network_is_refused(bazaar: Bazaar, host: str) -> None:
    shop = await bazaar.till.shop()
    with pytest.raises(InvalidInput):
        await strict(bazaar).put(shop.owner, at(bazaar, host), trace=RequestTrace())


async def test_production_wants_https(bazaar: Bazaar) -> None:
    shop = await bazaar.till.shop()
    with pytest.raises(AccountRefused) as refusal:
        await strict(bazaar, environment="production").put(
            shop.owner, at(bazaar, "http://93.184.216.34"), trace=RequestTrace()
        )
    assert "https" in str(refusal.value.details)
    await strict(bazaar).put(shop.owner, at(bazaar, "http://93.184.216.34"), trace=RequestTrace())


def at(bazaar: Bazaar, host: str) -> AccountInput:
    return AccountInput(provider="btcpay", keys={**keys_of(bazaar.btcpay), "host": host}, return_url=None)


def strict(bazaar: Bazaar, environment: str = "test") -> Integrations:
    """Integrations of a server that lets nobody into its own network."""
    settings = Settings(_env_file=None).model_copy(update={"environment": environment})
    http = bazaar.accounts._http
    return Integrations(
        bazaar.till.units,
        accounts=MerchantAccounts(settings, http, http, clock=bazaar.till.clock),
        vault=bazaar.merchants.inbox._vault,
        announcer=bazaar.merchants.inbox._announcer,
        public_url="https://erp.example",
    )
