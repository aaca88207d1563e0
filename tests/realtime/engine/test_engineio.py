"""Engine.IO 4 as its protocol document and its public conformance suite have it, and a little beyond."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession

from realtime.engine.server import EngineOptions
from realtime.engine.session import Reason
from tests.realtime.engine.raw import RawSocket, encoded
from tests.realtime.engine.serving import QUICK, Bare, Echo, Poller, bare, until, within

NOBODY = json.dumps({"code": 1, "message": "Session ID unknown"}, separators=(",", ":"))
BAD_REQUEST = json.dumps({"code": 3, "message": "Bad request"}, separators=(",", ":"))


@pytest.fixture(scope="module")
async def engine() -> AsyncIterator[Bare]:
    """With times in which no ping disturbs."""
    async with bare() as running:
        yield running


@pytest.fixture
async def quick() -> AsyncIterator[Bare]:
    async with bare(QUICK) as running:
        yield running


@pytest.fixture
async def poller(http: ClientSession, engine: Bare) -> Poller:
    return await Poller(http, engine.url).open()


async def hurried(http: ClientSession, quick: Bare) -> Poller:
    return await Poller(http, quick.url).open()


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
    http: ClientSession, engine: Bare, method: str, query: str, code: int
) -> None:
    if method == "websocket":
        socket = await RawSocket.open(engine.url, query=query.format("websocket"))
        assert socket.answer.startswith("HTTP/1.1 400 ")
        await socket.drop()
        return
    async with http.get(f"{engine.url}/engine.io/?{query.format('polling')}") as response:
        assert response.status == 400
        assert (await response.json())["code"] == code


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD"])
async def test_a_session_begins_with_a_get(http: ClientSession, engine: Bare, method: str) -> None:
    async with http.request(method, f"{engine.url}/engine.io/?EIO=4&transport=polling") as response:
        assert response.status == 400
        assert method == "HEAD" or await response.json() == {"code": 2, "message": "Bad handshake method"}


async def test_a_websocket_session_needs_a_websocket(http: ClientSession, engine: Bare) -> None:
    async with http.get(f"{engine.url}/engine.io/?EIO=4&transport=websocket") as response:
        assert (response.status, await response.text()) == (400, BAD_REQUEST)


async def test_a_session_has_no_other_methods(http: ClientSession, engine: Bare, poller: Poller) -> None:
    url = f"{engine.url}/engine.io/"
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


async def test_many_messages_come_in_payloads_that_every_client_takes(engine: Bare, poller: Poller) -> None:
    # python-engineio's client gives up at a payload of more than 16 packets.
    for number in range(40):
        engine.session.send(f"4{number}")
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
async def test_a_payload_that_is_none_ends_the_session(engine: Bare, poller: Poller, body: str | bytes) -> None:
    assert await poller.post(body) == (400, BAD_REQUEST)
    assert await poller.get() == (400, NOBODY)
    await until(lambda: poller.sid in engine.echo.ended)
    assert engine.echo.ended[poller.sid] is Reason.TRANSPORT_ERROR


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


async def test_of_two_polls_at_once_the_first_is_told_and_the_second_refused(engine: Bare, poller: Poller) -> None:
    first = asyncio.create_task(poller.get())
    await until(lambda: engine.session.polling and engine.session.polling.poll)
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


async def test_a_post_cut_off_in_the_middle_ends_the_session(engine: Bare, poller: Poller) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", int(engine.url.rsplit(":", 1)[1]))
    target = f"/engine.io/?EIO=4&transport=polling&sid={poller.sid}"
    writer.write(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n4half".encode())
    await writer.drain()
    await asyncio.sleep(0.02)
    writer.close()
    await writer.wait_closed()
    await until(lambda: poller.sid in engine.echo.ended)
    assert engine.echo.heard.get(poller.sid) is None


async def test_websocket_text_and_binary_come_back(engine: Bare) -> None:
    socket = await RawSocket.open(engine.url)
    await socket.message()
    socket.send("4hello")
    socket.send(b"\x01\x02\x03\x04")
    assert await socket.message() == "4hello"
    assert await socket.message() == b"\x01\x02\x03\x04"
    await socket.drop()


@pytest.mark.parametrize("packet", ["abc", "", "7", "2", "6", "5"])
async def test_a_websocket_message_that_is_no_packet_closes_the_session(engine: Bare, packet: str) -> None:
    socket = await RawSocket.open(engine.url)
    await socket.message()
    sid = engine.session.sid
    socket.send(packet)
    assert await socket.close_code() == 1000
    await until(lambda: sid in engine.echo.ended)
    assert engine.echo.ended[sid] is Reason.TRANSPORT_ERROR


# Heartbeat


async def test_a_poller_that_answers_its_pings_lives(http: ClientSession, quick: Bare) -> None:
    poller = await hurried(http, quick)
    for _ in range(3):
        assert await within(2, poller.get()) == (200, "2")
        assert await poller.post("3") == (200, "ok")
    assert poller.sid in quick.server.sessions


async def test_a_websocket_that_answers_its_pings_lives(quick: Bare) -> None:
    socket = await RawSocket.open(quick.url)
    await socket.message()
    for _ in range(3):
        assert await within(2, socket.message(pings=True)) == "2"
        socket.send("3")
    socket.send("4still here")
    assert await socket.message() == "4still here"
    await socket.drop()


async def test_a_silent_poller_is_gone_when_the_times_have_passed(http: ClientSession, quick: Bare) -> None:
    poller = await hurried(http, quick)
    await asyncio.sleep(0.5)
    assert await poller.get() == (400, NOBODY)
    assert quick.echo.ended[poller.sid] is Reason.PING_TIMEOUT


async def test_a_silent_websocket_is_closed_when_the_times_have_passed(quick: Bare) -> None:
    socket = await RawSocket.open(quick.url)
    await asyncio.sleep(0.5)
    assert quick.server.sessions == {}
    assert await socket.close_code() == 1000


async def test_a_waiting_poll_is_freed_by_the_timeout(http: ClientSession, quick: Bare) -> None:
    poller = await hurried(http, quick)
    assert await within(2, poller.get()) == (200, "2")
    assert await within(2, poller.get()) == (200, "6")
    assert await poller.get() == (400, NOBODY)


async def test_pings_keep_their_interval_when_the_timeout_is_longer(http: ClientSession) -> None:
    async with bare(EngineOptions(ping_interval_s=0.1, ping_timeout_s=60)) as engine:
        socket = await RawSocket.open(engine.url)
        await socket.message()
        for _ in range(3):
            assert await within(2, socket.message(pings=True)) == "2"
            socket.send("3")
        await socket.drop()


async def test_answers_nobody_asked_for_do_not_multiply_the_pings() -> None:
    async with bare(EngineOptions(ping_interval_s=0.2, ping_timeout_s=5)) as engine:
        socket = await RawSocket.open(engine.url)
        await socket.message()
        socket.raw(encoded(1, b"3") * 100)
        pings, until_s = 0, asyncio.get_running_loop().time() + 1
        while asyncio.get_running_loop().time() < until_s:
            if await socket.message(pings=True) == "2":
                pings += 1
                socket.raw(encoded(1, b"3") * 100)
        assert pings <= 6
        await socket.drop()


# Closing


async def test_a_goodbye_by_post_frees_the_waiting_poll(http: ClientSession, engine: Bare, poller: Poller) -> None:
    waiting = asyncio.create_task(poller.get())
    await asyncio.sleep(0.02)
    assert await poller.post("1") == (200, "ok")
    assert await within(5, waiting) == (200, "6")
    assert await poller.get() == (400, NOBODY)
    assert engine.echo.ended[poller.sid] is Reason.CLIENT


async def test_a_goodbye_by_websocket_closes_it(engine: Bare) -> None:
    socket = await RawSocket.open(engine.url)
    await socket.message()
    sid = engine.session.sid
    socket.send("4last words")
    socket.send("1")
    socket.send("4unheard")
    assert await socket.close_code() == 1000
    await until(lambda: sid in engine.echo.ended)
    assert engine.echo.ended[sid] is Reason.CLIENT
    assert engine.echo.heard[sid] == ["last words"]


@pytest.mark.parametrize("waiting", [True, False])
async def test_a_poller_hears_all_before_the_servers_goodbye(engine: Bare, poller: Poller, waiting: bool) -> None:
    session = engine.session
    poll = asyncio.create_task(poller.get()) if waiting else None
    await asyncio.sleep(0.02)
    session.send("4one")
    session.send("4two")
    session.close(Reason.SERVER)
    session.close(Reason.TRANSPORT_ERROR)
    session.send("4unheard")
    assert await within(5, poll or poller.get()) == (200, "4one\x1e4two\x1e1")
    assert await poller.get() == (400, NOBODY)
    assert engine.echo.ended[poller.sid] is Reason.SERVER


async def test_a_goodbye_waits_behind_everything_that_was_said(engine: Bare, poller: Poller) -> None:
    for number in range(30):
        engine.session.send(f"4{number}")
    engine.session.close(Reason.SERVER)
    heard = (await poller.get())[1] + "\x1e" + (await poller.get())[1]
    assert heard.split("\x1e") == [*(f"4{number}" for number in range(30)), "1"]
    assert await poller.get() == (400, NOBODY)


# Upgrade


async def probing(engine: Bare, poller: Poller) -> RawSocket:
    socket = await RawSocket.open(engine.url, sid=poller.sid)
    socket.send("2probe")
    assert await socket.message() == "3probe"
    return socket


async def upgraded(engine: Bare, poller: Poller) -> RawSocket:
    socket = await probing(engine, poller)
    socket.send("5")
    await until(lambda: engine.session.link)
    return socket


async def test_an_upgrade_frees_the_poll_that_follows_the_probe(engine: Bare, poller: Poller) -> None:
    socket = await probing(engine, poller)
    assert await within(2, poller.get()) == (200, "6")
    socket.send("5")
    socket.send("4hello")
    assert await socket.message() == "4hello"
    await socket.drop()


async def test_an_upgrade_frees_the_poll_that_is_waiting(engine: Bare, poller: Poller) -> None:
    waiting = asyncio.create_task(poller.get())
    await asyncio.sleep(0.02)
    socket = await probing(engine, poller)
    assert await within(2, waiting) == (200, "6")
    socket.send("5")
    socket.send(b"\x00")
    assert await socket.message() == b"\x00"
    await socket.drop()


async def test_after_an_upgrade_the_session_has_no_other_door(engine: Bare, poller: Poller) -> None:
    socket = await upgraded(engine, poller)
    assert await poller.get() == (400, BAD_REQUEST)
    assert await poller.post("4hello") == (400, BAD_REQUEST)
    second = await RawSocket.open(engine.url, sid=poller.sid)
    assert second.answer.startswith("HTTP/1.1 400 ")
    await second.drop()
    socket.send("4hello")
    assert await socket.message() == "4hello"
    await socket.drop()


async def test_nothing_is_lost_or_reordered_while_a_session_is_upgraded(engine: Bare, poller: Poller) -> None:
    session, sent = engine.session, iter(range(10**6))
    heard: list[str | bytes] = []

    def say(count: int) -> None:
        for _ in range(count):
            session.send(f"4{next(sent)}")

    async def polled() -> None:
        _, body = await within(2, poller.get())
        heard.extend(packet for packet in body.split("\x1e") if packet != "6")

    say(3)
    socket = await RawSocket.open(engine.url, sid=poller.sid)
    say(3)
    await polled()
    waiting = asyncio.create_task(polled())
    socket.send("2probe")
    assert await socket.message() == "3probe"
    say(3)
    await waiting
    say(3)
    await polled()
    # The client's last poll has been answered; what follows waits until the WebSocket has taken over.
    say(3)
    session.send(b"4 in bytes")
    socket.send("5")
    await until(lambda: session.link)
    say(3)
    heard += [await socket.message() for _ in range(7)]
    assert heard == [f"4{n}" for n in range(15)] + [b"4 in bytes"] + [f"4{n}" for n in range(15, 18)]
    await socket.drop()


async def test_a_poll_cut_off_by_the_upgrade_does_not_cost_the_session(engine: Bare, poller: Poller) -> None:
    socket = await RawSocket.open(engine.url, sid=poller.sid)
    waiting = asyncio.create_task(poller.get())
    await until(lambda: engine.session.polling and engine.session.polling.poll)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    socket.send("5")
    socket.send("4hello")
    assert await socket.message() == "4hello"
    await socket.drop()


@pytest.mark.parametrize("words", ["3probe", "2", "4hello", "abc", b"\x01"])
async def test_wrong_words_during_a_probe_cost_only_the_probe(engine: Bare, poller: Poller, words: str | bytes) -> None:
    socket = await RawSocket.open(engine.url, sid=poller.sid)
    socket.send(words)
    assert await socket.close_code() == 1002
    assert await poller.post("4still here") == (200, "ok")
    assert await within(2, poller.get()) == (200, "4still here")
    # And the client may try again.
    socket = await upgraded(engine, poller)
    await socket.drop()


async def test_a_second_probe_beside_the_first_is_refused(engine: Bare, poller: Poller) -> None:
    first = await RawSocket.open(engine.url, sid=poller.sid)
    second = await RawSocket.open(engine.url, sid=poller.sid)
    assert second.answer.startswith("HTTP/1.1 400 ")
    await second.drop()
    await first.drop()
    await until(lambda: not engine.session.upgrading)
    third = await upgraded(engine, poller)
    await third.drop()


@pytest.mark.parametrize("word", [None, "2probe"])
async def test_a_probe_that_is_never_completed_is_dropped(http: ClientSession, word: str | None) -> None:
    async with bare(EngineOptions(ping_interval_s=1, upgrade_timeout_s=0.1)) as engine:
        poller = await Poller(http, engine.url).open()
        socket = await RawSocket.open(engine.url, sid=poller.sid)
        if word is not None:
            socket.raw(encoded(1, word.encode()) * 50)
        assert await socket.close_code() == 1002
        assert poller.sid in engine.server.sessions
        assert await poller.post("4still here") == (200, "ok")
        assert await within(2, poller.get()) == (200, "4still here")


async def test_a_probe_ends_with_its_session(engine: Bare, poller: Poller) -> None:
    socket = await probing(engine, poller)
    await poller.post("1")
    assert await socket.close_code() == 1002


async def test_the_heartbeat_goes_on_over_an_upgrade(http: ClientSession, quick: Bare) -> None:
    poller = await hurried(http, quick)
    socket = await upgraded(quick, poller)
    for _ in range(3):
        assert await within(2, socket.message(pings=True)) == "2"
        socket.send("3")
    assert await within(2, socket.message(pings=True)) == "2"
    assert await socket.close_code() == 1000
    assert quick.echo.ended[poller.sid] is Reason.PING_TIMEOUT


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
