"""Socket.IO 5 as its protocol document and its public conformance suite have it, and a little beyond."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import socketio
from aiohttp import ClientSession, web
from socketio.exceptions import ConnectionRefusedError as Refused

from realtime.engine.attach import attach
from realtime.engine.server import EngineOptions
from tests.realtime.engine.serving import QUICK, Poller, serving, until, within
from tests.realtime.engine.talking import Served, Talker, talking


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[Served]:
    async with talking() as running:
        yield running


@pytest.fixture
async def talker(served: Served) -> AsyncIterator[Talker]:
    talker = await Talker.enter(served)
    yield talker
    await talker.drop()


@pytest.fixture
async def stranger(served: Served) -> AsyncIterator[Talker]:
    """A connection in no namespace."""
    talker = await Talker.enter(served, "")
    yield talker
    await talker.drop()


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


async def test_the_main_namespace_is_there_without_any_handler() -> None:
    app = web.Application()
    attach(app)
    async with serving(app) as url:
        talker = await Talker.open(url, path="socket.io")
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


# Events


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        ('42["message",1,"2",{"3":[true]}]', '42["message-back",1,"2",{"3":[true]}]'),
        ('42["message"]', '42["message-back"]'),
        ('42["message",null,{"a-b":"/,1-"}]', '42["message-back",null,{"a-b":"/,1-"}]'),
        ('42456["message-with-ack",1,"2",{"3":[false]}]', '43456[1,"2",{"3":[false]}]'),
        ('420["message-with-ack"]', "430[]"),
        ('42/custom,7["message-with-ack","x"]', '43/custom,7["x"]'),
    ],
)
async def test_events_and_their_acknowledgements(talker: Talker, sent: str, answer: str) -> None:
    await talker.join("40/custom")
    talker.send(sent)
    assert await talker.message() == answer


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (
            '452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]',
            '452-["message-back",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]',
        ),
        (
            '452-789["message-with-ack",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]',
            '462-789[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]',
        ),
        (
            '452-/custom,["message",[{"deep":{"_placeholder":true,"num":0}}],{"_placeholder":true,"num":1}]',
            '452-/custom,["message-back",[{"deep":{"_placeholder":true,"num":0}}],{"_placeholder":true,"num":1}]',
        ),
    ],
)
async def test_binary_events_and_their_acknowledgements(talker: Talker, sent: str, answer: str) -> None:
    await talker.join("40/custom")
    for part in (sent, b"\x01\x02\x03", b"\x04\x05\x06"):
        talker.send(part)
    assert [await talker.message() for _ in range(3)] == [answer, b"\x01\x02\x03", b"\x04\x05\x06"]


async def test_events_by_polling(http: ClientSession, served: Served) -> None:
    poller = await Poller(http, served.url, path="socket.io").open()
    await poller.post("40")
    _, body = await poller.get()
    while "auth" not in body:
        body += "\x1e" + (await poller.get())[1]
    await poller.post('451-5["message-with-ack",{"_placeholder":true,"num":0}]\x1ebAQID')
    assert await within(5, poller.get()) == (200, '461-5[{"_placeholder":true,"num":0}]\x1ebAQID')


async def test_the_client_acknowledges_what_the_server_said(served: Served, talker: Talker) -> None:
    sid, answers = await talker.join("40/custom"), []
    await served.sio.emit("ask", "text", to=sid, namespace="/custom", callback=lambda *answer: answers.append(answer))
    await served.sio.emit("ask", b"\x09", to=sid, namespace="/custom", callback=lambda *answer: answers.append(answer))
    assert await talker.message() == '42/custom,1["ask","text"]'
    assert await talker.message() == '451-/custom,2["ask",{"_placeholder":true,"num":0}]'
    assert await talker.message() == b"\x09"
    for packet in (
        '462-/custom,2[{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]',
        b"\x01",
        b"\x02",
        '43/custom,1["yes",1]',
        # Nobody asked these, or no longer.
        '43/custom,1["twice"]',
        '43/custom,0["the counter"]',
        '43/custom,99["the future"]',
    ):
        talker.send(packet)
    await until(lambda: len(answers) == 2)
    assert answers == [(b"\x02", b"\x01"), ("yes", 1)]
    talker.send('42["message","still here"]')
    assert await talker.message() == '42["message-back","still here"]'
    assert len(answers) == 2
    await served.sio.emit("ask", to=sid, namespace="/custom", callback=lambda *answer: answers.append(answer))
    assert await talker.message() == '42/custom,3["ask"]'


async def test_a_handler_may_wait_for_its_own_client(served: Served, talker: Talker) -> None:
    @served.on("order")
    async def order(sid, what) -> str:
        answer = await served.sio.call("sure?", what, to=sid, timeout=5)
        return f"{what}: {answer}"

    talker.send('421["order","tea"]')
    # Another event waits behind the first, and the acknowledgement overtakes it.
    talker.send('422["message-with-ack","later"]')
    assert await talker.message() == '421["sure?","tea"]'
    talker.send('431["yes"]')
    assert await talker.message() == '431["tea: yes"]'
    assert await talker.message() == '432["later"]'


async def test_events_of_one_socket_are_handled_one_after_another(served: Served) -> None:
    log: list[str] = []

    @served.on("step")
    async def step(sid, number) -> None:
        log.append(f"begin {number}")
        await asyncio.sleep(0.02 if number % 2 else 0)
        log.append(f"end {number}")

    talker = await Talker.enter(served)
    for number in range(6):
        talker.send(f'42["step",{number}]')
    # Whoever leaves has said what was said.
    await asyncio.sleep(0.01)
    await talker.drop()
    await until(lambda: len(log) == 12)
    assert log == [word for number in range(6) for word in (f"begin {number}", f"end {number}")]


async def test_the_clients_of_a_slow_handler_do_not_wait_for_each_other(served: Served) -> None:
    going = asyncio.Event()

    @served.on("wait")
    async def wait(sid) -> str:
        await going.wait()
        return "done"

    slow, other = await Talker.enter(served), await Talker.enter(served)
    slow.send('421["wait"]')
    other.send('422["message-with-ack"]')
    assert await other.message() == "432[]"
    going.set()
    assert await slow.message() == '431["done"]'
    await slow.drop()
    await other.drop()


# Bad input


INVALID = {
    "4abc": ["4abc"],
    "nothing at all": ["4"],
    "unknown type": ["47"],
    "a digit of another script": ["4²"],
    "event that is an object": ["42{}"],
    "broken JSON": ['42abc["message","x"]'],
    "event without a name": ["42[]"],
    "event without data": ["42"],
    "event named by a number": ["42[1]"],
    "event named by an object": ["42[{}]"],
    "event named by null": ["42[null]"],
    **{f"reserved {name}": [f'42["{name}"]'] for name in ("connect", "connect_error", "disconnect", "disconnecting")},
    "reserved newListener": ['42["newListener"]'],
    "reserved removeListener": ['42["removeListener"]'],
    "acknowledgement without a number": ['43["x"]'],
    "acknowledgement that is no list": ["431{}"],
    "acknowledgement of nothing": ["431"],
    "refusal from the client": ['44{"message":"x"}'],
    "payload of a goodbye": ['41["x"]'],
    "connect with a list": ["40/custom,[]"],
    "connect with a text": ['40/custom,"x"'],
    "second connect": ["40"],
    "event elsewhere": ['42/custom,["message","x"]'],
    "acknowledgement elsewhere": ['43/custom,1["x"]'],
    "goodbye elsewhere": ["41/custom"],
    "number too long": [f'42{"1" * 101}["message"]'],
    "text for an attachment": ['451-["message",{"_placeholder":true,"num":0}]', '42["message"]'],
    "attachment of nothing": [b"\x01"],
    "attachment after the last": ['451-["message",{"_placeholder":true,"num":0}]', b"\x01", b"\x02"],
    "binary event without attachments": ['45["message"]'],
    "binary event with no attachments": ['450-["message"]'],
    "attachments of a plain event": ['421-["message",{"_placeholder":true,"num":0}]', b"\x01"],
    "too many attachments": ['45101-["message"]'],
    "far too many attachments": ['4599999999999-["message"]'],
    "placeholder for another": ['451-["message",{"_placeholder":true,"num":1}]', b"\x01"],
    "placeholder before the first": ['451-["message",{"_placeholder":true,"num":-1}]', b"\x01"],
    "placeholder for a text": ['451-["message",{"_placeholder":true,"num":"0"}]', b"\x01"],
    "placeholder for nothing": ['451-["message",{"_placeholder":true}]', b"\x01"],
    "reserved binary event": ['451-["connect",{"_placeholder":true,"num":0}]', b"\x01"],
    "deep nesting": ['42["message",' + "[" * 100_000 + "]" * 100_000 + "]"],
}


@pytest.mark.parametrize("packets", INVALID.values(), ids=INVALID.keys())
async def test_what_is_no_packet_closes_the_connection_and_harms_nobody_else(
    served: Served, talker: Talker, packets: list[str | bytes]
) -> None:
    bystander = await Talker.enter(served)
    seen = len(served.of("disconnect"))
    talker.send('42["message","before"]')
    for packet in packets:
        talker.send(packet)
    talker.send('42["message","after"]')
    assert await talker.close_code() == 1000
    await until(lambda: len(served.of("disconnect")) > seen)
    assert served.of("disconnect")[-1] == "transport error"
    # What came before was heard, what came after was not.
    assert ("before",) in served.of("message")
    assert ("after",) not in served.of("message")
    served.events.clear()
    bystander.send('42["message","still here"]')
    assert await bystander.message() == '42["message-back","still here"]'
    await bystander.drop()


async def test_attachments_are_bounded_in_sum() -> None:
    async with talking(EngineOptions(max_payload=1_000)) as served:
        talker = await Talker.enter(served)
        placeholders = ",".join(f'{{"_placeholder":true,"num":{number}}}' for number in range(11))
        talker.send(f'4511-["message",{placeholders}]')
        for _ in range(11):
            talker.send(bytes(1_000))
        assert await talker.close_code() == 1000


async def test_an_event_nobody_handles_is_passed_over(talker: Talker) -> None:
    talker.send('421["unheard of"]')
    talker.send('42["message","x"]')
    assert await talker.message() == '42["message-back","x"]'


@pytest.mark.parametrize("sent", ['421["fail"]', '421["unspeakable"]', '421["few"]', '421["cancelled"]'])
async def test_a_handler_that_fails_costs_only_its_answer(served: Served, talker: Talker, sent: str) -> None:
    @served.on("fail")
    async def fail(sid) -> None:
        raise RuntimeError("not today")

    @served.on("unspeakable")
    async def unspeakable(sid) -> object:
        return object()

    @served.on("few")
    async def few(sid, wanted) -> None:
        pass

    @served.on("cancelled")
    async def cancelled(sid) -> None:
        work = asyncio.ensure_future(asyncio.sleep(60))
        work.cancel()
        await work

    talker.send(sent)
    talker.send('42["message","still here"]')
    answer = await talker.message()
    if sent == '421["cancelled"]':
        # The library takes a cancelled handler for one that returned nothing.
        assert answer == "431[]"
        answer = await talker.message()
    assert answer == '42["message-back","still here"]'


async def test_a_callback_that_fails_costs_nothing(served: Served, talker: Talker) -> None:
    sid = await talker.join("40/custom")
    await served.sio.emit("ask", to=sid, namespace="/custom", callback=lambda: 1 / 0)
    await talker.message()
    talker.send("43/custom,1[]")
    talker.send('42["message","still here"]')
    assert await talker.message() == '42["message-back","still here"]'


async def test_a_disconnect_handler_that_fails_leaves_nothing(served: Served, talker: Talker) -> None:
    served.sio.on("disconnect", lambda sid, reason: 1 / 0, namespace="/unhappy")
    talker.send("40/unhappy")
    sid = json.loads(str(await talker.message()).removeprefix("40/unhappy,"))["sid"]
    await served.sio.disconnect(sid, namespace="/unhappy")
    assert "/unhappy" not in served.broadcaster.members
    assert await talker.message() == "41/unhappy,"
    # One namespace's fault does not keep the others from hearing of the end.
    talker.send("40/unhappy")
    await talker.message()
    custom = await talker.join("40/custom")
    await talker.drop()
    await until(lambda: served.of("disconnect", custom))
    assert "/unhappy" not in served.broadcaster.members


# Rooms and sessions


async def test_rooms_reach_each_of_their_sockets_once(served: Served) -> None:
    talkers = [await Talker.enter(served) for _ in range(3)]
    members = list(served.broadcaster.members["/"])[-3:]
    for sid in members[:2]:
        await served.sio.enter_room(sid, "red")
        await served.sio.enter_room(sid, "red")
    await served.sio.enter_room(members[2], "blue")
    assert served.sio.rooms(members[0]) == [members[0], "red"]
    await served.sio.emit("red", to="red")
    await served.sio.emit("both", to=["red", "blue", members[0]])
    await served.sio.emit("others", to="red", skip_sid=members[0])
    await served.sio.leave_room(members[1], "red")
    await served.sio.emit("red again", to="red")
    await served.sio.close_room("red")
    await served.sio.emit("nobody", to="red")
    await served.sio.emit("end", to=members)
    heard: list[list[str]] = []
    for talker in talkers:
        heard.append([])
        while "end" not in (packet := str(await talker.message())):
            heard[-1].append(json.loads(packet[2:])[0])
        await talker.drop()
    assert heard == [["red", "both", "red again"], ["red", "both", "others"], ["both"]]


async def test_nobody_may_sit_in_the_room_that_bears_anothers_id(served: Served, talker: Talker) -> None:
    intruder = await Talker.enter(served)
    victim_sid, intruder_sid = list(served.broadcaster.members["/"])[-2:]
    with pytest.raises(ValueError, match="sid room"):
        await served.sio.enter_room(intruder_sid, victim_sid)
    with pytest.raises(ValueError, match="not connected"):
        await served.sio.enter_room("nobody", "room")
    await served.sio.emit("secret", to=victim_sid)
    assert await talker.message() == '42["secret"]'
    assert await intruder.says_nothing()
    await intruder.drop()


async def test_a_session_lasts_until_the_disconnect_handler_is_done(served: Served, talker: Talker) -> None:
    last: list[object] = []

    @served.on("disconnect", namespace="/remembering")
    async def disconnect(sid, reason) -> None:
        async with served.sio.session(sid, namespace="/remembering") as session:
            last.append(session)

    talker.send("40/remembering")
    sid = json.loads(str(await talker.message()).removeprefix("40/remembering,"))["sid"]
    async with served.sio.session(sid, namespace="/remembering") as session:
        session["user"] = "Ada"
    assert await served.sio.get_session(sid, namespace="/remembering") == {"user": "Ada"}
    await talker.drop()
    await until(lambda: last)
    assert last == [{"user": "Ada"}]
    with pytest.raises(KeyError):
        await served.sio.get_session(sid, namespace="/remembering")
