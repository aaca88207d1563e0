"""npm's socket.io-client, unmodified, goes on where it was: whole, in order, each event once, anywhere."""

from collections.abc import AsyncIterator

import pytest

from realtime.rooms import user_room
from server.wiring import House
from tests.namespaces.deploying import Door, door_to, pay, paying, rename_epoch, state_of
from tests.namespaces.instances import beside
from tests.namespaces.test_delivery import EXPECTED, ID, PRIVATE, ROOTS, every_event, record
from tests.support.ears import Ear, Ears, open_ears
from tests.support.node import Node
from tests.support.people import Person
from tests.support.running import Orchestrator

pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
async def ears(node: Node) -> AsyncIterator[Ears]:
    async with open_ears(node) as ears:
        yield ears


@pytest.fixture
async def door(orchestrator: Orchestrator) -> AsyncIterator[Door]:
    async with door_to(orchestrator.url) as door:
        yield door


async def comes_back(ear: Ear, times: int = 1) -> None:
    """Wait for the reconnection and check that it is a recovery: the same socket, and nothing to load anew."""
    await ear.until(lambda: len(ear.connects) > times)
    first, *others = ear.connects
    assert not first["recovered"]
    assert [line["recovered"] for line in others] == [True] * times
    assert {line["id"] for line in ear.connects} == {first["id"]}
    assert ear.of("rt:reset") == []


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_what_was_missed_comes_in_order_and_then_what_is_new(
    orchestrator: Orchestrator, owner: Person, ears: Ears, door: Door, transport: str
) -> None:
    ear = await ears.open(door.url, owner.token, transports=[transport])
    numbers = await pay(orchestrator, owner.tenant_id, 3)
    await ear.until(lambda: ear.numbers == numbers)
    await door.cut()
    await ear.loses_connection()
    numbers += await pay(orchestrator, owner.tenant_id, 5)
    await door.restore()
    await comes_back(ear)
    numbers += await pay(orchestrator, owner.tenant_id, 2)
    await ear.hears(len(numbers))
    assert ear.numbers == numbers
    epoch = (await state_of(orchestrator, owner.tenant_id)).epoch
    assert (await ear.state())["offset"] == f"{epoch}.{numbers[-1]}"
    await ear.close()


async def test_who_has_heard_of_nothing_yet_has_a_place_too(
    orchestrator: Orchestrator, owner: Person, ears: Ears, door: Door
) -> None:
    ear = await ears.open(door.url, owner.token)
    await ear.until(lambda: "rt:pos" in ear.names)
    state = await state_of(orchestrator, owner.tenant_id)
    assert ear.of("rt:pos") == [[f"{state.epoch}.{state.head}"]]
    await door.cut()
    await ear.loses_connection()
    numbers = await pay(orchestrator, owner.tenant_id, 2)
    await door.restore()
    await comes_back(ear)
    await ear.hears(2)
    assert ear.numbers == numbers
    await ear.close()


async def test_drop_after_drop_while_events_are_written_all_the_time(
    orchestrator: Orchestrator, owner: Person, ears: Ears, door: Door
) -> None:
    ear = await ears.open(door.url, owner.token)
    first = (await state_of(orchestrator, owner.tenant_id)).head + 1
    async with paying(orchestrator, owner.tenant_id):
        for times in range(1, 6):
            await ear.hears_more()
            if times % 2:
                ear.do("drop")
            else:
                await door.cut()
                await ear.loses_connection(times)
                await door.restore()
            await comes_back(ear, times)
    head = (await state_of(orchestrator, owner.tenant_id)).head
    await ear.until(lambda: ear.numbers[-1] == head)
    assert ear.numbers[0] >= first
    assert ear.numbers == list(range(ear.numbers[0], head + 1))
    await ear.close()


async def test_an_orderly_restart_is_survived(
    orchestrator: Orchestrator, owner: Person, ears: Ears, door: Door
) -> None:
    await door.cut()
    async with paying(orchestrator, owner.tenant_id):
        async with beside(orchestrator) as other:
            await door.lead_to(other.url)
            ear = await ears.open(door.url, owner.token)
            await ear.until(lambda: ear.numbers)
        await ear.loses_connection()
        assert ear.disconnects[0] in ("transport close", "transport error"), "told to go, it would stay away"
        await door.cut()
        async with beside(orchestrator) as other:
            await door.lead_to(other.url)
            await comes_back(ear)
            await ear.hears_more()
            await ear.close()
    assert ear.numbers == list(range(ear.numbers[0], ear.numbers[-1] + 1))


async def test_another_instance_is_as_good(orchestrator: Orchestrator, owner: Person, ears: Ears, door: Door) -> None:
    """Nothing is kept with the instance that a client has left; in the cluster deployment Redis is between them."""
    async with beside(orchestrator) as other:
        ear = await ears.open(door.url, owner.token)
        async with paying(orchestrator, owner.tenant_id):
            await ear.until(lambda: len(ear.numbers) > 10)
            for times, url in enumerate((other.url, orchestrator.url) * 2, start=1):
                await door.cut()
                await ear.loses_connection(times)
                await door.lead_to(url)
                await comes_back(ear, times)
                await ear.hears_more()
        await hears_everything(orchestrator, owner, ear)
        await ear.close()


async def test_an_instance_that_has_not_heard_yet_asks_the_log(
    orchestrator: Orchestrator, owner: Person, ears: Ears, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a client knows from one instance is no future that another may refuse."""
    async with beside(orchestrator) as other:
        witness = await ears.open(other.url, owner.token)
        deafen(other.house, monkeypatch)
        ear = await ears.open(door.url, owner.token)
        numbers = await pay(orchestrator, owner.tenant_id, 3)
        await ear.until(lambda: ear.numbers == numbers)
        assert witness.numbers == []
        await door.cut()
        await ear.loses_connection()
        await door.lead_to(other.url)
        await comes_back(ear)
        await witness.until(lambda: witness.numbers == numbers)
        monkeypatch.undo()
        numbers += await pay(orchestrator, owner.tenant_id, 1)
        await ear.hears(4)
        assert ear.numbers == numbers
        for one in (ear, witness):
            await one.close()


def deafen(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an instance hear of no event, neither by bells nor by its look at the heads."""

    async def nothing(_: object) -> dict[object, object]:
        return {}

    monkeypatch.setattr(house.follower, "hear", lambda *_: None)
    monkeypatch.setattr(house.follower._log, "moved", nothing)


async def hears_everything(orchestrator: Orchestrator, person: Person, ear: Ear) -> None:
    """Wait until an ear has heard of the last event, and check that it has heard of all before it, each once."""
    head = (await state_of(orchestrator, person.tenant_id)).head
    await ear.until(lambda: ear.numbers[-1] >= head)
    assert ear.numbers == list(range(ear.numbers[0], head + 1))


class TestPlaces:
    async def test_no_other_event_is_taken_for_a_place(
        self, orchestrator: Orchestrator, owner: Person, ears: Ears, door: Door
    ) -> None:
        """The client takes any trailing string for one, and even the bare name of an event."""
        sockets = orchestrator.house.sockets
        ear = await ears.open(door.url, owner.token)
        numbers = await pay(orchestrator, owner.tenant_id, 1)
        await ear.until(lambda: ear.numbers == numbers)
        before = (await ear.state())["offset"]
        assert before.endswith(f".{numbers[-1]}")
        room = user_room(owner.user_id)
        assert await ear.emit("ping") == {"ok": True}
        assert not (await ear.emit("notification_read", {}))["ok"]
        await sockets.sio.emit("bare", room=room)
        await sockets.sio.emit("word", "a string", room=room)
        await sockets.sio.emit("words", ("more", "k3f9.1"), room=room)
        await sockets.sio.emit("body", {"text": "k3f9.1"}, room=room)
        await ear.until(lambda: "body" in ear.names)
        assert (ear.of("pong"), ear.of("error")) == ([[None]], [[{"message": "notification_id required"}]])
        assert (ear.of("bare"), ear.of("word")) == ([[None]], [["a string", None]])
        assert (ear.of("words"), ear.of("body")) == ([["more", "k3f9.1", None]], [[{"text": "k3f9.1"}]])
        assert (await ear.state())["offset"] == before
        await ear.close()

    async def test_who_hears_of_nothing_is_reminded_of_its_place(
        self, orchestrator: Orchestrator, owner: Person, ears: Ears, door: Door
    ) -> None:
        """Or its place would grow old, and in the end older than the log remembers."""
        ear = await ears.open(door.url, owner.token, "/notifications")
        plain = await ears.open(door.url, owner.token, "/notifications", auth={})
        numbers = await pay(orchestrator, owner.tenant_id, 3)
        state = await state_of(orchestrator, owner.tenant_id)
        house = orchestrator.house
        await ear.until(lambda: house.follower.state(owner.tenant_id).head == numbers[-1])
        house.sockets._reminder.remind()
        await ear.until(lambda: len(ear.of("rt:pos")) == 2)
        assert ear.of("rt:pos")[1] == [f"{state.epoch}.{numbers[-1]}"]
        assert (ear.numbers, (await ear.state())["offset"]) == ([], f"{state.epoch}.{numbers[-1]}")
        assert await plain.emit("ping") == {"ok": True}
        assert plain.of("rt:pos") == []
        for one in (ear, plain):
            await one.close()

    async def test_a_restored_log_is_told_to_whoever_is_there_and_whoever_comes_back(
        self, orchestrator: Orchestrator, owner: Person, ears: Ears, door: Door
    ) -> None:
        here, away = await ears.open(orchestrator.url, owner.token), await ears.open(door.url, owner.token)
        await door.cut()
        await away.loses_connection()
        await rename_epoch(orchestrator.house.engine, owner.tenant_id)
        state = await state_of(orchestrator, owner.tenant_id)
        await here.until(lambda: here.of("rt:reset"))
        await door.restore()
        await away.until(lambda: away.of("rt:reset"))
        reset = {"reason": "epoch", "epoch": state.epoch, "head": state.head}
        for ear in (here, away):
            assert ear.of("rt:reset") == [[reset, f"{state.epoch}.{state.head}"]]
        assert [line["recovered"] for line in away.connects] == [False, False]
        numbers = await pay(orchestrator, owner.tenant_id, 2)
        for ear in (here, away):
            await ear.hears(2)
            assert ear.numbers == numbers
            assert (await ear.state())["offset"] == f"{state.epoch}.{numbers[-1]}"
            await ear.close()


class TestEntitlement:
    async def test_every_namespace_gets_its_own_only(
        self, orchestrator: Orchestrator, owner: Person, ears: Ears, door: Door
    ) -> None:
        places = ("/", "/ws", "/billing", "/ws/provisioning", "/notifications")
        there = {place: await ears.open(door.url, owner.token, place) for place in places}
        live = {place: await ears.open(orchestrator.url, owner.token, place) for place in places}
        await door.cut()
        for ear in there.values():
            await ear.loses_connection()
        await record(orchestrator, *every_event(owner.tenant_id, owner.user_id))
        await door.restore()
        for place in places:
            own = [name for name, (space, _) in EXPECTED.items() if place in (space, f"/ws{space}", *ROOTS)]
            await comes_back(there[place])
            for ear in (live[place], there[place]):
                await ear.hears(len(own))
                assert [event for event, _ in heard(ear)] == own, "its own, and no second names"
            assert heard(there[place]) == heard(live[place])
        for ear in (*there.values(), *live.values()):
            await ear.close()

    async def test_what_is_private_comes_back_to_its_owner_only(
        self, orchestrator: Orchestrator, owner: Person, colleague: Person, ears: Ears, door: Door
    ) -> None:
        mine, theirs = await ears.open(door.url, owner.token), await ears.open(door.url, colleague.token)
        await door.cut()
        for ear in (mine, theirs):
            await ear.loses_connection()
        await record(orchestrator, *every_event(owner.tenant_id, owner.user_id))
        last = await pay(orchestrator, owner.tenant_id, 1)
        await door.restore()
        for ear in (mine, theirs):
            await comes_back(ear)
            await ear.hears(len(EXPECTED) + 1 - (len(PRIVATE) if ear is theirs else 0))
            assert ear.numbers[-1:] == last
            await ear.close()
        assert {event for event, _ in heard(mine)} == set(EXPECTED)
        assert {event for event, _ in heard(theirs)} == set(EXPECTED) - PRIVATE
        assert len(mine.numbers) == len(theirs.numbers) + len(PRIVATE)

    async def test_second_names_are_for_plain_clients_only(
        self, orchestrator: Orchestrator, owner: Person, ears: Ears, door: Door
    ) -> None:
        recovering = await ears.open(door.url, owner.token)
        plain = await ears.open(door.url, owner.token, auth={})
        await record(orchestrator, *every_event(owner.tenant_id, owner.user_id))
        await plain.until(lambda: "notification" in plain.names)
        await recovering.until(lambda: "notification:new" in recovering.names)
        # What is answered now comes behind what was said before.
        assert await recovering.emit("ping") == {"ok": True}
        assert "notification" not in recovering.names
        assert {len(line["args"]) for line in plain.lines if line["what"] == "event"} == {1}
        assert (await plain.state())["pid"] is None
        for ear in (recovering, plain):
            await ear.close()


def heard(ear: Ear) -> list[tuple[str, int]]:
    """Return (event, number) of what was heard of the facts with the id."""
    return [
        (line["event"], line["args"][0]["seq"])
        for line in ear.lines
        if line["what"] == "event" and line["args"] and str(ID) in str(line["args"][0])
    ]
