"""Events of Socket.IO 5 in both directions, with attachments and acknowledgements, and whom they reach."""

import asyncio
import json

import pytest
from aiohttp import ClientSession

from tests.realtime.engine.serving import Poller, within
from tests.realtime.engine.talking import Served, Talker
from tests.support.waiting import until


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        ('42["message",1,"2",{"3":[true]}]', '42["message-back",1,"2",{"3":[true]}]'),
        ('42["message"]', '42["message-back"]'),
        ('42["message",null,{"a-b":"/,1-"}]', '42["message-back",null,{"a-b":"/,1-"}]'),
        ('42456["message-with-ack",1,"2",{"3":[false]}]', '43456[1,"2",{"3":[false]}]'),
        ('420["message-with-ack"]', "430[]"),
        ('42/custom,7["message-with-ack","x"]', '43/custom,7["x"]'),
        ('42["message","a\\u0000b"]', '42["message-back","a\\u0000b"]'),
        # Half of a pair is no character; the pair itself is one.
        (
            '42["message","\\ud83d","\\ud83d\\ude00",{"\\udc00":[1.5,null]}]',
            '42["message-back","\ufffd","😀",{"\ufffd":[1.5,null]}]',
        ),
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
