"""python-socketio's client, and any other that keeps numbers: `last_seq` when it connects, and `sync` page by page."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from realtime.rooms import member_room
from tests.namespaces.deploying import fill, forget, pay, state_of
from tests.support.listeners import Listener
from tests.support.people import Person
from tests.support.running import Orchestrator

PAYLOAD = {"tenant_id", "payment_id", "amount", "currency", "status", "created_at", "event_id", "seq"}


@pytest.fixture
async def listener(orchestrator: Orchestrator, owner: Person) -> AsyncIterator[Listener]:
    listener = await Listener().connect(orchestrator.url, owner.token)
    yield listener
    await listener.close()


def numbers(listener: Listener, namespace: str = "/") -> list[int]:
    return [seq for seq, _ in listener.logged(namespace)]


async def hears(listener: Listener, count: int, namespace: str = "/") -> None:
    await listener.until(lambda: len(numbers(listener, namespace)) >= count)


async def sync(listener: Listener, namespace: str = "/", /, **payload: Any) -> Any:
    return await listener.client.call("sync", payload, namespace=namespace, timeout=20)


def refusal(answer: Any, code: str) -> dict[str, Any]:
    """Check that an answer is a coded refusal and return its error."""
    assert set(answer) == {"ok", "error"}
    assert (answer["ok"], answer["error"]["code"]) == (False, code)
    error: dict[str, Any] = answer["error"]
    assert error["message"]
    return error


class TestLastSeq:
    async def test_the_stock_client_goes_on_after_a_reconnection_of_its_own(
        self, orchestrator: Orchestrator, owner: Person
    ) -> None:
        """It asks its `auth` function each time, which is where a program puts the last number it has seen."""
        listener = Listener(reconnection=True)

        def auth() -> dict[str, object]:
            known = numbers(listener)
            return {"token": owner.token, **({"last_seq": known[-1]} if known else {})}

        await listener.connect(orchestrator.url, owner.token, auth=auth)
        expected = await pay(orchestrator, owner.tenant_id, 2)
        await listener.until(lambda: numbers(listener) == expected)
        for times in (2, 3):
            await listener.client.eio.ws.close()
            expected += await pay(orchestrator, owner.tenant_id, 3)
            await hears(listener, len(expected))
            expected += await pay(orchestrator, owner.tenant_id, 1)
            await hears(listener, len(expected))
            assert numbers(listener) == expected
            assert len(listener.of("connected")) == times
        await listener.close()

    async def test_every_namespace_of_one_connection_goes_on_by_itself(
        self, orchestrator: Orchestrator, owner: Person
    ) -> None:
        before = (await state_of(orchestrator, owner.tenant_id)).head
        expected = await pay(orchestrator, owner.tenant_id, 3)
        auth = {"token": owner.token, "last_seq": before}
        listener = await Listener().connect(
            orchestrator.url, owner.token, "/", "/ws", "/billing", "/provisioning", auth=auth
        )
        for place in ("/", "/ws", "/billing"):
            await hears(listener, 3, place)
            assert numbers(listener, place) == expected
        assert numbers(listener, "/provisioning") == []
        await listener.close()


class TestSync:
    async def test_pages_through_what_was_missed(
        self, orchestrator: Orchestrator, owner: Person, listener: Listener
    ) -> None:
        state = await state_of(orchestrator, owner.tenant_id)
        expected = await pay(orchestrator, owner.tenant_id, 7)
        found: list[dict[str, Any]] = []
        page = {"more": True, "next_after_seq": state.head}
        sizes = []
        while page["more"]:
            page = await sync(listener, after_seq=page["next_after_seq"], limit=3)
            assert set(page) == {"ok", "events", "epoch", "head", "next_after_seq", "more"}
            assert (page["ok"], page["epoch"], page["head"]) == (True, state.epoch, expected[-1])
            sizes.append(len(page["events"]))
            found += page["events"]
        assert sizes == [3, 3, 1]
        assert page["next_after_seq"] == expected[-1]
        assert [event["seq"] for event in found] == expected
        live = {body["seq"]: body for body in listener.of("payment:received")}
        for event in found:
            assert set(event) == {"event", "namespace", "seq", "data"}
            assert (event["event"], event["namespace"]) == ("payment:received", "/billing")
            assert set(event["data"]) == PAYLOAD
            assert event["data"] == live[event["seq"]], "what is shown later is what was said"

    async def test_a_last_page_that_is_full_is_followed_by_an_empty_one(
        self, orchestrator: Orchestrator, owner: Person, listener: Listener
    ) -> None:
        numbers = await pay(orchestrator, owner.tenant_id, 2)
        full = await sync(listener, after_seq=numbers[0] - 1, limit=2)
        assert (len(full["events"]), full["more"], full["next_after_seq"]) == (2, True, numbers[-1])
        rest = await sync(listener, after_seq=full["next_after_seq"], limit=2)
        assert (rest["events"], rest["more"], rest["next_after_seq"]) == ([], False, numbers[-1])

    async def test_the_page_is_500_unless_told_otherwise_and_1000_at_most(
        self, orchestrator: Orchestrator, owner: Person, listener: Listener
    ) -> None:
        head = (await state_of(orchestrator, owner.tenant_id)).head
        await fill(orchestrator, owner.tenant_id, 1_200)
        for asked, size in (({}, 500), ({"limit": 1}, 1), ({"limit": 1_000}, 1_000)):
            page = await sync(listener, **{"after_seq": head, **asked})
            assert [event["seq"] for event in page["events"]] == list(range(head + 1, head + 1 + size))
            assert (page["more"], page["next_after_seq"]) == (True, head + size)

    async def test_shows_what_the_namespace_and_the_user_may_hear_only(
        self, orchestrator: Orchestrator, owner: Person, colleague: Person
    ) -> None:
        head = (await state_of(orchestrator, owner.tenant_id)).head
        await fill(orchestrator, owner.tenant_id, 1)
        await fill(orchestrator, owner.tenant_id, 1, namespace="/provisioning")
        await fill(orchestrator, owner.tenant_id, 1, room=member_room(owner.tenant_id, owner.user_id))
        for person, place, expected in (
            (owner, "/", [1, 2, 3]),
            (owner, "/ws/billing", [1, 3]),
            (owner, "/provisioning", [2]),
            (colleague, "/ws", [1, 2]),
        ):
            listener = await Listener().connect(orchestrator.url, person.token, place)
            page = await sync(listener, place, after_seq=head)
            assert [event["seq"] - head for event in page["events"]] == expected, place
            assert page["next_after_seq"] == head + 3, "nothing in between needs to be asked for again"
            await listener.close()

    async def test_a_lost_place_is_told_with_the_way_on(
        self, orchestrator: Orchestrator, owner: Person, listener: Listener
    ) -> None:
        numbers = await pay(orchestrator, owner.tenant_id, 3)
        await forget(orchestrator.house.engine, owner.tenant_id, numbers[0])
        state = await state_of(orchestrator, owner.tenant_id)
        for asked, reason in (
            ({"after_seq": numbers[0] - 1}, "pruned"),
            ({"after_seq": numbers[-1] + 1}, "future"),
            ({"after_seq": 2**63 - 1, "epoch": state.epoch}, "future"),
            ({"after_seq": numbers[-1], "epoch": "0ld"}, "epoch"),
        ):
            error = refusal(await sync(listener, **asked), "POSITION_LOST")
            assert error.pop("message")
            assert error == {"code": "POSITION_LOST", "reason": reason, "epoch": state.epoch, "head": state.head}
        page = await sync(listener, after_seq=numbers[0], epoch=state.epoch)
        assert [event["seq"] for event in page["events"]] == numbers[1:]

    @pytest.mark.parametrize(
        "payload",
        [
            None,
            {},
            [],
            "text",
            5,
            {"after_seq": None},
            {"after_seq": -1},
            {"after_seq": "5"},
            {"after_seq": 1.5},
            {"after_seq": True},
            {"after_seq": 2**63},
            {"after_seq": 0, "limit": 0},
            {"after_seq": 0, "limit": 1_001},
            {"after_seq": 0, "limit": "5"},
            {"after_seq": 0, "limit": True},
            {"after_seq": 0, "limit": None},
            {"after_seq": 0, "epoch": 5},
            {"after_seq": 0, "epoch": 0},
            {"after_seq": 0, "epoch": {}},
            {"after_seq": 0, "epoch": ["a"]},
        ],
        ids=repr,
    )
    async def test_bad_input_is_told_so(self, listener: Listener, payload: object) -> None:
        refusal(await listener.client.call("sync", payload), "VALIDATION_ERROR")
        assert await listener.client.call("ping") == {"ok": True}
