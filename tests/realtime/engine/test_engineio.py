"""Engine.IO 4 as its protocol document and its public conformance suite have it, and a little beyond: words.

How sessions live and end is in `test_engineio_heartbeat.py`, how they change transport in `test_engineio_upgrade.py`.
"""

import asyncio
import json

import pytest
from aiohttp import ClientSession

from realtime.engine.server import EngineOptions
from realtime.engine.session import Reason
from tests.realtime.engine.answers import BAD_REQUEST, NOBODY
from tests.realtime.engine.raw import RawSocket
from tests.realtime.engine.serving import Bare, Echo, Poller, bare, within
from tests.support.waiting import until

# Handshake


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_a_handshake_tells_the_times_and_sizes_as_they_are(
    http: ClientSession, quick: Bare, transport: str
) -> None:
    if transport == "polling":
        async with http.get(f"{quick.url}/engine.io/?EIO=4&transport=polling") as response:
            assert response.status == 200
            assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
            packet = await response.text()
    else:
        socket = await RawSocket.open(quick.url)
        packet = str(await socket.message())
        await socket.drop()
    assert packet[0] == "0"
    greeting = json.loads(packet[1:])
    assert greeting == {
        "sid": quick.session.sid,
        "upgrades": ["websocket"] if transport == "polling" else [],
        "pingInterval": 300,
        "pingTimeout": 200,
        "maxPayload": 1_000_000,
    }


@pytest.mark.parametrize("method", ["GET", "websocket"])
@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("transport={}", 5),
        ("EIO=abc&transport={}", 5),
        ("EIO=3&transport={}", 5),
        ("EIO=4", 0),
        ("EIO=4&transport=abc", 0),
        ("EIO=4&transport={}&sid=unknown", 1),
    ],
)
async def test_a_query_that_is_wrong_is_refused(
    http: ClientSession, eio: Bare, method: str, query: str, code: int
) -> None:
    if method == "websocket":
        socket = await RawSocket.open(eio.url, query=query.format("websocket"))
        assert socket.answer.startswith("HTTP/1.1 400 ")
        await socket.drop()
        return
    async with http.get(f"{eio.url}/engine.io/?{query.format('polling')}") as response:
        assert response.status == 400
        assert (await response.json())["code"] == code


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD"])
async def test_a_session_begins_with_a_get(http: ClientSession, eio: Bare, method: str) -> None:
    async with http.request(method, f"{eio.url}/engine.io/?EIO=4&transport=polling") as response:
        assert response.status == 400
        assert method == "HEAD" or await response.json() == {"code": 2, "message": "Bad handshake method"}


async def test_a_websocket_session_needs_a_websocket(http: ClientSession, eio: Bare) -> None:
    async with http.get(f"{eio.url}/engine.io/?EIO=4&transport=websocket") as response:
        assert (response.status, await response.text()) == (400, BAD_REQUEST)


async def test_a_session_has_no_other_methods(http: ClientSession, eio: Bare, poller: Poller) -> None:
    url = f"{eio.url}/engine.io/"
    async with http.put(url, params=poller.query, data="4hello") as response:
        assert response.status == 400
    assert await poller.post("4hello") == (200, "ok")


async def test_what_is_said_at_the_opening_follows_the_handshake(http: ClientSession) -> None:
    class Polite(Echo):
        def on_open(self, session, request) -> None:
            session.send("4welcome")

    async with bare(echo=Polite()) as engine:
        assert await (await Poller(http, engine.url).open()).get() == (200, "4welcome")
        socket = await RawSocket.open(engine.url)
        assert str(await socket.message())[0] == "0"
        assert await socket.message() == "4welcome"
        await socket.drop()


async def test_a_listener_that_fails_at_the_opening_leaves_no_session(http: ClientSession) -> None:
    class Rude(Echo):
        def on_open(self, session, request) -> None:
            raise RuntimeError("not today")

    async with bare(echo=Rude()) as engine:
        poller = await Poller(http, engine.url).open()
        assert await poller.get() == (400, NOBODY)
        socket = await RawSocket.open(engine.url)
        assert await socket.close_code() == 1000
        assert engine.server.sessions == {}


# Messages


@pytest.mark.parametrize(
    "payload",
    ["4hello", "4", "4one\x1e4two\x1e4three", "4hello\x1ebAQIDBA==", "b\x1ebAA==", "4grüße\x1e4\u2028"],
)
async def test_messages_come_back_in_one_payload(poller: Poller, payload: str) -> None:
    assert await poller.post(payload) == (200, "ok")
    assert await within(5, poller.get()) == (200, payload)


async def test_many_messages_come_in_payloads_that_every_client_takes(eio: Bare, poller: Poller) -> None:
    # python-engineio's client gives up at a payload of more than 16 packets.
    for number in range(40):
        eio.session.send(f"4{number}")
    payloads = [(await within(5, poller.get()))[1] for _ in range(3)]
    assert [payload.count("\x1e") + 1 for payload in payloads] == [16, 16, 8]
    assert "\x1e".join(payloads).split("\x1e") == [f"4{number}" for number in range(40)]


async def test_a_waiting_poll_gets_the_first_message_at_once(poller: Poller) -> None:
    waiting = asyncio.create_task(poller.get())
    await asyncio.sleep(0.02)
    assert await poller.post("4hello") == (200, "ok")
    assert await within(5, waiting) == (200, "4hello")


@pytest.mark.parametrize(
    "body",
    ["abc", "", "4ok\x1e", "7", "4ok\x1eb===", "bé", b"4\xff", "9\x1e4ok"],
    ids=["no packet", "nothing", "empty packet", "unknown type", "no base64", "no ASCII", "no letters", "first of two"],
)
async def test_a_payload_that_is_none_ends_the_session(eio: Bare, poller: Poller, body: str | bytes) -> None:
    assert await poller.post(body) == (400, BAD_REQUEST)
    assert await poller.get() == (400, NOBODY)
    await until(lambda: poller.sid in eio.echo.ended)
    assert eio.echo.ended[poller.sid] is Reason.TRANSPORT_ERROR


@pytest.mark.parametrize("packet", ["0", "2", "5", "6"])
async def test_packets_that_only_a_server_sends_end_the_session(poller: Poller, packet: str) -> None:
    await poller.post(packet)
    assert await poller.get() == (400, NOBODY)


@pytest.mark.parametrize("body", ["4" + "x" * 1_000_000, b"4" + b"\xff" * 1_000_000])
async def test_a_payload_that_is_too_big_ends_the_session(poller: Poller, body: str | bytes) -> None:
    status, _ = await poller.post(body)
    assert status == 413
    assert await poller.get() == (400, NOBODY)


async def test_the_biggest_payload_is_let_through(poller: Poller) -> None:
    biggest = "4" + "x" * 999_999
    assert await poller.post(biggest) == (200, "ok")
    assert await within(5, poller.get()) == (200, biggest)


async def test_of_two_polls_at_once_the_first_is_told_and_the_second_refused(eio: Bare, poller: Poller) -> None:
    first = asyncio.create_task(poller.get())
    await until(lambda: eio.session.polling and eio.session.polling.poll)
    assert await poller.get() == (400, BAD_REQUEST)
    assert await within(5, first) == (200, "1")
    assert await poller.get() == (400, NOBODY)


@pytest.mark.parametrize("cancelling", [False, True], ids=["as aiohttp is by default", "with handler_cancellation"])
async def test_a_poll_that_was_cancelled_ends_the_session(http: ClientSession, cancelling: bool) -> None:
    echo = Echo()
    async with bare(echo=echo, handler_cancellation=cancelling) as engine:
        poller = await Poller(http, engine.url).open()
        waiting = asyncio.create_task(poller.get())
        await until(lambda: engine.session.polling and engine.session.polling.poll)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        status, _ = await poller.get()
        assert status == 400
        await until(lambda: poller.sid in echo.ended)
        assert engine.server.sessions == {}


async def test_a_poll_that_is_repeated_ends_the_session(http: ClientSession, eio: Bare, poller: Poller) -> None:
    """HTTP libraries ask once more when an answer breaks off, and what it held would be lost."""
    url = f"{eio.url}/engine.io/?EIO=4&transport=polling&sid={poller.sid}"
    for stamp, text in (("1", "one"), ("2", "two")):
        await poller.post(f"4{text}")
        async with http.get(f"{url}&t={stamp}") as response:
            assert (response.status, await response.text()) == (200, f"4{text}")
    await poller.post("4three")
    async with http.get(f"{url}&t=2") as response:
        assert (response.status, await response.text()) == (400, BAD_REQUEST)
    await until(lambda: poller.sid in eio.echo.ended)
    assert eio.echo.ended[poller.sid] is Reason.TRANSPORT_CLOSE


async def test_a_post_cut_off_in_the_middle_ends_the_session(eio: Bare, poller: Poller) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", int(eio.url.rsplit(":", 1)[1]))
    target = f"/engine.io/?EIO=4&transport=polling&sid={poller.sid}"
    writer.write(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n4half".encode())
    await writer.drain()
    await asyncio.sleep(0.02)
    writer.close()
    await writer.wait_closed()
    await until(lambda: poller.sid in eio.echo.ended)
    assert eio.echo.heard.get(poller.sid) is None


async def test_websocket_text_and_binary_come_back(eio: Bare) -> None:
    socket = await RawSocket.open(eio.url)
    await socket.message()
    socket.send("4hello")
    socket.send(b"\x01\x02\x03\x04")
    assert await socket.message() == "4hello"
    assert await socket.message() == b"\x01\x02\x03\x04"
    await socket.drop()


@pytest.mark.parametrize("packet", ["abc", "", "7", "2", "6", "5"])
async def test_a_websocket_message_that_is_no_packet_closes_the_session(eio: Bare, packet: str) -> None:
    socket = await RawSocket.open(eio.url)
    await socket.message()
    sid = eio.session.sid
    socket.send(packet)
    assert await socket.close_code() == 1000
    await until(lambda: sid in eio.echo.ended)
    assert eio.echo.ended[sid] is Reason.TRANSPORT_ERROR


# Origins


async def test_origins_that_are_not_allowed_are_kept_out(http: ClientSession) -> None:
    async with bare(EngineOptions(origins=("https://shop.test",))) as engine:
        url = f"{engine.url}/engine.io/?EIO=4&transport=polling"
        host = engine.url.removeprefix("http://")
        expected = {"https://shop.test": 200, f"http://{host}": 200, "https://evil.test": 403, "http://[": 403}
        for origin, status in expected.items():
            async with http.get(url, headers={"Origin": origin}) as response:
                assert response.status == status
                allowed = response.headers.get("Access-Control-Allow-Origin")
                assert allowed == (origin if status == 200 else None)
            socket = await RawSocket.open(engine.url, headers=f"Origin: {origin}\r\n")
            assert socket.answer.startswith("HTTP/1.1 101 ") == (status == 200)
            await socket.drop()
        asked = {"Origin": "https://shop.test", "Access-Control-Request-Headers": "x-token"}
        async with http.options(url, headers=asked) as response:
            assert response.status == 204
            assert response.headers["Access-Control-Allow-Headers"] == "x-token"
            assert response.headers["Vary"] == "Origin"
