"""Coming and going: nothing is left behind, races end well, a shutdown waits for nobody, a farewell is cheap."""

import asyncio
import gc
import time
from collections.abc import Iterator
from typing import Any

import pytest
import socketio
from aiohttp import ClientSession, web

from realtime.engine.attach import attach, attach_engine
from realtime.engine.link import Link
from realtime.engine.manager import Broadcaster, Member, client_of
from realtime.engine.probe import Probe
from realtime.engine.server import EngineOptions, EngineServer
from realtime.engine.session import Reason, Session
from realtime.engine.socketio_server import SocketIoServer
from tests.realtime.engine.loops import Run, on_both_loops
from tests.realtime.engine.raw import RawSocket, encoded
from tests.realtime.engine.serving import Echo, Poller, bare, serving, until, within
from tests.realtime.engine.talking import Served, Talker, talking

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


async def test_aiohttp_does_not_count_a_connection_that_was_taken_over() -> None:
    app, echo = web.Application(), Echo()
    attach_engine(app, echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sockets = [await RawSocket.open(f"http://127.0.0.1:{runner.addresses[0][1]}") for _ in range(5)]
    assert len(echo.sessions) == 5
    assert runner.server is not None
    await until(lambda: runner.server and not runner.server.connections)
    begun = time.monotonic()
    await runner.cleanup()
    assert time.monotonic() - begun < 2
    for socket in sockets:
        assert await socket.close_code() == 1001
    assert set(echo.ended.values()) == {Reason.TRANSPORT_CLOSE}


async def test_connections_are_small() -> None:
    # Nothing that a connection keeps has a dictionary of its own attributes.
    for kind in (Session, Link, Probe, Member, type(client_of(Session("x", None)))):  # type: ignore[arg-type]
        assert not hasattr(object.__new__(kind), "__dict__"), kind


# Shutting down


async def test_a_shutdown_frees_every_client_and_waits_for_the_handlers(http: ClientSession) -> None:
    ended: list[str] = []
    async with talking() as served:
        served.sio.on("disconnect", slow_goodbye(ended))
        talker = await Talker.enter(served)
        poller = await Poller(http, served.url, path="socket.io").open()
        poll = asyncio.create_task(poller.get())
        await asyncio.sleep(0.02)
        await served.sio.shutdown()
        assert ended == ["transport close"]
        assert await talker.close_code() == 1001
        # Not a goodbye, after which python-socketio's client would not look for another instance.
        assert await within(2, poll) == (200, "6")
        # Whoever comes now is sent elsewhere.
        async with http.get(f"{served.url}/socket.io/?EIO=4&transport=polling") as response:
            assert response.status == 503
        assert not any(served.leftovers().values())


def slow_goodbye(ended: list[str]) -> Any:
    async def disconnect(sid: str, reason: str) -> None:
        await asyncio.sleep(0.1)
        ended.append(reason)

    return disconnect


async def test_a_shutdown_does_not_wait_for_a_handler_for_ever() -> None:
    async with talking() as served:

        @served.on("hang")
        async def hang(sid) -> None:
            await asyncio.sleep(60)

        talker = await Talker.enter(served)
        talker.send('42["hang"]')
        await asyncio.sleep(0.02)
        begun = time.monotonic()
        await served.sio.engine.shutdown(grace_s=0.1)
        assert time.monotonic() - begun < 2
        assert await talker.close_code() == 1001
        await until(lambda: not served.sio.engine._running)


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


# Races


async def test_a_client_that_leaves_during_its_connect_handler_is_seen_out(http: ClientSession) -> None:
    async with talking(namespaces=("/",)) as served:
        going, log = asyncio.Event(), []

        @served.on("connect", namespace="/slow")
        async def connect(sid, environ, auth) -> None:
            await going.wait()
            await served.sio.enter_room(sid, "room", namespace="/slow")
            await served.sio.emit("hello", to=sid, namespace="/slow")
            log.append("connect")

        served.sio.on("disconnect", lambda sid, reason: log.append(reason), namespace="/slow")
        served.sio.on("event", lambda sid: log.append("event"), namespace="/slow")
        talker = await Talker.enter(served, "")
        talker.send("40/slow")
        talker.send('42/slow,["event"]')
        await asyncio.sleep(0.02)
        await talker.drop()
        await until(lambda: not served.sio.engine.sessions)
        assert log == []
        going.set()
        await until(lambda: len(log) == 3)
        # As the client did it: it came, spoke, and left.
        assert log == ["connect", "event", "transport close"]
        await until(lambda: not served.broadcaster.members)
        assert not served.broadcaster._rooms
        assert not served.sio.environ


@pytest.mark.parametrize("way", ["refused", "cancelled"])
async def test_a_client_that_leaves_while_it_is_being_refused_is_forgotten(way: str) -> None:
    async with talking(namespaces=("/",)) as served:
        going = asyncio.Event()

        class Gate(socketio.AsyncNamespace):  # type: ignore[misc]
            async def trigger_event(self, event, *arguments) -> bool:
                assert event == "connect"
                await going.wait()
                if way == "cancelled":
                    raise asyncio.CancelledError
                return False

        served.sio.register_namespace(Gate("/gate"))
        talker = await Talker.enter(served, "")
        talker.send("40/gate")
        await until(lambda: "/gate" in served.broadcaster.members)
        if way == "refused":
            await talker.drop()
        going.set()
        if way == "cancelled":
            # Nobody is let in by a handler that came to no end.
            assert await talker.close_code() == 1000
        await until(lambda: not served.broadcaster.members)
        await until(lambda: not served.sio.environ)


async def test_a_socket_put_out_while_its_connection_ends_leaves_once() -> None:
    async with talking(namespaces=("/",)) as served:
        log: list[str] = []
        served.sio.on("disconnect", slow_goodbye(log))
        talker = await Talker.enter(served)
        (sid,) = served.broadcaster.members["/"]
        putting_out = asyncio.create_task(served.sio.disconnect(sid))
        await asyncio.sleep(0.02)
        await served.sio.emit("unheard", to=sid)
        talker.send('421["message-with-ack"]')
        assert await talker.message() == "41"
        assert await talker.says_nothing()
        await talker.drop()
        await putting_out
        await until(lambda: not any(served.broadcaster.members))
        assert log == ["server disconnect"]


async def test_a_session_ends_once() -> None:
    async with bare() as engine:
        socket = await RawSocket.open(engine.url)
        await socket.message()
        session = engine.session
        session.close(Reason.SERVER)
        session.close(Reason.OVERFLOW)
        session.on_link_lost()
        session.on_text("4unheard")
        session.on_packet("3", "")
        session.beat()
        session.send("4unsaid")
        assert await socket.close_code() == 1000
        await until(lambda: engine.echo.ended)
        assert engine.echo.ended == {session.sid: Reason.SERVER}
        assert engine.echo.heard == {}


@pytest.mark.parametrize("fault", [RuntimeError("not today"), asyncio.CancelledError()])
async def test_a_listener_that_fails_costs_its_session_and_no_other(fault: BaseException) -> None:
    class Failing(Echo):
        async def on_message(self, session, message) -> None:
            if message == "fail":
                raise fault
            await super().on_message(session, message)

    async with bare(echo=Failing()) as engine:
        one, other = [await RawSocket.open(engine.url) for _ in range(2)]
        for socket in (one, other):
            await socket.message()
            socket.send("4hello")
            assert await socket.message() == "4hello"
        one.send("4fail")
        assert await one.close_code() == 1000
        await until(lambda: len(engine.echo.ended) == 1)
        other.send("4still here")
        assert await other.message() == "4still here"
        await other.drop()


# A farewell is cheap


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


async def test_a_server_may_be_attached_at_several_paths(http: ClientSession) -> None:
    app = web.Application()
    attach(app, paths=("socket.io", "/ws/socket.io/"))
    async with serving(app) as url:
        for path in ("socket.io", "ws/socket.io"):
            await Poller(http, url, path=path).open()
