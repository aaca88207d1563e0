"""One event of each provider, delivered a thousand times at once to two instances, takes effect once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import pytest
from aiohttp import ClientSession, TCPConnector

from tests.support.billing import eventually
from tests.support.listeners import Listener
from tests.support.processes import Process
from tests.support.running import Running
from tests.support.sellers import ONE_PAYMENT, Buyer, Sellers, open_sellers
from tests.support.stalls import ALL_PROVIDERS
from tests.support.stores import Stores

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

DELIVERIES = 1000
CONNECTIONS = 8


@dataclass(slots=True)
class Stand:
    """The deployment and its two web processes."""

    sellers: Sellers
    webs: tuple[Process, Process]


async def open_stand(stack: AsyncExitStack, stores: Stores, factory: pytest.TempPathFactory) -> Stand:
    """Start two web processes and a worker."""
    sellers = await stack.enter_async_context(open_sellers(stores, factory.mktemp("deliveries")))
    one = await (await sellers.fleet.run("serve", "--migrate", "--seed")).ready()
    two = await sellers.fleet.run("serve")
    await sellers.fleet.run("worker")
    return Stand(sellers, (one, await two.ready()))


@pytest.fixture(scope="module")
async def stand(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    running = Running(partial(open_stand, stores=stores, factory=tmp_path_factory))
    yield await running.started()
    await running.stop()


async def knock(stand: Stand, buyer: Buyer, content: bytes, url: str) -> Counter[int]:
    """Deliver an event again and again over one connection."""
    delivery = stand.sellers.sign(buyer, content)
    times = DELIVERIES // CONNECTIONS
    async with ClientSession(connector=TCPConnector(limit=1)) as http:
        return Counter([await stand.sellers.deliver(http, url, buyer.provider, delivery) for _ in range(times)])


@pytest.mark.parametrize("provider", ALL_PROVIDERS)
async def test_a_thousand_deliveries_are_one_payment(stand: Stand, http: ClientSession, provider: str) -> None:
    sellers, (one, two) = stand.sellers, stand.webs
    buyer = await sellers.buyer(http, one.url, provider)
    tenant_id = buyer.owner.tenant_id
    ears = [await Listener().connect(web.url, buyer.owner.token, "/billing") for web in stand.webs]
    urls = [(one, two)[place % 2].url for place in range(CONNECTIONS)]

    told = sellers.pay(buyer)
    answers = await asyncio.gather(*(knock(stand, buyer, told[-1], url) for url in urls))
    assert sum(answers, Counter()) == {200: DELIVERIES}

    async def books() -> dict[str, object]:
        return await sellers.books(tenant_id)

    first = await eventually(books, lambda seen: seen["status"] == "active")
    assert {**first, **ONE_PAYMENT} == first
    stored = await sellers.ask("SELECT state, attempts FROM provider_events WHERE provider = $1", provider)
    assert [tuple(row) for row in stored] == [("handled", 0)]

    # Whatever else the provider tells of this payment adds nothing, and neither does the event once more.
    for content in (*told, told[-1]):
        delivery = sellers.sign(buyer, content)
        assert await sellers.deliver(http, two.url, provider, delivery) == 200

    async def waiting() -> int:
        (row,) = await sellers.ask("SELECT count(*) FROM provider_events WHERE state <> 'handled'")
        return int(row[0])

    assert await eventually(waiting, lambda count: count == 0) == 0
    assert await sellers.books(tenant_id) == first
    for ear in ears:
        await ear.until(partial(ear.of, "payment:received"))
        assert len(ear.of("payment:received")) == 1
        await ear.close()
