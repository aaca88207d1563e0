"""Socket.IO 5 as its protocol document and its public conformance suite have it, and a little beyond: namespaces.

The events are in `test_socketio_events.py`, and what is no packet at all in `test_socketio_bad_input.py`.
"""

import asyncio
import json

import pytest
import socketio
from aiohttp import ClientSession, web
from pytest_aiohttp.plugin import AiohttpServer
from socketio.exceptions import ConnectionRefusedError as Refused

from realtime.engine.attach import attach
from realtime.engine.server import EngineOptions
from tests.realtime.engine.serving import QUICK, within
from tests.realtime.engine.talking import Served, Talker, talking
from tests.support.waiting import until

# Connect


@pytest.mark.parametrize(
    ("packet", "head", "auth"),
    [
        ("40", "40", {}),
        ("40/", "40", {}),
        ("40/,", "40", {}),
        ('40{"token":"123"}', "40", {"token": "123"}),
        ("40/custom", "40/custom,", {}),
        ("40/custom,", "40/custom,", {}),
        ('40/custom,{"token":"abc"}', "40/custom,", {"token": "abc"}),
        ('40/custom?a=b,{"token":"abc"}', "40/custom,", {"token": "abc"}),
    ],
)
async def test_a_namespace_lets_in(stranger: Talker, packet: str, head: str, auth: dict[str, str]) -> None:
    stranger.send(packet)
    answer = str(await stranger.message())
    assert answer.startswith(head + "{")
    told = json.loads(answer[len(head) :])
    assert list(told) == ["sid"]
    assert isinstance(told["sid"], str)
    greeting = str(await stranger.message())
    assert greeting == f"42{head[2:]}" + json.dumps(["auth", auth], separators=(",", ":"))


@pytest.mark.parametrize("packet", ["40/random", "40/random,", '40/random,{"token":"abc"}'])
async def test_an_unknown_namespace_is_refused_and_the_connection_stays(stranger: Talker, packet: str) -> None:
    stranger.send(packet)
    assert await stranger.message() == '44/random,{"message":"Invalid namespace"}'
    assert await stranger.join()


async def test_the_main_namespace_is_there_without_any_handler(aiohttp_server: AiohttpServer) -> None:
    app = web.Application()
    attach(app)
    server = await aiohttp_server(app)
    talker = await Talker.open(f"http://127.0.0.1:{server.port}", path="socket.io")
    await talker.message()
    talker.send("40")
    assert str(await talker.message()).startswith('40{"sid":')
    await talker.drop()


@pytest.mark.parametrize("before", ["nothing", "a refusal"])
async def test_whoever_enters_no_namespace_is_put_out(before: str) -> None:
    async with talking(EngineOptions(ping_interval_s=0.4, ping_timeout_s=5), connect_timeout_s=0.2) as served:
        talker = await Talker.enter(served, "")
        if before == "a refusal":
            talker.send("40/random")
            await talker.message()
        assert await within(2, talker.close_code()) == 1000


async def test_whoever_has_been_in_a_namespace_may_stay() -> None:
    async with talking(QUICK, connect_timeout_s=0.2) as served:
        talker = await Talker.enter(served)
        talker.send("41")
        for _ in range(3):
            assert await within(2, talker.message(pings=True)) == "2"
            talker.send("3")
        await talker.drop()


async def test_what_the_connect_handler_says_follows_the_answer(http: ClientSession) -> None:
    async with talking(namespaces=("/",)) as served:
        sio = served.sio

        @served.on("connect", namespace="/slow")
        async def connect(sid, environ, auth) -> None:
            await sio.enter_room(sid, "room", namespace="/slow")
            await sio.emit("one", to=sid, namespace="/slow")
            await asyncio.sleep(0.05)
            await sio.emit("two", ("x", b"\x01"), to="room", namespace="/slow")
            await sio.emit("three", callback=print, to=sid, namespace="/slow")

        talker = await Talker.enter(served, "")
        talker.send("40/slow")
        await asyncio.sleep(0.02)
        await sio.emit("everybody", namespace="/slow")
        answer = str(await talker.message())
        assert answer.startswith('40/slow,{"sid":')
        heard = [await talker.message() for _ in range(5)]
        assert heard == [
            '42/slow,["one"]',
            '42/slow,["everybody"]',
            '451-/slow,["two","x",{"_placeholder":true,"num":0}]',
            b"\x01",
            '42/slow,1["three"]',
        ]
        await talker.drop()


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        (False, {"message": "Connection rejected by server"}),
        (Refused("no", {"code": 7, "why": ["x"]}), {"message": "no", "data": {"code": 7, "why": ["x"]}}),
        (Refused("no"), {"message": "no"}),
        (RuntimeError("the store is down"), {"message": "Internal error"}),
        (ConnectionRefusedError("the store is down"), {"message": "Internal error"}),
    ],
)
async def test_a_refusal_says_why_and_leaves_nothing(served: Served, stranger: Talker, refusal, told) -> None:
    @served.on("connect", namespace="/closed")
    async def connect(sid, environ, auth) -> bool:
        await served.sio.enter_room(sid, "room", namespace="/closed")
        await served.sio.emit("secret", to=sid, namespace="/closed")
        if isinstance(refusal, Exception):
            raise refusal
        return refusal

    stranger.send("40/closed,{}")
    answer = str(await stranger.message())
    assert answer.startswith("44/closed,")
    assert json.loads(answer.removeprefix("44/closed,")) == told
    await served.sio.emit("secret", namespace="/closed")
    await served.sio.emit("secret", to="room", namespace="/closed")
    assert await stranger.join()
    assert "/closed" not in served.broadcaster.members
    assert ("/closed", "room") not in served.broadcaster._rooms


async def test_handlers_of_the_older_form_are_called_without_auth(served: Served, stranger: Talker) -> None:
    called = []
    served.sio.on("connect", lambda sid, environ: called.append(environ), namespace="/old")

    class Old(socketio.AsyncNamespace):  # type: ignore[misc]
        async def on_connect(self, sid, environ) -> None:
            called.append(environ)

        async def on_disconnect(self, sid) -> None:
            called.append(sid)

    served.sio.register_namespace(Old("/old/class"))
    stranger.send("40/old")
    stranger.send("40/old/class")
    assert str(await stranger.message()).startswith("40/old,")
    assert str(await stranger.message()).startswith("40/old/class,")
    stranger.send("41/old/class")
    await until(lambda: len(called) == 3)
    assert called[0]["REMOTE_ADDR"] == "127.0.0.1"


async def test_a_handler_may_ask_about_the_handshake_and_nothing_else_is_kept(served: Served, talker: Talker) -> None:
    other = await Talker.open(
        served.url,
        path="socket.io",
        query="EIO=4&transport=websocket&token=abc",
        headers="Authorization: Bearer xyz\r\nX-Large: " + "x" * 4_000 + "\r\n",
    )
    assert str(await other.message())[0] == "0"
    sid = await other.join()
    assert served.sio.get_environ(sid) == {
        "QUERY_STRING": "EIO=4&transport=websocket&token=abc",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_AUTHORIZATION": "Bearer xyz",
    }
    await other.drop()


# Disconnect


async def test_leaving_the_main_namespace_keeps_the_connection() -> None:
    async with talking(QUICK) as served:
        talker = await Talker.enter(served)
        talker.send("41")
        assert await within(2, talker.message(pings=True)) == "2"
        await until(lambda: served.of("disconnect"))
        assert served.of("disconnect") == ["client disconnect"]
        talker.send("3")
        assert await talker.join()
        await talker.drop()


async def test_one_namespace_may_be_left_while_another_goes_on(served: Served, talker: Talker) -> None:
    sid = await talker.join("40/custom")
    talker.send("41/custom")
    talker.send('42["message","message to main namespace"]')
    assert await talker.message() == '42["message-back","message to main namespace"]'
    await until(lambda: served.of("disconnect", sid))
    assert await talker.join("40/custom,") != sid


async def test_the_server_may_put_a_socket_out(served: Served, talker: Talker) -> None:
    sid = await talker.join("40/custom")
    await served.sio.disconnect(sid, namespace="/custom")
    await served.sio.disconnect(sid, namespace="/custom")
    assert await talker.message() == "41/custom,"
    assert served.of("disconnect", sid) == ["server disconnect"]
    assert await talker.join("40/custom")
