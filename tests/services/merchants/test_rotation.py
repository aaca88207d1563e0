"""The key of the house is replaced while merchants and providers go on: nothing is refused and nothing is lost."""

import asyncio
import os
from collections.abc import AsyncIterator
from functools import partial

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from core.sealing import KeyRing
from models.merchants import PaymentIntegration
from services.merchants.errors import KeysUnreadable
from services.merchants.vault import Rotation, Vault
from services.unit_of_work import RequestTrace
from tests.support.billing import PLATFORM, Shop, Till
from tests.support.books import open_books
from tests.support.merchants import Bazaar, open_bazaar, signed
from tests.support.running import Running

FORMER, NEWEST = os.urandom(32), os.urandom(32)


@pytest.fixture(scope="module")
async def books(engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    """A database without the accounts of other tests, each of which has a key of its own."""
    running = Running(partial(open_books, engine=engine))
    yield await running.started()
    await running.stop()


@pytest.fixture
async def before(till: Till) -> AsyncIterator[Bazaar]:
    """A process that still seals with the former key, and can read with the next."""
    async with open_bazaar(till, ring=KeyRing([FORMER, NEWEST])) as bazaar:
        yield bazaar


@pytest.fixture
async def after(till: Till) -> AsyncIterator[Bazaar]:
    """A process that seals with the newest key."""
    async with open_bazaar(till, ring=KeyRing([NEWEST, FORMER])) as bazaar:
        yield bazaar


async def rows(bazaar: Bazaar, shops: list[Shop]) -> list[PaymentIntegration]:
    ids = [shop.tenant_id for shop in shops]
    async with bazaar.till.units(PLATFORM) as uow:
        return list(await uow.session.scalars(select(PaymentIntegration).where(PaymentIntegration.tenant_id.in_(ids))))


async def test_keys_are_sealed_anew_under_traffic(before: Bazaar, after: Bazaar) -> None:
    shops = [await before.merchant() for _ in range(8)]
    secrets = {shop.tenant_id: [f"secret of {shop.tenant_id}"] for shop in shops}
    for shop in shops:
        await before.set_up(shop, "btcpay", webhook_secret=secrets[shop.tenant_id][0])
    done = asyncio.Event()

    async def write(shop: Shop, bazaar: Bazaar) -> None:
        number = 0
        while not done.is_set():
            number += 1
            secret = f"{number} of {shop.tenant_id}"
            secrets[shop.tenant_id].append(secret)
            await bazaar.set_up(shop, "btcpay", webhook_secret=secret)

    async def read(bazaar: Bazaar) -> None:
        while not done.is_set():
            for row in await rows(bazaar, shops):
                assert bazaar.merchants.inbox._vault.open(row)["webhook_secret"] in secrets[row.tenant_id]

    async def rotate() -> int:
        renewed = 0
        for _ in range(8):
            # Twice at once, as two operators might.
            found = await asyncio.gather(after.merchants.rotation.run(), after.merchants.rotation.run())
            renewed += sum(outcome.renewed for outcome in found)
        done.set()
        return renewed

    # Some processes have the new settings already and some do not, as in an update without a gap.
    traffic = [write(shop, after if place % 2 else before) for place, shop in enumerate(shops)]
    rotation = asyncio.create_task(rotate())
    await asyncio.gather(rotation, read(before), read(after), *traffic)
    assert rotation.result() >= 4
    last = await after.merchants.rotation.run()
    assert last.unreadable == 0
    newest = Vault(KeyRing([NEWEST]))
    for row in await rows(after, shops):
        # The former key is needed no more, and nobody's last word is lost.
        assert newest.open(row)["webhook_secret"] == secrets[row.tenant_id][-1]
    assert (await after.merchants.rotation.run()).renewed == 0


async def test_what_is_being_written_is_waited_for(before: Bazaar, after: Bazaar) -> None:
    shop = await before.merchant()
    (row,) = await rows(before, [shop])
    async with before.till.units(PLATFORM) as uow:
        held = await uow.session.get_one(PaymentIntegration, row.id, with_for_update=True)
        before.merchants.inbox._vault.lock(held, {"webhook_secret": "the last word"})
        await uow.session.flush()
        rotation = asyncio.create_task(after.merchants.rotation.run())
        await asyncio.sleep(0.5)
        assert not rotation.done()
    assert (await rotation).unreadable == 0
    (row,) = await rows(after, [shop])
    assert Vault(KeyRing([NEWEST])).open(row) == {"webhook_secret": "the last word"}


async def test_webhooks_are_believed_meanwhile(before: Bazaar, after: Bazaar) -> None:
    shop = await before.merchant()
    view = before.accounts_of[shop.tenant_id]

    async def bring(number: int) -> bool:
        event = {"deliveryId": f"D{number}", "type": "PayoutCreated", "timestamp": 1_700_000_000}
        body, headers = signed(before.btcpay, event)
        inbox = (before if number % 2 else after).merchants.inbox
        return await inbox.receive(
            integration_id=view.id, tenant=None, body=body, headers=headers, trace=RequestTrace()
        )

    _, *stored = await asyncio.gather(after.merchants.rotation.run(), *(bring(number) for number in range(20)))
    assert all(stored)


async def test_a_key_that_is_gone_is_told_and_the_rest_goes_on(before: Bazaar, after: Bazaar) -> None:
    lost = await before.merchant()
    (row,) = await rows(before, [lost])
    stranger = Vault(KeyRing([os.urandom(32)]))
    async with before.till.units(PLATFORM) as uow:
        held = await uow.session.get_one(PaymentIntegration, row.id)
        stranger.lock(held, {"webhook_secret": "x"})
    kept = [await before.merchant() for _ in range(3)]
    outcome = await after.merchants.rotation.run()
    assert outcome.unreadable >= 1
    assert {found.key_id for found in await rows(after, kept)} == {KeyRing([NEWEST]).newest}
    with pytest.raises(KeysUnreadable):
        after.merchants.inbox.opened((await rows(after, [lost]))[0])
    async with before.till.units(PLATFORM) as uow:
        await uow.session.delete(await uow.session.get_one(PaymentIntegration, row.id))


async def test_an_interrupted_rotation_goes_on(before: Bazaar, after: Bazaar, monkeypatch: pytest.MonkeyPatch) -> None:
    shops = [await before.merchant() for _ in range(6)]
    monkeypatch.setattr("services.merchants.vault._BATCH", 2)
    batches = 0

    class Interrupted(Rotation):
        def _renew(self, row: PaymentIntegration) -> bool:
            nonlocal batches
            batches += 1
            if batches == 4:
                raise RuntimeError("the machine went down")
            return super()._renew(row)

    with pytest.raises(RuntimeError):
        await Interrupted(after.till.units, after.merchants.rotation._vault).run()
    left = [row for row in await rows(after, shops) if row.key_id != KeyRing([NEWEST]).newest]
    assert 0 < len(left) < 6
    assert (await after.merchants.rotation.run()).renewed >= len(left)
    assert {row.key_id for row in await rows(after, shops)} == {KeyRing([NEWEST]).newest}
