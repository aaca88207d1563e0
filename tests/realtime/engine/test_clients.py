"""python-socketio's own client, unmodified, against the engine; and two engines joined by its Redis manager."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import socketio
from redis.asyncio import Redis

from realtime.bus import RedisBus
from realtime.emitters import BusBroadcaster
from realtime.engine.server import EngineOptions
from realtime.engine.session import Reason
from realtime.meter import Meter
from tests.realtime.engine.serving import until
from tests.realtime.engine.talking import Served, talking
from tests.support.stores import private_redis

WAYS = {"websocket": ["websocket"], "polling": ["polling"], "upgrade": ["polling", "websocket"]}


class Client:
    """A stock client that remembers what it heard, by namespace."""

    def __init__(self, *namespaces: str, **options: Any) -> None:
        options.setdefault("reconnection", False)
        self.sio = socketio.AsyncClient(**options)
        self.heard: list[tuple[str, str, tuple[Any, ...]]] = []
        self.connects: list[str] = []
        self.disconnects: list[tuple[str, str]] = []
        self.namespaces = namespaces or ("/",)
        for namespace in self.namespaces:
            self._listen(namespace)

    def _listen(self, namespace: str) -> None:
        def everything(event: str, *arguments: Any) -> None:
            self.heard.append((namespace, event, arguments))

        self.sio.on("*", everything, namespace=namespace)
        self.sio.on("connect", lambda: self.connects.append(namespace), namespace=namespace)
        self.sio.on("disconnect", lambda reason: self.disconnects.append((namespace, reason)), namespace=namespace)

    async def connect(self, url: str, transports: list[str], **options: Any) -> "Client":
        await self.sio.connect(url, namespaces=list(self.namespaces), transports=transports, wait_timeout=10, **options)
        return self

    def of(self, event: str, namespace: str = "/") -> list[tuple[Any, ...]]:
        return [arguments for place, name, arguments in self.heard if (place, name) == (namespace, event)]


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[Served]:
    async with talking(EngineOptions(ping_interval_s=0.2, ping_timeout_s=5)) as running:
        yield running


@pytest.fixture(params=list(WAYS.values()), ids=list(WAYS))
async def client(served: Served, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    client = await Client("/", "/custom").connect(served.url, request.param)
    yield client
    await client.sio.disconnect()


async def test_it_connects_by_the_transport_it_asked_for(served: Served, client: Client, request) -> None:
    wanted = "polling" if "polling]" in request.node.name else "websocket"
    assert client.sio.transport() == wanted
    for namespace in ("/", "/custom"):
        assert served.sio.transport(client.sio.get_sid(namespace), namespace=namespace) == wanted
    await until(lambda: len(client.of("auth")) == len(client.of("auth", "/custom")) == 1)


async def test_it_sends_and_hears_and_lives_through_many_heartbeats(served: Served, client: Client) -> None:
    for number in range(3):
        await client.sio.emit("message", ("text", b"\x00\xff", {"deep": [number, b""]}))
        await client.sio.emit("message", number, namespace="/custom")
        await asyncio.sleep(0.25)
    await until(lambda: len(client.of("message-back")) == len(client.of("message-back", "/custom")) == 3)
    assert client.of("message-back") == [("text", b"\x00\xff", {"deep": [n, b""]}) for n in range(3)]
    assert client.of("message-back", "/custom") == [(n,) for n in range(3)]
    assert client.disconnects == []


async def test_each_asks_the_other_and_is_answered(served: Served, client: Client) -> None:
    assert await client.sio.call("message-with-ack", ("x", b"\x01"), timeout=5) == ("x", b"\x01")
    assert await client.sio.call("message-with-ack", "y", namespace="/custom", timeout=5) == "y"
    client.sio.on("question", lambda *arguments: ("answer", *arguments), namespace="/custom")
    sid = client.sio.get_sid("/custom")
    answer = await served.sio.call("question", (1, b"\x02"), to=sid, namespace="/custom", timeout=5)
    assert answer == ("answer", 1, b"\x02")


async def test_many_messages_keep_their_order_both_ways(served: Served, client: Client) -> None:
    for number in range(200):
        await client.sio.emit("message", number)
    await until(lambda: len(client.of("message-back")) == 200)
    assert client.of("message-back") == [(number,) for number in range(200)]


async def test_the_server_puts_it_out_of_one_namespace_and_then_of_all(served: Served, client: Client) -> None:
    custom = client.sio.get_sid("/custom")
    await served.sio.disconnect(custom, namespace="/custom")
    await until(lambda: client.disconnects)
    assert client.disconnects == [("/custom", "server disconnect")]
    assert await client.sio.call("message-with-ack", "still here", timeout=5) == "still here"
    await served.sio.disconnect(client.sio.get_sid())
    await until(lambda: len(client.disconnects) == 2)
    await until(lambda: not client.sio.connected)
    assert served.of("disconnect", custom) == ["server disconnect"]


async def test_it_leaves_and_is_gone(served: Served, client: Client) -> None:
    sids = [client.sio.get_sid(), client.sio.get_sid("/custom")]
    await client.sio.disconnect()
    await until(lambda: all(served.of("disconnect", sid) for sid in sids))
    assert not any(served.broadcaster.is_connected(sid, "/") for sid in sids)


@pytest.mark.parametrize("transports", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("reason", [Reason.TRANSPORT_CLOSE, Reason.OVERFLOW])
async def test_it_comes_back_by_itself(served: Served, transports: list[str], reason: Reason) -> None:
    client = Client(reconnection=True, reconnection_delay=0.02, reconnection_delay_max=0.05, randomization_factor=0)
    await client.connect(served.url, transports, auth={"token": "abc"})
    first = client.sio.get_sid()
    session = served.broadcaster.members["/"][first].session
    session.close(reason)
    await until(lambda: len(client.connects) == 2)
    assert client.sio.get_sid() != first
    assert served.of("connect", client.sio.get_sid()) == [{"token": "abc"}]
    assert await client.sio.call("message-with-ack", "still here", timeout=5) == "still here"
    await client.sio.disconnect()


async def test_it_is_told_why_it_was_refused(served: Served) -> None:
    def refuse(sid, environ, auth) -> None:
        raise socketio.exceptions.ConnectionRefusedError("no", {"code": 7})

    served.sio.on("connect", refuse, namespace="/closed")
    reasons: list[object] = []
    client = Client("/closed")
    client.sio.on("connect_error", reasons.append, namespace="/closed")
    with pytest.raises(socketio.exceptions.ConnectionError):
        await client.connect(served.url, ["websocket"])
    await until(lambda: reasons)
    assert reasons == [{"message": "no", "data": {"code": 7}}]
    await client.sio.disconnect()


async def test_two_servers_and_an_outside_emitter_reach_each_others_sockets(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        port = stack.enter_context(private_redis(tmp_path))
        url, channel = f"redis://127.0.0.1:{port}/0", f"test-{uuid4().hex}"
        servers = []
        for _ in range(2):
            bus = await stack.enter_async_context(running_bus(url))
            servers.append(await stack.enter_async_context(talking(manager=BusBroadcaster(bus, channel=channel))))
        clients = [Client("/custom") for _ in servers]
        for client, server in zip(clients, servers, strict=True):
            await client.connect(server.url, ["websocket"])
            stack.push_async_callback(client.sio.disconnect)
        here, there = servers
        sids = [client.sio.get_sid("/custom") for client in clients]
        await subscribed(url, channel, 2)

        # A socket of the other server enters a room, and the room is one.
        await here.sio.enter_room(sids[0], "room", namespace="/custom")
        await here.sio.enter_room(sids[1], "room", namespace="/custom")
        await until(lambda: "room" in there.sio.rooms(sids[1], namespace="/custom"))
        await there.sio.emit("to the room", ("x", b"\x01"), to="room", namespace="/custom")
        await here.sio.emit("to one", "y", to=sids[1], namespace="/custom")
        await here.sio.emit("to others", skip_sid=sids[0], namespace="/custom")
        await here.sio.emit("here only", "z", namespace="/custom", ignore_queue=True)
        emitter = socketio.AsyncRedisManager(url, channel=channel, write_only=True)
        await emitter.emit("from outside", {"n": 1}, room="room", namespace="/custom")
        await until(lambda: all(client.of("from outside", "/custom") for client in clients))
        for client in clients:
            assert client.of("to the room", "/custom") == [("x", b"\x01")]
            assert client.of("from outside", "/custom") == [({"n": 1},)]
        assert [client.of("to one", "/custom") for client in clients] == [[], [("y",)]]
        assert [client.of("to others", "/custom") for client in clients] == [[], [()]]
        assert [client.of("here only", "/custom") for client in clients] == [[("z",)], []]

        # A question to a socket of the other server comes back with its answer.
        clients[1].sio.on("question", lambda: "answer", namespace="/custom")
        assert await here.sio.call("question", to=sids[1], namespace="/custom", timeout=5) == "answer"

        await here.sio.close_room("room", namespace="/custom")
        await until(lambda: there.sio.rooms(sids[1], namespace="/custom") == [sids[1]])
        await here.sio.disconnect(sids[1], namespace="/custom")
        await until(lambda: clients[1].disconnects)
        assert there.of("disconnect", sids[1]) == ["server disconnect"]
        await emitter.redis.aclose()


@asynccontextmanager
async def running_bus(url: str) -> AsyncIterator[RedisBus]:
    async with Redis.from_url(url) as redis:
        bus = RedisBus(redis, b"a key for tests", listens=True, meter=Meter())
        running = asyncio.create_task(bus.run())
        yield bus
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def subscribed(url: str, channel: str, count: int) -> None:
    async with Redis.from_url(url) as redis, asyncio.timeout(10):
        while dict(await redis.pubsub_numsub(channel)).get(channel.encode(), 0) < count:
            await asyncio.sleep(0.01)
