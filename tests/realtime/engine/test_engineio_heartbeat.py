"""Pings keep an Engine.IO session alive, silence ends it, and a goodbye waits behind everything that was said."""

import asyncio

import pytest
from aiohttp import ClientSession

from realtime.engine.server import EngineOptions
from realtime.engine.session import Reason
from tests.realtime.engine.answers import NOBODY
from tests.realtime.engine.raw import RawSocket, encoded
from tests.realtime.engine.serving import Bare, Poller, bare, within
from tests.support.waiting import until

# Heartbeat


async def test_a_poller_that_answers_its_pings_lives(http: ClientSession, quick: Bare) -> None:
    poller = await Poller(http, quick.url).open()
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
    poller = await Poller(http, quick.url).open()
    await asyncio.sleep(0.5)
    assert await poller.get() == (400, NOBODY)
    assert quick.echo.ended[poller.sid] is Reason.PING_TIMEOUT


async def test_a_silent_websocket_is_closed_when_the_times_have_passed(quick: Bare) -> None:
    socket = await RawSocket.open(quick.url)
    await asyncio.sleep(0.5)
    assert quick.server.sessions == {}
    assert await socket.close_code() == 1000


async def test_a_waiting_poll_is_freed_by_the_timeout(http: ClientSession, quick: Bare) -> None:
    poller = await Poller(http, quick.url).open()
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


async def test_a_goodbye_by_post_frees_the_waiting_poll(http: ClientSession, eio: Bare, poller: Poller) -> None:
    waiting = asyncio.create_task(poller.get())
    await asyncio.sleep(0.02)
    assert await poller.post("1") == (200, "ok")
    assert await within(5, waiting) == (200, "6")
    assert await poller.get() == (400, NOBODY)
    assert eio.echo.ended[poller.sid] is Reason.CLIENT


async def test_a_goodbye_by_websocket_closes_it(eio: Bare) -> None:
    socket = await RawSocket.open(eio.url)
    await socket.message()
    sid = eio.session.sid
    socket.send("4last words")
    socket.send("1")
    socket.send("4unheard")
    assert await socket.close_code() == 1000
    await until(lambda: sid in eio.echo.ended)
    assert eio.echo.ended[sid] is Reason.CLIENT
    assert eio.echo.heard[sid] == ["last words"]


@pytest.mark.parametrize("waiting", [True, False])
async def test_a_poller_hears_all_before_the_servers_goodbye(eio: Bare, poller: Poller, waiting: bool) -> None:
    session = eio.session
    poll = asyncio.create_task(poller.get()) if waiting else None
    await asyncio.sleep(0.02)
    session.send("4one")
    session.send("4two")
    session.close(Reason.SERVER)
    session.close(Reason.TRANSPORT_ERROR)
    session.send("4unheard")
    assert await within(5, poll or poller.get()) == (200, "4one\x1e4two\x1e1")
    assert await poller.get() == (400, NOBODY)
    assert eio.echo.ended[poller.sid] is Reason.SERVER


async def test_a_goodbye_waits_behind_everything_that_was_said(eio: Bare, poller: Poller) -> None:
    for number in range(30):
        eio.session.send(f"4{number}")
    eio.session.close(Reason.SERVER)
    heard = (await poller.get())[1] + "\x1e" + (await poller.get())[1]
    assert heard.split("\x1e") == [*(f"4{number}" for number in range(30)), "1"]
    assert await poller.get() == (400, NOBODY)
