"""How connections end: a shutdown waits for nobody for ever, and races end well."""

import asyncio
import time
from typing import Any

import pytest
import socketio
from aiohttp import ClientSession

from realtime.engine.session import Reason
from tests.realtime.engine.raw import RawSocket
from tests.realtime.engine.serving import Echo, Poller, bare, within
from tests.realtime.engine.talking import Talker, talking
from tests.support.waiting import until

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


def slow_goodbye(ended: list[str]) -> Any:
    async def disconnect(sid: str, reason: str) -> None:
        await asyncio.sleep(0.1)
        ended.append(reason)

    return disconnect


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
