"""Coming and going: nothing is left behind of a connection, it is small, and a farewell is cheap.

How connections end, on purpose and by chance, is in `test_endings.py`.
"""

import asyncio
import gc
import time
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import ClientSession, web
from pytest_aiohttp.plugin import AiohttpClient, AiohttpServer

from realtime.engine.attach import attach, attach_engine
from realtime.engine.link import Link
from realtime.engine.manager import Broadcaster, Member, client_of
from realtime.engine.probe import Probe
from realtime.engine.server import EngineOptions, EngineServer
from realtime.engine.session import Reason, Session
from realtime.engine.socketio_server import SocketIoServer
from tests.realtime.engine.loops import Run, on_both_loops
from tests.realtime.engine.raw import RawSocket, encoded
from tests.realtime.engine.serving import Echo, Poller
from tests.realtime.engine.talking import Served, Talker, talking
from tests.support.waiting import until

FLEETING = EngineOptions(ping_interval_s=0.2, ping_timeout_s=0.2, upgrade_timeout_s=0.2)


# Nothing is left


async def by_websocket(served: Served, http: ClientSession) -> None:
    talker = await Talker.enter(served)
    sid = await talker.join("40/custom")
    await served.sio.enter_room(sid, "room", namespace="/custom")
    await served.sio.emit("ask", to=sid, namespace="/custom", callback=print)
    talker.send('452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]')
    talker.send(b"the other attachment never comes")
    await talker.message()
    await talker.drop()


async def by_polling(served: Served, http: ClientSession) -> None:
    poller = await Poller(http, served.url, path="socket.io").open()
    await poller.post("40")
    await poller.get()
    await poller.post("1")


async def by_polling_forgotten(served: Served, http: ClientSession) -> None:
    poller = await Poller(http, served.url, path="socket.io").open()
    await poller.post('40\x1e42["message","x"]')


async def by_polling_put_out(served: Served, http: ClientSession) -> None:
    poller = await Poller(http, served.url, path="socket.io").open()
    await served.sio.eio.disconnect(poller.sid)


async def by_upgrade(served: Served, http: ClientSession) -> None:
    poller = await Poller(http, served.url, path="socket.io").open()
    socket = await RawSocket.open(served.url, path="socket.io", sid=poller.sid)
    socket.send("2probe")
    await socket.message()
    socket.send("5")
    socket.send("40")
    await socket.message()
    await socket.drop()


async def by_upgrade_given_up(served: Served, http: ClientSession) -> None:
    poller = await Poller(http, served.url, path="socket.io").open()
    socket = await RawSocket.open(served.url, path="socket.io", sid=poller.sid)
    socket.send("2probe")
    await socket.drop()


async def by_refusal(served: Served, http: ClientSession) -> None:
    talker = await Talker.enter(served, "")
    for packet in ("40/random", "40/closed"):
        talker.send(packet)
        assert str(await talker.message()).startswith("44/")
    await talker.drop()


async def by_nonsense(served: Served, http: ClientSession) -> None:
    talker = await Talker.enter(served)
    talker.send("4abc")
    await talker.close_code()


async def by_half_a_handshake(served: Served, http: ClientSession) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", int(served.url.rsplit(":", 1)[1]))
    writer.write(b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: webso")
    writer.close()
    await writer.wait_closed()


async def by_leaving_before_the_answer(served: Served, http: ClientSession) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", int(served.url.rsplit(":", 1)[1]))
    writer.write(
        b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    await writer.drain()
    writer.transport.abort()


WAYS = [
    by_websocket,
    by_polling,
    by_polling_forgotten,
    by_polling_put_out,
    by_upgrade,
    by_upgrade_given_up,
    by_refusal,
    by_nonsense,
    by_half_a_handshake,
    by_leaving_before_the_answer,
]


async def test_nothing_is_left_of_five_hundred_connections(http: ClientSession) -> None:
    async with talking(FLEETING, connect_timeout_s=0.3) as served:
        served.sio.on("connect", lambda *_: False, namespace="/closed")
        for _ in range(50):
            await asyncio.gather(*(way(served, http) for way in WAYS))
        await until(lambda: not any(served.leftovers().values()), 5)
        assert served.leftovers() == dict.fromkeys(served.leftovers(), 0)
        assert served.broadcaster.eio_to_sid == served.broadcaster.rooms == {}
        await until(lambda: not kept(served.sio.engine), 5)
        connects, disconnects = served.of("connect"), served.of("disconnect")
        assert len(connects) == len(disconnects) >= 250
    assert our_tasks() == set()


def kept(engine: EngineServer) -> list[object]:
    """Return what the collector still finds of an engine's connections."""
    gc.collect()
    found = gc.get_objects()
    sessions = [thing for thing in found if type(thing) is Session and thing._host is engine]
    links = [thing for thing in found if type(thing) is Link and thing._flusher is engine._flusher]
    others = [thing for thing in found if type(thing) is Member and thing.session._host is engine]
    return [*sessions, *links, *others]


def our_tasks() -> set[str]:
    codes = {getattr(task.get_coro(), "cr_code", None) for task in asyncio.all_tasks()}
    return {code.co_qualname for code in codes if code is not None and "/realtime/engine/" in code.co_filename} - {
        asyncio.current_task().get_coro().cr_code.co_qualname  # type: ignore[union-attr]
    }


@on_both_loops
def test_the_whole_life_of_a_server(run: Run) -> None:
    async def scenario() -> None:
        async with ClientSession() as http, talking(FLEETING) as served:
            talker = await Talker.enter(served)
            talker.send('421["message-with-ack",{"x":[1.5]}]')
            assert await talker.message() == '431[{"x":[1.5]}]'
            for way in (by_websocket, by_polling, by_upgrade, by_refusal, by_nonsense, by_leaving_before_the_answer):
                if way is not by_refusal:
                    await way(served, http)
            broken = await Talker.enter(served)
            broken.raw(encoded(11))
            assert await broken.close_code() == 1002
            # Still here after several heartbeats, which `message` answers.
            for _ in range(3):
                await asyncio.sleep(0.15)
                talker.send('42["message"]')
                assert await talker.message() == '42["message-back"]'
            await served.sio.shutdown()
            assert await talker.close_code() == 1001
            await until(lambda: not any(served.leftovers().values()))

    run(scenario)


async def test_aiohttp_does_not_count_a_connection_that_was_taken_over(aiohttp_server: AiohttpServer) -> None:
    app, echo = web.Application(), Echo()
    attach_engine(app, echo)
    server = await aiohttp_server(app)
    sockets = [await RawSocket.open(f"http://127.0.0.1:{server.port}") for _ in range(5)]
    assert len(echo.sessions) == 5
    assert server.runner is not None
    counting = server.runner.server
    assert counting is not None
    await until(lambda: not counting.connections)
    begun = time.monotonic()
    await server.close()
    assert time.monotonic() - begun < 2
    for socket in sockets:
        assert await socket.close_code() == 1001
    assert set(echo.ended.values()) == {Reason.TRANSPORT_CLOSE}


async def test_a_server_may_be_attached_at_several_paths(aiohttp_client: AiohttpClient) -> None:
    app = web.Application()
    attach(app, paths=("socket.io", "/ws/socket.io/"))
    client = await aiohttp_client(app)
    for path in ("/socket.io/", "/ws/socket.io/"):
        response = await client.get(path, params={"EIO": "4", "transport": "polling"})
        assert response.status == 200
        assert (await response.text()).startswith('0{"sid":')


# A farewell is cheap


async def test_connections_are_small() -> None:
    # Nothing that a connection keeps has a dictionary of its own attributes.
    for kind in (Session, Link, Probe, Member, type(client_of(Session("x", None)))):  # type: ignore[arg-type]
        assert not hasattr(object.__new__(kind), "__dict__"), kind


class Untraversed(dict[Any, Any]):
    """A dictionary that may be asked but not walked through; it counts how often it is asked."""

    asked = 0

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("walked through")

    keys = values = items = __iter__  # type: ignore[assignment]

    def get(self, *arguments: Any) -> Any:
        self.asked += 1
        return super().get(*arguments)

    def pop(self, *arguments: Any) -> Any:
        self.asked += 1
        return super().pop(*arguments)


@pytest.mark.parametrize("others", [10, 2_000])
async def test_leaving_costs_only_ones_own_rooms(others: int) -> None:
    broadcaster = Broadcaster()
    server = SocketIoServer(broadcaster, EngineOptions())
    sids: list[str] = []
    for number in range(others):
        session = Session(f"session {number}", server.engine)
        server.engine.sessions[session.sid] = session
        sid = await broadcaster.pre_connect(session.sid, "/")
        assert sid is not None
        sids.append(sid)
        await broadcaster.connect(sid, "/")
        for room in ("all", f"room {number}", f"half {number % 2}"):
            await broadcaster.enter_room(sid, "/", room)
    broadcaster._rooms = rooms = Untraversed(broadcaster._rooms)
    broadcaster.members["/"] = members = Untraversed(broadcaster.members["/"])
    await broadcaster.disconnect(sids[3], "/")
    assert rooms.asked == 3
    assert members.asked <= 2
    assert broadcaster.get_rooms(sids[3], "/") == []
    assert ("/", "room 3") not in dict.fromkeys(dict.keys(rooms))
