"""An Engine.IO session moves from polling to a WebSocket and loses nothing on the way."""

import asyncio

import pytest
from aiohttp import ClientSession

from realtime.engine.server import EngineOptions
from realtime.engine.session import Reason
from tests.realtime.engine.answers import BAD_REQUEST
from tests.realtime.engine.raw import RawSocket, encoded
from tests.realtime.engine.serving import Bare, Poller, bare, within
from tests.support.waiting import until


async def probing(eio: Bare, poller: Poller) -> RawSocket:
    socket = await RawSocket.open(eio.url, sid=poller.sid)
    socket.send("2probe")
    assert await socket.message() == "3probe"
    return socket


async def upgraded(eio: Bare, poller: Poller) -> RawSocket:
    socket = await probing(eio, poller)
    socket.send("5")
    await until(lambda: eio.session.link)
    return socket


async def test_an_upgrade_frees_the_poll_that_follows_the_probe(eio: Bare, poller: Poller) -> None:
    socket = await probing(eio, poller)
    assert await within(2, poller.get()) == (200, "6")
    socket.send("5")
    socket.send("4hello")
    assert await socket.message() == "4hello"
    await socket.drop()


async def test_an_upgrade_frees_the_poll_that_is_waiting(eio: Bare, poller: Poller) -> None:
    waiting = asyncio.create_task(poller.get())
    await asyncio.sleep(0.02)
    socket = await probing(eio, poller)
    assert await within(2, waiting) == (200, "6")
    socket.send("5")
    socket.send(b"\x00")
    assert await socket.message() == b"\x00"
    await socket.drop()


async def test_after_an_upgrade_the_session_has_no_other_door(eio: Bare, poller: Poller) -> None:
    socket = await upgraded(eio, poller)
    assert await poller.get() == (400, BAD_REQUEST)
    assert await poller.post("4hello") == (400, BAD_REQUEST)
    second = await RawSocket.open(eio.url, sid=poller.sid)
    assert second.answer.startswith("HTTP/1.1 400 ")
    await second.drop()
    socket.send("4hello")
    assert await socket.message() == "4hello"
    await socket.drop()


async def test_nothing_is_lost_or_reordered_while_a_session_is_upgraded(eio: Bare, poller: Poller) -> None:
    session, sent = eio.session, iter(range(10**6))
    heard: list[str | bytes] = []

    def say(count: int) -> None:
        for _ in range(count):
            session.send(f"4{next(sent)}")

    async def polled() -> None:
        _, body = await within(2, poller.get())
        heard.extend(packet for packet in body.split("\x1e") if packet != "6")

    say(3)
    socket = await RawSocket.open(eio.url, sid=poller.sid)
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


async def test_a_poll_cut_off_by_the_upgrade_does_not_cost_the_session(eio: Bare, poller: Poller) -> None:
    socket = await RawSocket.open(eio.url, sid=poller.sid)
    waiting = asyncio.create_task(poller.get())
    await until(lambda: eio.session.polling and eio.session.polling.poll)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    socket.send("5")
    socket.send("4hello")
    assert await socket.message() == "4hello"
    await socket.drop()


@pytest.mark.parametrize("words", ["3probe", "2", "4hello", "abc", b"\x01"])
async def test_wrong_words_during_a_probe_cost_only_the_probe(eio: Bare, poller: Poller, words: str | bytes) -> None:
    socket = await RawSocket.open(eio.url, sid=poller.sid)
    socket.send(words)
    assert await socket.close_code() == 1002
    assert await poller.post("4still here") == (200, "ok")
    assert await within(2, poller.get()) == (200, "4still here")
    # And the client may try again.
    socket = await upgraded(eio, poller)
    await socket.drop()


async def test_a_second_probe_beside_the_first_is_refused(eio: Bare, poller: Poller) -> None:
    first = await RawSocket.open(eio.url, sid=poller.sid)
    second = await RawSocket.open(eio.url, sid=poller.sid)
    assert second.answer.startswith("HTTP/1.1 400 ")
    await second.drop()
    await first.drop()
    await until(lambda: not eio.session.upgrading)
    third = await upgraded(eio, poller)
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


async def test_a_probe_ends_with_its_session(eio: Bare, poller: Poller) -> None:
    socket = await probing(eio, poller)
    await poller.post("1")
    assert await socket.close_code() == 1002


async def test_the_heartbeat_goes_on_over_an_upgrade(http: ClientSession, quick: Bare) -> None:
    poller = await Poller(http, quick.url).open()
    socket = await upgraded(quick, poller)
    for _ in range(3):
        assert await within(2, socket.message(pings=True)) == "2"
        socket.send("3")
    assert await within(2, socket.message(pings=True)) == "2"
    assert await socket.close_code() == 1000
    assert quick.echo.ended[poller.sid] is Reason.PING_TIMEOUT
