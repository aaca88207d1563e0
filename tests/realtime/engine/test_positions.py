"""What the engine does for clients that recover: positions behind events, more in CONNECT, and ids that come back."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import ClientSession

from realtime.engine.link import Flusher, Link
from realtime.engine.manager import Member, client_of
from realtime.engine.session import Reason
from tests.realtime.engine.serving import Poller, until
from tests.realtime.engine.talking import Served, Talker, talking


def member_of(served: Served, sid: str, namespace: str = "/") -> Member:
    member = served.broadcaster.member(sid, namespace)
    assert member is not None
    return member


async def joined(served: Served, *, positioned: bool = False) -> tuple[Talker, str]:
    """Return a client and the id of its socket."""
    talker = await Talker.enter(served, "")
    sid = await talker.join()
    member_of(served, sid).positioned = positioned
    return talker, sid


async def event(talker: Talker) -> list[Any]:
    """Return the next event: its name and its arguments."""
    text = str(await talker.message())
    assert text.startswith("42"), text
    words: list[Any] = json.loads(text[2:])
    return words


class TestPositions:
    async def test_only_positioned_clients_get_them(self, served: Served) -> None:
        (plain, plain_sid), (placed, placed_sid) = await joined(served), await joined(served, positioned=True)
        for sid in (plain_sid, placed_sid):
            await served.sio.enter_room(sid, "r")
        count = served.broadcaster.broadcast("told", {"n": 1}, "/", "r", position="e.7")
        assert count == 2
        assert await event(plain) == ["told", {"n": 1}]
        assert await event(placed) == ["told", {"n": 1}, "e.7"]
        size = served.broadcaster.say(member_of(served, placed_sid), "told", None, "/", position="e.8")
        assert size > len("told")
        assert await event(placed) == ["told", "e.8"]
        for talker in (plain, placed):
            await talker.drop()

    async def test_a_trailing_string_that_is_none_is_covered(self, served: Served) -> None:
        """npm's client takes the last string of an event for its position, be it only the event's own name."""
        (plain, plain_sid), (placed, placed_sid) = await joined(served), await joined(served, positioned=True)
        for sid in (plain_sid, placed_sid):
            await served.sio.emit("bare", to=sid)
            await served.sio.emit("word", "e.9", to=sid)
            await served.sio.emit("words", ({"a": "e.9"}, "e.9"), to=sid)
            await served.sio.emit("body", {"a": "e.9"}, to=sid)
        assert [await event(plain) for _ in range(4)] == [
            ["bare"],
            ["word", "e.9"],
            ["words", {"a": "e.9"}, "e.9"],
            ["body", {"a": "e.9"}],
        ]
        assert [await event(placed) for _ in range(4)] == [
            ["bare", None],
            ["word", "e.9", None],
            ["words", {"a": "e.9"}, "e.9", None],
            ["body", {"a": "e.9"}],
        ]
        for talker in (plain, placed):
            await talker.drop()

    async def test_some_may_be_left_out(self, served: Served) -> None:
        (plain, plain_sid), (placed, placed_sid) = await joined(served), await joined(served, positioned=True)
        (other, other_sid) = await joined(served)
        for sid in (plain_sid, placed_sid, other_sid):
            await served.sio.enter_room(sid, "r")
        await served.sio.enter_room(other_sid, "but")
        served.broadcaster.broadcast("plain", 1, "/", "r", plain_only=True)
        served.broadcaster.broadcast("without", 2, "/", "r", except_room="but")
        served.broadcaster.broadcast("all", 3, "/", "r")
        assert served.broadcaster.broadcast("nobody", 4, "/", "empty") == 0
        assert [await event(plain) for _ in range(3)] == [["plain", 1], ["without", 2], ["all", 3]]
        assert [await event(placed) for _ in range(2)] == [["without", 2], ["all", 3]]
        assert [await event(other) for _ in range(2)] == [["plain", 1], ["all", 3]]
        for talker in (plain, placed, other):
            await talker.drop()

    async def test_they_are_counted(self) -> None:
        async with talking() as served:
            talker, sid = await joined(served)
            await served.sio.enter_room(sid, "r")
            before = served.broadcaster.meter.deliveries, served.broadcaster.meter.delivered_bytes
            served.broadcaster.broadcast("told", {"n": 1}, "/", "r")
            # The length of '42["told",{"n":1}]' and of the frame's head.
            assert served.broadcaster.meter.deliveries == before[0] + 1
            assert served.broadcaster.meter.delivered_bytes == before[1] + 18 + 2
            await talker.drop()


class TestConnectAnswers:
    async def test_a_handler_may_add_to_the_answer(self) -> None:
        async with talking(namespaces=()) as served:
            answers: dict[str, Any] = {"more": {"pid": "p", "n": 1}, "true": True, "none": None, "odd": "text"}

            @served.on("connect")
            async def connect(sid: str, environ: Any, auth: dict[str, Any]) -> Any:
                await served.sio.emit("early", to=sid)
                return answers[auth["as"]]

            for kind in answers:
                talker = await Talker.enter(served, "")
                talker.send(f'40{{"as":"{kind}"}}')
                answer = json.loads(str(await talker.message()).removeprefix("40"))
                assert answer.pop("sid")
                assert answer == (answers["more"] if kind == "more" else {})
                assert await event(talker) == ["early"], "said while it connected, heard when it is connected"
                await talker.drop()


class TestGate:
    async def test_what_it_refuses_is_answered_and_not_heard(self) -> None:
        async with talking() as served:
            asked: list[tuple[str, str, int]] = []

            def gate(member: Member, namespace: str, size: int) -> dict[str, Any] | None:
                asked.append((member.sid, namespace, size))
                return {"ok": False} if size > 40 else None

            served.sio.gate = gate
            talker = await Talker.enter(served, "")
            sid = await talker.join("40/custom,")
            talker.send('42/custom,1["message-with-ack","short"]')
            assert await talker.message() == '43/custom,1["short"]'
            talker.send(f'42/custom,2["message-with-ack","{"x" * 100}"]')
            assert await talker.message() == '43/custom,2[{"ok":false}]'
            talker.send(f'42/custom,["message","{"x" * 100}"]')
            talker.send('42/custom,3["message-with-ack","again"]')
            assert await talker.message() == '43/custom,3["again"]', "what asks for no answer gets none"
            assert served.of("message") == []
            assert [(who, where) for who, where, _ in asked] == [(sid, "/custom")] * 4
            assert [size > 40 for *_, size in asked] == [False, True, True, False]
            await talker.drop()

    async def test_attachments_count(self) -> None:
        async with talking() as served:
            sizes: list[int] = []
            served.sio.gate = lambda _, __, size: sizes.append(size)
            talker = await Talker.enter(served)
            talker.send('451-1["message-with-ack",{"_placeholder":true,"num":0}]')
            talker.send(b"x" * 5_000)
            assert str(await talker.message()).startswith("461-1")
            assert 5_000 < sizes[0] < 5_200
            await talker.drop()


class TestResuming:
    def prepare(self, served: Served) -> None:
        """Let sockets ask for the id that they had."""

        async def connect(sid: str, environ: Any, auth: dict[str, Any] | None) -> None:
            member = member_of(served, sid)
            if auth and "former" in auth:
                served.broadcaster.resume(member, "/", auth["former"])
            await served.sio.enter_room(member.sid, "r")
            await served.sio.emit("auth", {}, to=member.sid)

        served.sio.on("connect", connect)

    async def test_a_socket_takes_the_id_of_one_that_is_gone(self) -> None:
        async with talking() as served:
            self.prepare(served)
            first, sid = await joined(served)
            await first.drop()
            await until(lambda: served.of("disconnect"))
            second = await Talker.enter(served, "")
            assert await second.join(f'40{{"former":"{sid}"}}') == sid
            await served.sio.emit("told", to=sid)
            assert await event(second) == ["told"]
            second.send('421["message-with-ack",5]')
            assert await second.message() == "431[5]"
            await second.drop()
            await until(lambda: not any(served.leftovers()[name] for name in ("sessions", "members", "rooms")))
            assert served.of("disconnect", sid) == ["transport close"] * 2

    async def test_or_of_one_that_only_seems_to_be_there(self) -> None:
        """Its connection is dead, and nobody has noticed."""
        async with talking() as served:
            self.prepare(served)
            first, sid = await joined(served)
            second = await Talker.enter(served, "")
            assert await second.join(f'40{{"former":"{sid}"}}') == sid
            assert await first.close_code() == 1000
            await until(lambda: served.of("disconnect"))
            assert served.of("disconnect", sid) == [], "the farewell of the former is not taken for this one's"
            assert served.broadcaster.broadcast("told", {}, "/", "r") == 1
            assert await event(second) == ["told", {}]
            await served.sio.emit("mine", to=sid)
            assert await event(second) == ["mine"]
            await second.drop()
            await until(lambda: not any(served.leftovers()[name] for name in ("sessions", "members", "rooms")))


class Wire:
    """A transport that takes what it is given."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def set_protocol(self, protocol: object) -> None:
        pass


class TestLatest:
    @pytest.fixture
    def wire(self) -> Wire:
        return Wire()

    @pytest.fixture
    def link(self, wire: Wire) -> Link:
        return Link(wire, None, Flusher(), max_message=1, max_held=10_000)  # type: ignore[arg-type]

    async def test_a_client_that_reads_gets_all(self, wire: Wire, link: Link) -> None:
        for number in range(3):
            link.write_latest("key", b"%d" % number)
        await until(lambda: wire.written)
        assert b"".join(wire.written) == b"012"

    async def test_one_that_does_not_gets_the_newest_of_each_key_behind_the_rest(self, wire: Wire, link: Link) -> None:
        link.pause_writing()
        link.write(b"a")
        for number in range(10_000):
            link.write_latest("one", b"1:%d " % number)
            link.write_latest("two", b"2:%d " % number)
        link.write(b"b")
        await asyncio.sleep(0.01)
        assert wire.written == []
        assert link.waiting_bytes < 100
        link.resume_writing()
        await until(lambda: b"".join(wire.written) == b"ab1:9999 2:9999 ")
        link.write_latest("one", b"and on")
        await until(lambda: wire.written[-1] == b"and on")

    async def test_keys_are_bounded(self, wire: Wire, link: Link) -> None:
        link.pause_writing()
        for number in range(1_000):
            link.write_latest(number, b"%d " % number)
        link.write_latest(3, b"three ")
        link.resume_writing()
        await until(lambda: wire.written)
        assert b"".join(wire.written).split() == [b"three" if n == 3 else b"%d" % n for n in range(64)]

    async def test_a_link_that_is_closed_keeps_none(self, wire: Wire, link: Link) -> None:
        link.pause_writing()
        link.write_latest("key", b"frame")
        link.connection_lost(None)
        link.resume_writing()
        await asyncio.sleep(0.01)
        assert wire.written == []

    async def test_a_poller_that_is_slow_is_spared(self, http: ClientSession) -> None:
        async with talking() as served:
            poller = await Poller(http, served.url, path="socket.io").open()
            await poller.post("40")
            session = served.sio.engine.sessions[poller.sid]
            (member,) = client_of(session).members.values()
            await served.sio.enter_room(member.sid, "r")
            for number in range(20_000):
                served.broadcaster.broadcast("told", number, "/", "r", key="key")
            assert 32 * 1024 < session.waiting_bytes < 65 * 1024
            heard = ""
            while "told" not in heard:
                heard = (await poller.get())[1]
            assert '["told",0]' in heard
            session.close(Reason.TRANSPORT_CLOSE)
