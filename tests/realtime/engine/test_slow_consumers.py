"""A client that does not read costs bounded memory and delays nobody; one that only pauses loses nothing."""

import asyncio
import contextlib
import json
import socket as sockets
from typing import Any, Self

from aiohttp import ClientSession

from realtime.engine.link import Flusher, Link
from realtime.engine.server import EngineOptions
from realtime.engine.session import Reason
from tests.realtime.engine.loops import Run, on_both_loops
from tests.realtime.engine.raw import TEXT, RawSocket, encoded
from tests.realtime.engine.serving import Bare, Poller, bare, until
from tests.realtime.engine.talking import Served, Talker, talking

HELD = 200_000
OPTIONS = EngineOptions(max_held=HELD)
FILLING = "x" * 2_000
# What else may wait for a client: the transport's own buffer, and what is written in the turn that fills it.
BESIDES = 3 * 32 * 1024


class Dawdler(Talker):
    """A client whose kernel keeps little for it, so that it falls behind at once when it does not read."""

    @classmethod
    async def enter(cls, served: Served, packet: str = "40") -> Self:
        dawdler = await super().enter(served, packet)
        dawdler.writer.get_extra_info("socket").setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4_096)
        session = list(served.sio.engine.sessions.values())[-1]
        assert session.link is not None
        assert session.link.transport is not None
        session.link.transport.get_extra_info("socket").setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF, 4_096)
        dawdler.link = session.link
        dawdler.pause()
        return dawdler

    link: Link

    def pause(self) -> None:
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]

    def resume(self) -> None:
        # With the small buffer it would take its time.
        self.writer.get_extra_info("socket").setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 32_768)
        self.writer.transport.resume_reading()  # type: ignore[attr-defined]

    async def numbers(self, count: int) -> list[int]:
        heard: list[int] = []
        while len(heard) < count:
            heard.append(json.loads(str(await self.message())[2:])[1])
        return heard


async def emit(served: Served, first: int, last: int, *, link: Link | None = None) -> int:
    """Emit numbered events, a few in each turn of the loop; returns the most that waited for `link` at any time."""
    most = 0
    for number in range(first, last):
        await served.sio.emit("tick", (number, FILLING))
        if number % 5 == 0:
            await asyncio.sleep(0)
            most = max(most, link.waiting_bytes if link else 0)
    await asyncio.sleep(0.01)
    return most


@on_both_loops
def test_a_client_that_stops_reading_is_cut_off_and_nobody_else_notices(run: Run) -> None:
    async def scenario() -> None:
        async with talking(OPTIONS) as served:
            readers = [await Talker.enter(served) for _ in range(3)]
            dawdler = await Dawdler.enter(served)
            link = dawdler.link
            heard = [asyncio.create_task(Dawdler.numbers(reader, 1_000)) for reader in readers]  # type: ignore[arg-type]
            most = await emit(served, 0, 1_000, link=link)
            assert HELD / 2 < most < HELD + BESIDES
            await until(lambda: served.of("disconnect"))
            assert served.of("disconnect") == ["slow consumer"]
            assert link.waiting_bytes == 0
            assert await asyncio.gather(*heard) == [list(range(1_000))] * 3
            # It is no goodbye: the rest of a frame could not be told from one.
            dawdler.resume()
            with contextlib.suppress(ConnectionResetError):
                await dawdler.end()
            for reader in readers:
                await reader.drop()

    run(scenario)


@on_both_loops
def test_a_client_that_pauses_loses_nothing_and_keeps_the_order(run: Run) -> None:
    async def scenario() -> None:
        async with talking(OPTIONS) as served:
            dawdler = await Dawdler.enter(served)
            for first in (0, 90, 180):
                most = await emit(served, first, first + 90, link=dawdler.link)
                assert most > 50_000
                dawdler.resume()
                # New events join the queue while the old ones drain.
                heard = asyncio.create_task(dawdler.numbers(90))
                assert await heard == list(range(first, first + 90))
                dawdler.pause()
            dawdler.resume()
            await emit(served, 270, 300)
            assert await dawdler.numbers(30) == list(range(270, 300))
            assert dawdler.link.waiting_bytes == 0
            assert dawdler.link._held is None
            await dawdler.drop()

    run(scenario)


@on_both_loops
def test_what_was_sent_before_a_goodbye_still_arrives(run: Run) -> None:
    async def scenario() -> None:
        async with talking(OPTIONS) as served:
            dawdler = await Dawdler.enter(served)
            session = next(iter(served.sio.engine.sessions.values()))
            await served.sio.emit("big", "x" * 150_000)
            session.close(Reason.SERVER)
            await asyncio.sleep(0.02)
            dawdler.resume()
            assert len(await dawdler.message()) > 150_000
            assert await dawdler.close_code() == 1000

    run(scenario)


async def test_a_client_that_never_reads_the_goodbye_is_dropped(monkeypatch) -> None:
    monkeypatch.setattr("realtime.engine.link._GOODBYE_S", 0.1)
    async with talking(OPTIONS) as served:
        dawdler = await Dawdler.enter(served)
        transport = dawdler.link.transport
        assert transport is not None
        await emit(served, 0, 50)
        next(iter(served.sio.engine.sessions.values())).close(Reason.SERVER)
        assert transport.get_write_buffer_size() > 0
        await until(lambda: transport.get_write_buffer_size() == 0, 2)
        await dawdler.drop()


async def test_a_poller_that_does_not_poll_is_cut_off(http: ClientSession) -> None:
    async with bare(OPTIONS) as engine:
        poller = await Poller(http, engine.url).open()
        session = engine.session
        for _ in range(200):
            session.send("4" + FILLING)
        await until(lambda: poller.sid in engine.echo.ended)
        assert engine.echo.ended[poller.sid] is Reason.OVERFLOW
        assert session.polling is not None
        assert session.polling.size < 100
        assert (await poller.get())[0] == 400


async def test_a_poller_that_waits_gets_a_message_of_any_size(http: ClientSession) -> None:
    async with bare(OPTIONS) as engine:
        poller = await Poller(http, engine.url).open()
        for size in (HELD * 2, HELD * 3):
            engine.session.send("4" + "x" * size)
            assert await poller.get() == (200, "4" + "x" * size)
        waiting = asyncio.create_task(poller.get())
        await until(lambda: engine.session.polling and engine.session.polling.poll)
        for _ in range(200):
            engine.session.send("4" + FILLING)
        heard = (await waiting)[1]
        while heard.count("4x") < 200:
            heard += (await poller.get())[1]


# The other way: a client that sends faster than it is served


class Slow:
    """Makes a bare server's listener wait, and counts."""

    def __init__(self, engine: Bare) -> None:
        self.gate = asyncio.Event()
        self.handled = 0

        async def on_message(session: Any, message: Any) -> None:
            await self.gate.wait()
            self.handled += 1

        engine.echo.on_message = on_message  # type: ignore[method-assign]


@on_both_loops
def test_a_client_that_sends_too_fast_is_read_no_further_and_does_not_die_of_it(run: Run) -> None:
    async def scenario() -> None:
        async with bare(EngineOptions(ping_interval_s=0.2, ping_timeout_s=0.2)) as engine:
            slow = Slow(engine)
            client = await RawSocket.open(engine.url)
            await client.message()
            session = engine.session
            client.raw(encoded(TEXT, b"4" + b"x" * 5_000) * 400)
            await until(lambda: session._choked)
            assert await client.frame() == (TEXT, b"2")
            client.send("3")
            # Long enough for the answer to be missed, which stands in line behind what is not read.
            await asyncio.sleep(0.5)
            assert session.open
            assert len(session._inbox or ()) < 64 + 256 * 1024 / 5_000
            slow.gate.set()
            await until(lambda: slow.handled == 400)
            for _ in range(2):
                assert await client.frame() == (TEXT, b"2")
                client.send("3")
            assert not session._choked
            # But one that is silent when everything has been heard is gone like any other.
            assert await client.close_code() == 1000
            assert engine.echo.ended[session.sid] is Reason.PING_TIMEOUT

    run(scenario)


async def test_a_post_is_answered_when_there_is_room_for_the_next(http: ClientSession) -> None:
    async with bare() as engine:
        slow = Slow(engine)
        poller = await Poller(http, engine.url).open()
        assert await poller.post("\x1e".join(["4x"] * 60)) == (200, "ok")
        second = asyncio.create_task(poller.post("\x1e".join(["4x"] * 60)))
        third = asyncio.create_task(poller.post("4x"))
        await asyncio.sleep(0.05)
        assert not second.done()
        assert not third.done()
        slow.gate.set()
        assert await second == await third == (200, "ok")
        await until(lambda: slow.handled == 121)


async def test_a_post_does_not_wait_for_a_session_that_has_ended(http: ClientSession) -> None:
    async with bare() as engine:
        slow = Slow(engine)
        poller = await Poller(http, engine.url).open()
        waiting = asyncio.create_task(poller.post("\x1e".join(["4x"] * 100)))
        await until(lambda: engine.session._choked)
        engine.session.close(Reason.SERVER)
        assert await waiting == (200, "ok")
        slow.gate.set()
        await until(lambda: poller.sid in engine.echo.ended)


# Large rooms


class Wire:
    """A transport that only counts."""

    def __init__(self, turn: list[int]) -> None:
        self._turn = turn
        self.written: list[bytes] = []
        self.written_in: list[int] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self.written_in.append(self._turn[0])

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def set_protocol(self, protocol: object) -> None:
        pass


async def test_a_large_room_is_served_in_slices_between_which_the_loop_turns() -> None:
    turn, running = [0], True

    def tick() -> None:
        turn[0] += 1
        if running:
            asyncio.get_running_loop().call_soon(tick)

    wires = [Wire(turn) for _ in range(2_000)]
    flusher = Flusher()
    links = [Link(wire, None, flusher, max_message=1, max_held=1) for wire in wires]  # type: ignore[arg-type]
    tick()
    for frame in (b"one", b"two", b"three"):
        for link in links:
            link.write(frame)
    await until(lambda: wires[-1].written)
    running = False
    # Everything said in one turn leaves in one write, the same bytes for everybody.
    assert all(wire.written == [b"onetwothree"] for wire in wires)
    turns = [wire.written_in[0] for wire in wires]
    assert turns == sorted(turns)
    assert max(turns.count(number) for number in set(turns)) == 256
    assert len(set(turns)) == 8


async def test_one_broken_wire_does_not_cost_the_others_their_frames() -> None:
    class Broken(Wire):
        def write(self, data: bytes) -> None:
            raise RuntimeError("the handler is closed")

    flusher, turn = Flusher(), [0]
    wires = [Wire(turn), Broken(turn), Wire(turn)]
    links = [Link(wire, None, flusher, max_message=1, max_held=1) for wire in wires]  # type: ignore[arg-type]
    for frame in (b"first", b"second"):
        for link in links:
            link.write(frame)
        await asyncio.sleep(0.01)
    assert wires[0].written == wires[2].written == [b"first", b"second"]
