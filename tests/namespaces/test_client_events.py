"""What clients say: `ping`, `notification_read`, and everything else that must get a coded answer and harm nobody."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
import socketio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from models.notifications import NotificationType
from namespaces.names import ALL
from services.unit_of_work import TenantScope
from tests.support.listeners import Listener
from tests.support.people import Person
from tests.support.running import Orchestrator


@pytest.fixture
async def listener(orchestrator: Orchestrator, owner: Person) -> AsyncIterator[Listener]:
    listener = await Listener().connect(orchestrator.url, owner.token, "/")
    yield listener
    await listener.close()


async def notify(orchestrator: Orchestrator, person: Person) -> str:
    """Leave a notification for somebody and return its id."""
    async with orchestrator.units(TenantScope(person.tenant_id)) as uow:
        (notification,) = await orchestrator.services.notifications.notify(
            uow,
            tenant_id=person.tenant_id,
            user_ids=[person.user_id],
            type=NotificationType.INFO,
            title="Hello",
            message="There is news",
        )
    return str(notification.id)


async def shown(person: Person, notification_id: str) -> dict[str, Any]:
    _, answer = await person.get("notifications")
    (view,) = [view for view in answer["data"] if view["id"] == notification_id]
    found: dict[str, Any] = view
    return found


def coded(answer: Any, code: str) -> str:
    """Check that an acknowledgement is a coded refusal and return its message."""
    assert set(answer) == {"ok", "error"}
    assert (answer["ok"], answer["error"]["code"]) == (False, code)
    message: str = answer["error"]["message"]
    assert message
    return message


async def still_lives(listener: Listener) -> None:
    assert await listener.client.call("ping", timeout=10) == {"ok": True}


class TestPing:
    @pytest.mark.parametrize("data", [None, {}, {"at": 1}, "text", [1, 2]], ids=repr)
    async def test_is_answered_whatever_it_carries(self, listener: Listener, data: object) -> None:
        assert await listener.client.call("ping", data) == {"ok": True}
        await listener.until(lambda: listener.of("pong"))
        assert listener.of("pong") == [None], "pong carries no data"

    async def test_needs_no_acknowledgement(self, listener: Listener) -> None:
        await listener.client.emit("ping")
        await listener.until(lambda: listener.of("pong"))

    async def test_is_answered_in_its_own_namespace_only(self, orchestrator: Orchestrator, owner: Person) -> None:
        listener = await Listener().connect(orchestrator.url, owner.token, *ALL)
        for namespace in ALL:
            assert await listener.client.call("ping", namespace=namespace) == {"ok": True}
        await listener.until(lambda: len(listener.of("pong")) == len(ALL))
        assert [place for place, event, _ in listener.heard if event == "pong"] == list(ALL)
        await listener.close()


class TestNotificationRead:
    @pytest.mark.parametrize("namespace", ALL)
    async def test_is_stored_confirmed_and_acknowledged(
        self, orchestrator: Orchestrator, owner: Person, namespace: str
    ) -> None:
        listener = await Listener().connect(orchestrator.url, owner.token, namespace)
        notification_id = await notify(orchestrator, owner)
        assert not (await shown(owner, notification_id))["read"]
        answer = await listener.client.call(
            "notification_read", {"notification_id": notification_id}, namespace=namespace
        )
        assert answer == {"ok": True}
        view = await shown(owner, notification_id)
        assert view["read"]
        assert view["read_at"].endswith("Z")
        await listener.until(lambda: listener.of("notification_read_confirmed"))
        assert listener.of("notification_read_confirmed") == [{"notification_id": notification_id}]
        await listener.close()

    async def test_twice_is_once(self, orchestrator: Orchestrator, owner: Person, listener: Listener) -> None:
        body = {"notification_id": await notify(orchestrator, owner)}
        assert await listener.client.call("notification_read", body) == {"ok": True}
        first = (await shown(owner, body["notification_id"]))["read_at"]
        assert await listener.client.call("notification_read", body) == {"ok": True}
        assert (await shown(owner, body["notification_id"]))["read_at"] == first

    @pytest.mark.parametrize(
        "payload",
        [None, {}, {"notification_id": None}, {"notification_id": ""}, "text", 5, [], ["x"], True, {"id": "x"}],
        ids=repr,
    )
    async def test_without_an_id_says_what_is_missing(self, listener: Listener, payload: object) -> None:
        answer = await listener.client.call("notification_read", payload)
        assert coded(answer, "VALIDATION_ERROR") == "notification_id required"
        await listener.until(lambda: listener.of("error"))
        assert listener.of("error") == [{"message": "notification_id required"}]
        await still_lives(listener)

    @pytest.mark.parametrize(
        "value",
        ["not-a-uuid", 5, 1.5, True, ["x"], {"a": 1}, "x" * 10_000, "' OR 1=1 --", "нет", "a\0b"],
        ids=range(10),
    )
    async def test_with_an_id_that_is_none(self, listener: Listener, value: object) -> None:
        answer = await listener.client.call("notification_read", {"notification_id": value})
        coded(answer, "VALIDATION_ERROR")
        await listener.until(lambda: listener.of("error"))
        await still_lives(listener)

    async def test_unknown_and_foreign_ids_are_not_found(
        self, orchestrator: Orchestrator, listener: Listener, stranger: Person
    ) -> None:
        theirs = await notify(orchestrator, stranger)
        for notification_id in (str(uuid4()), theirs):
            answer = await listener.client.call("notification_read", {"notification_id": notification_id})
            assert coded(answer, "NOT_FOUND") == "Notification not found"
        assert not (await shown(stranger, theirs))["read"]
        assert listener.of("notification_read_confirmed") == []


class TestNoise:
    @pytest.mark.parametrize(
        "event",
        ["nothing", "", "Ping", "join", "enter_room", "trigger_event", "welcome", "_ping", "on_ping", "__init__"],
    )
    async def test_an_unknown_event_is_told_so(self, listener: Listener, event: str) -> None:
        coded(await listener.client.call(event, {"x": 1}), "UNKNOWN_EVENT")
        await still_lives(listener)

    @pytest.mark.parametrize("event", ["connect", "disconnect", "connect_error"])
    async def test_events_of_the_protocol_are_not_for_clients(
        self, orchestrator: Orchestrator, owner: Person, stranger: Person, listener: Listener, event: str
    ) -> None:
        """A client may name its event as it likes; that must neither sign it in as somebody nor free a seat."""
        odd = await Listener().connect(orchestrator.url, owner.token, "/")
        for payload in ({"QUERY_STRING": f"token={stranger.token}"}, {}):
            packet = socketio.packet.Packet(socketio.packet.EVENT, data=[event, payload], namespace="/", id=7)
            await odd.client._send_packet(packet)
        await odd.until(lambda: not odd.client.connected)
        await still_lives(listener)
        await notify(orchestrator, owner)
        await listener.until(lambda: listener.of("notification:new"))
        assert not orchestrator.house.sockets.seats.count(stranger.tenant_id)
        await odd.close()

    @pytest.mark.parametrize(
        "data",
        [
            [],
            [5],
            [None],
            [{}],
            [["ping"]],
            ["ping", *range(100)],
            ["notification_read", {"notification_id": "x"}, {"notification_id": "y"}],
            {"ping": 1},
            "ping",
            5,
        ],
        ids=range(10),
    )
    async def test_odd_packets_end_at_most_their_own_connection(
        self, orchestrator: Orchestrator, owner: Person, listener: Listener, data: Any
    ) -> None:
        odd = await Listener().connect(orchestrator.url, owner.token, "/")
        packet = socketio.packet.Packet(socketio.packet.EVENT, data=data, namespace="/", id=7)
        await odd.client._send_packet(packet)
        await still_lives(listener)
        await odd.close()

    async def test_words_before_connecting_are_not_heard(
        self, orchestrator: Orchestrator, owner: Person, listener: Listener
    ) -> None:
        notification_id = await notify(orchestrator, owner)
        packet = socketio.packet.Packet(
            socketio.packet.EVENT,
            data=["notification_read", {"notification_id": notification_id}],
            namespace="/billing",
            id=7,
        )
        odd = await Listener().connect(orchestrator.url, owner.token, "/")
        await odd.client._send_packet(packet)
        await odd.until(lambda: not odd.client.connected)
        await still_lives(listener)
        assert not (await shown(owner, notification_id))["read"]

    async def test_a_message_that_is_too_large_ends_its_own_connection(
        self, orchestrator: Orchestrator, owner: Person, listener: Listener
    ) -> None:
        large = await Listener().connect(orchestrator.url, owner.token, "/")
        await large.client.emit("ping", "x" * 1_000_000)
        await large.until(lambda: not large.client.connected)
        await still_lives(listener)


class TestFaults:
    async def test_a_fault_of_ours_is_coded_and_the_connection_lives(
        self, orchestrator: Orchestrator, listener: Listener, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fail(*_: object) -> None:
            raise RuntimeError("postgresql://app:secret@db/app")

        monkeypatch.setattr(orchestrator.services.notifications, "mark_read", fail)
        answer = await listener.client.call("notification_read", {"notification_id": str(uuid4())})
        assert coded(answer, "INTERNAL") == "Internal error"
        assert set(answer["error"]) == {"code", "message", "request_id"}
        assert "secret" not in str(answer)
        await still_lives(listener)

    async def test_a_database_that_went_away_is_told_as_such(
        self,
        engine: AsyncEngine,
        orchestrator: Orchestrator,
        owner: Person,
        listener: Listener,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The same answer as over REST, so that clients know that the same words may help later."""

        async def cut(uow: Any, *_: object) -> None:
            # The role that the server works as may cut nobody off.
            await uow.session.execute(text("RESET ROLE"))
            await uow.session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

        body = {"notification_id": await notify(orchestrator, owner)}
        with monkeypatch.context() as patched:
            patched.setattr(orchestrator.services.notifications, "mark_read", cut)
            coded(await listener.client.call("notification_read", body), "UNAVAILABLE")
        assert await listener.client.call("notification_read", body) == {"ok": True}
