"""The rest of the clients' matrix: what `test_clients.py` and `test_node_client.py` leave open, on every transport."""

import asyncio
from collections.abc import AsyncIterator
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import ClientSession
from socketio.exceptions import ConnectionRefusedError as Refused

from realtime.engine.server import EngineOptions
from tests.namespaces.deploying import Door, door_to, pay
from tests.namespaces.newcomers import found_company
from tests.namespaces.test_delivery import payment, record
from tests.realtime.engine.talking import Served, talking
from tests.realtime.engine.test_clients import WAYS, Client
from tests.support.node import Node
from tests.support.running import Orchestrator
from tests.support.waiting import until

SCRIPT = Path(__file__).parent / "client_matrix.mjs"
LARGE = bytes(place % 251 for place in range(200_000))
OPTIONS = EngineOptions(ping_interval_s=0.2, ping_timeout_s=5)


@pytest.fixture(scope="module")
async def servers() -> AsyncIterator[list[Served]]:
    """Two servers that know nothing of each other."""
    async with talking(OPTIONS) as first, talking(OPTIONS) as second:
        yield [first, second]


@pytest.fixture
async def door(servers: list[Served]) -> AsyncIterator[Door]:
    """An address behind which the first server is, and the second after an outage."""
    async with door_to(servers[0].url) as door:
        yield door


@pytest.mark.node
async def test_the_javascript_client_lives_through_the_rest(node: Node, servers: list[Served], door: Door) -> None:
    found: dict[str, dict[str, Any]] = {}
    outages: list[asyncio.Task[None]] = []
    behind = cycle(served.url for served in (*servers[1:], servers[0]))

    async def fail() -> None:
        await door.cut()
        await door.lead_to(next(behind))

    def prepare(served: Served) -> None:
        @served.on("ask me")
        async def ask(sid: str) -> bool:
            answer = await served.sio.call("question", LARGE, to=sid, timeout=8)
            return bool(answer == LARGE)

        @served.on("outage")
        async def outage(_: str) -> None:
            outages.append(asyncio.create_task(fail()))

        @served.on("connect", namespace="/closed")
        async def refuse(_: str, __: object, auth: object) -> None:
            raise Refused("no", {"code": 7, "shown": auth})

    for served in servers:
        prepare(served)
    for line in await node.play(SCRIPT, door.url):
        found.setdefault(line["way"], {})[line["what"]] = line["found"]
    await asyncio.gather(*outages)
    for way, transports in WAYS.items():
        assert found[way] == {
            "order": [True, transports[-1]],
            "heartbeats": [True],
            "large bytes": [True, True],
            "refused": ["no", {"code": 7, "shown": {"token": way}}, False, True],
            "outage": [True, "said while away"],
        }


@pytest.mark.parametrize("transports", WAYS.values(), ids=WAYS.keys())
async def test_the_python_client_survives_an_outage(servers: list[Served], door: Door, transports: list[str]) -> None:
    client = Client(
        "/", "/custom", reconnection=True, reconnection_delay=0.02, reconnection_delay_max=0.05, randomization_factor=0
    )
    await client.connect(door.url, transports, auth={"token": "abc"})
    await door.cut()
    await until(lambda: len(client.disconnects) == 2)
    await door.lead_to(servers[1].url)
    await until(lambda: len(client.connects) == 4)
    assert client.sio.transport() == transports[-1]
    for namespace in ("/", "/custom"):
        assert servers[1].of("connect", client.sio.get_sid(namespace)) == [{"token": "abc"}]
        assert await client.sio.call("message-with-ack", ("x", b"\x01"), namespace=namespace) == ("x", b"\x01")
    await client.sio.disconnect()


@pytest.mark.parametrize("transports", WAYS.values(), ids=WAYS.keys())
async def test_the_python_client_exchanges_large_bytes(servers: list[Served], transports: list[str]) -> None:
    client = await Client().connect(servers[0].url, transports)
    assert await client.sio.call("message-with-ack", {"deep": [LARGE]}) == {"deep": [LARGE]}
    client.sio.on("question", lambda given: given)
    answer = await servers[0].sio.call("question", LARGE, to=client.sio.get_sid(), timeout=8)
    assert answer == LARGE
    await client.sio.disconnect()


@pytest.mark.parametrize("transports", WAYS.values(), ids=WAYS.keys())
async def test_the_python_client_hears_what_it_missed(
    orchestrator: Orchestrator, http: ClientSession, transports: list[str]
) -> None:
    """Of the whole product: it shows where it was when it comes back, by the `auth` function that it asks each time."""
    owner = await found_company(orchestrator, http)
    await record(orchestrator, payment(owner.tenant_id, uuid4()))
    client = Client(reconnection=True, reconnection_delay=0.02, reconnection_delay_max=0.05, randomization_factor=0)

    def heard() -> list[int]:
        return [body["seq"] for (body,) in client.of("payment:received")]

    def auth() -> dict[str, object]:
        known = [(body["seq"], body["epoch"]) for (body,) in client.of("connected")]
        place = {"last_seq": max([known[0][0], *heard()]), "epoch": known[0][1]} if known else {}
        return {"token": owner.token, **place}

    async with door_to(orchestrator.url) as door:
        await client.connect(door.url, transports, auth=auth)
        await until(lambda: client.of("connected"))
        numbers = await pay(orchestrator, owner.tenant_id, 2)
        await until(lambda: heard() == numbers)
        await door.cut()
        await until(lambda: client.disconnects)
        numbers += await pay(orchestrator, owner.tenant_id, 3)
        await door.restore()
        await until(lambda: len(client.connects) == 2)
        numbers += await pay(orchestrator, owner.tenant_id, 2)
        await until(lambda: len(heard()) >= len(numbers))
        assert heard() == numbers
        assert client.of("rt:reset") == []
        await client.sio.disconnect()
