"""What is no packet of Socket.IO 5 costs its sender the connection, a handler that fails costs one answer."""

import asyncio
import json
from itertools import pairwise

import pytest

from realtime.engine.server import EngineOptions
from tests.realtime.engine.raw import TEXT, encoded
from tests.realtime.engine.talking import Served, Talker, talking
from tests.support.waiting import until

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
    "no number of JSON": ['42["message",NaN]'],
    "no number, and half a character": ['42["message","\\ud83d",Infinity]'],
    "nested beside half a character": ['42["message","\\ud83d",' + "[" * 200 + "]" * 200 + "]"],
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


async def test_who_is_turned_away_again_and_again_is_cut_off(served: Served) -> None:
    """Each refusal costs a look at a token; whoever gets in starts counting anew."""
    patient, pushing = await Talker.enter(served), await Talker.enter(served)
    for _ in range(2):
        for number in range(19):
            patient.send(f"40/unknown-{number}")
            assert "Invalid namespace" in str(await patient.message())
        await patient.join("40/custom")
        patient.send("41/custom")
    for _ in range(30):
        pushing.send("40/unknown")
    assert await pushing.close_code() == 1000
    patient.send('42["message","still here"]')
    assert await patient.message() == '42["message-back","still here"]'
    await patient.drop()


async def test_a_flood_of_one_client_lets_others_have_their_turn(served: Served) -> None:
    """Nothing is waited for in working off its events, so that without a pause they would be worked off in one go."""
    turns: list[int] = []
    heard = 0

    @served.on("counted")
    async def count(_: str) -> None:
        nonlocal heard
        heard += 1

    flooding = await Talker.enter(served)
    flooding.raw(encoded(TEXT, b'42["counted"]') * 320)
    while heard < 320:
        turns.append(heard)
        await asyncio.sleep(0)
    assert max(after - before for before, after in pairwise(turns)) <= 16
    await flooding.drop()


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
