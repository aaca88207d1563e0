"""API keys on sockets: what they hear, what they may say, and that they are put out everywhere at once."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal

import pytest
import socketio

from namespaces.names import ALL, subject_of
from services.events import DomainEvent
from services.permissions import KeyScope
from services.unit_of_work import TenantScope
from tests.namespaces.conftest import sign_in
from tests.namespaces.endings import PROMISE_S, enter, enter_all, revoked, suspend, tell_managers
from tests.namespaces.instances import beside
from tests.namespaces.wire import Wire
from tests.support.keys import MadeKey, make_key
from tests.support.listeners import Listener
from tests.support.people import Person
from tests.support.running import Orchestrator
from tests.support.waiting import until


class JobTold(DomainEvent):
    """An event about provisioning, for everybody."""

    event: ClassVar[str] = "test:job"
    namespace: ClassVar[Literal["/provisioning"]] = "/provisioning"


class MoneyTold(DomainEvent):
    """An event about money, for everybody."""

    event: ClassVar[str] = "test:money"
    namespace: ClassVar[Literal["/billing"]] = "/billing"


async def refusal(server: Orchestrator, key: MadeKey, namespace: str = "/") -> str | None:
    """Return why a key is not let in, if it is not."""
    wire = await enter(server, key.machine, namespace)
    await wire.drop()
    return None if wire.refusal is None else str(wire.refusal["data"]["code"])


async def tell(server: Orchestrator, person: Person, *facts: type[DomainEvent]) -> None:
    async with server.units(TenantScope(person.tenant_id)) as uow:
        for fact in facts:
            uow.record(fact(tenant_id=person.tenant_id))


async def test_made_up_keys_are_looked_up_only_so_often(orchestrator: Orchestrator, boss: Person) -> None:
    key = await make_key(boss, KeyScope.EVENTS_READ)
    made_up = [replace(key, text=f"{key.text[:-8]}{number:08d}") for number in range(4)]
    async with beside(orchestrator, rate_key_looks_per_ip="3/minute") as strict:
        refused = [await refusal(strict, one) for one in made_up]
    assert refused == ["AUTH_ERROR"] * 3 + ["RATE_LIMITED"]


class TestHearing:
    @pytest.mark.parametrize(
        ("scope", "subjects"),
        [
            (KeyScope.EVENTS_READ, {None, "/notifications", "/provisioning", "/billing"}),
            (KeyScope.JOBS_READ, {"/provisioning"}),
            (KeyScope.BILLING_READ, {"/billing"}),
            (KeyScope.JOBS_WRITE, set()),
            (KeyScope.AUDIT_READ, set()),
        ],
    )
    async def test_it_is_let_in_where_its_scope_is_about(
        self, orchestrator: Orchestrator, boss: Person, scope: KeyScope, subjects: set[str | None]
    ) -> None:
        key = await make_key(boss, scope)
        found = {namespace: await refusal(orchestrator, key, namespace) for namespace in ALL}
        assert found == {
            namespace: None if subject_of(namespace) in subjects else "SCOPE_REQUIRED" for namespace in ALL
        }

    async def test_it_hears_the_tenants_events_of_its_subject_and_nobodys_own(
        self, instances: list[Orchestrator], boss: Person
    ) -> None:
        jobs, everything = await make_key(boss, KeyScope.JOBS_READ), await make_key(boss, KeyScope.EVENTS_READ)
        [narrow] = await enter_all(instances[-1:], jobs.machine, "/provisioning")
        [wide] = await enter_all(instances[-1:], everything.machine)
        [person] = await enter_all(instances[-1:], boss)
        # Each of them is told of by a notification, which is the owner's own.
        await make_key(boss)
        await tell_managers(instances[0], boss, 1)
        await tell(instances[0], boss, MoneyTold, JobTold)
        for wire in (narrow, wide, person):
            await wire.until(lambda: wire.of("test:job"))  # noqa: B023 - waited for within the turn of the loop
        told = ["connected", "notification:new", "notification", "test:managers", "test:money", "test:job"]
        assert person.names == told
        assert wide.names == ["connected", "test:money", "test:job"]
        assert narrow.names == ["connected", "test:job"]
        answer = await narrow.say("sync", {"after_seq": 0})
        assert {event["namespace"] for event in answer["events"]} == {"/provisioning"}
        assert person.of("test:job") == narrow.of("test:job")
        for wire in (narrow, wide, person):
            await wire.drop()

    async def test_it_comes_back_to_what_it_missed(self, orchestrator: Orchestrator, boss: Person) -> None:
        key = await make_key(boss, KeyScope.EVENTS_READ)
        first = await Wire.enter(boss.http, orchestrator.url, key.text, recovery=True)
        await first.until(lambda: first.of("rt:pos"))
        assert first.answer is not None
        pid, offset = first.answer["pid"], first.position
        await first.drop()
        await tell(orchestrator, boss, JobTold)
        again = await Wire.enter(boss.http, orchestrator.url, key.text, recovery=True, pid=pid, offset=offset)
        await again.until(lambda: again.of("test:job"))
        await again.drop()
        # Another key is another listener.
        other = (await make_key(boss, KeyScope.EVENTS_READ)).text
        wire = await Wire.enter(boss.http, orchestrator.url, other, recovery=True, pid=pid, offset=offset)
        await wire.until(lambda: wire.of("rt:reset"))
        assert wire.of("rt:reset")[0][0]["reason"] == "invalid"
        await wire.drop()

    async def test_nobody_is_online_for_a_machine_but_its_socket_counts(
        self, instances: list[Orchestrator], boss: Person
    ) -> None:
        [person] = await enter_all(instances[:1], boss)
        key = await make_key(boss, KeyScope.EVENTS_READ)
        machines = await enter_all(instances, key.machine)
        assert machines[0].of("connected")[0][0]["user_id"] is None
        await person.until(lambda: person.of("presence:changed"))
        board = instances[0].house.sockets.announcer._board
        await until(lambda: board.sockets_elsewhere(boss.tenant_id) == len(instances) - 1)
        mine = {"online": 1, "users": [str(boss.user_id)]}
        assert await person.say("presence") == {"ok": True, **mine}
        assert await machines[-1].say("presence") == {"ok": True, "online": 1}
        assert [body for [body] in person.of("presence:changed")] == [mine]
        for wire in (person, *machines):
            await wire.drop()


class TestSaying:
    async def test_it_says_what_is_about_nobody(self, orchestrator: Orchestrator, boss: Person) -> None:
        key, other = await make_key(boss, KeyScope.EVENTS_READ), await make_key(boss, KeyScope.EVENTS_READ)
        [wire] = await enter_all([orchestrator], key.machine)
        assert await wire.say("ping") == {"ok": True}
        _, notes = await boss.get("notifications")
        answer = await wire.say("notification_read", {"notification_id": notes["data"][0]["id"]})
        assert answer["error"]["code"] == "API_KEY_REFUSED"
        assert (await boss.get("notifications"))[1]["data"][0]["read"] is False
        assert await wire.say("auth:refresh", {"token": key.text}) == {"ok": True, "expires_at": None}
        for token in (other.text, boss.token):
            answer = await wire.say("auth:refresh", {"token": token})
            assert answer["error"]["code"] == "TOKEN_MISMATCH"
        await wire.drop()

    async def test_a_person_does_not_go_on_with_a_key(self, orchestrator: Orchestrator, boss: Person) -> None:
        [wire] = await enter_all([orchestrator], boss)
        answer = await wire.say("auth:refresh", {"token": (await make_key(boss, *KeyScope)).text})
        assert answer["error"]["code"] == "TOKEN_MISMATCH"
        await wire.drop()


class TestComing:
    @pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
    async def test_a_header_will_do(self, orchestrator: Orchestrator, boss: Person, header: str) -> None:
        key = await make_key(boss, KeyScope.EVENTS_READ)
        value = f"Bearer {key.text}" if header == "Authorization" else key.text
        listener = await Listener().connect(orchestrator.url, "", headers={header: value}, auth=None)
        assert listener.of("connected")[0]["tenant_id"] == str(boss.tenant_id)
        await listener.close()

    @pytest.mark.parametrize("prefix", ["", "Bearer%20"])
    async def test_an_address_will_not(self, orchestrator: Orchestrator, boss: Person, prefix: str) -> None:
        """Not even of a key that was sent in a better place too: by now proxies have written it down."""
        key = await make_key(boss, KeyScope.EVENTS_READ)
        for auth in ({}, {"token": key.text}):
            address = f"{orchestrator.url}/socket.io/?EIO=4&transport=websocket&token={prefix}{key.text}"
            socket = await boss.http.ws_connect(address)
            await socket.receive_str()
            await socket.send_str(f"40{json.dumps(auth)}")
            answer = json.loads((await socket.receive_str()).removeprefix("44"))
            assert answer["data"]["code"] == "API_KEY_IN_ADDRESS"
            await socket.close()

    async def test_no_key_at_all(self, orchestrator: Orchestrator, boss: Person) -> None:
        key = await make_key(boss, KeyScope.EVENTS_READ)
        for text in (key.text[:-1], "erpmax_\ud800"):
            wire = await Wire.enter(boss.http, orchestrator.url, text)
            assert wire.refusal["data"]["code"] == "AUTH_ERROR"
            await wire.drop()


async def end_key(_: Orchestrator, key: MadeKey) -> None:
    await key.revoke()


async def close_tenant(server: Orchestrator, key: MadeKey) -> None:
    await suspend(server, key.owner, key.owner)


class TestEnding:
    @pytest.mark.parametrize(
        ("deed", "code"), [(end_key, "API_KEY_REVOKED"), (close_tenant, "TENANT_SUSPENDED")], ids=["revoked", "closed"]
    )
    async def test_every_socket_everywhere_is_told_why_and_ends(
        self,
        instances: list[Orchestrator],
        boss: Person,
        deed: Callable[[Orchestrator, MadeKey], Awaitable[Any]],
        code: str,
    ) -> None:
        key, other = await make_key(boss, *KeyScope), await make_key(boss, *KeyScope)
        victims = await enter_all(instances, key.machine, "/", "/ws/billing")
        others = await enter_all(instances, other.machine)
        await deed(instances[0], key)
        await until(lambda: all(revoked(wire) == code for wire in victims), PROMISE_S)
        for one in instances:
            assert await refusal(one, key) == code
            assert not any(str(seat.principal.user_id) == key.id for seat in one.house.sockets.seats.all())
        if deed is end_key:
            assert [await wire.say("ping") for wire in others] == [{"ok": True}] * len(others)
        for wire in victims + others:
            await wire.drop()

    async def test_a_stock_client_stays_away(self, instances: list[Orchestrator], boss: Person) -> None:
        key = await make_key(boss, KeyScope.EVENTS_READ)
        client = socketio.AsyncClient(reconnection_delay=0.05)
        told = list[dict[str, str]]()
        client.on("auth:revoked", handler=told.append)
        await client.connect(instances[-1].url, auth={"token": key.text}, transports=["websocket"])
        await key.revoke()
        await until(lambda: not client.connected, PROMISE_S)
        assert told == [{"code": "API_KEY_REVOKED", "message": "This API key has been revoked"}]
        await client.disconnect()

    async def test_its_end_is_the_sockets_end(self, orchestrator: Orchestrator, boss: Person) -> None:
        # Whatever fraction of a second is asked for, neither the socket nor the key has it.
        soon = (datetime.now(UTC) + timedelta(seconds=3)).replace(microsecond=900_000)
        key = await make_key(boss, KeyScope.EVENTS_READ, expires_at=soon.isoformat())
        [wire] = await enter_all([orchestrator], key.machine)
        await wire.until(lambda: not wire.open, 6.0)
        assert wire.names == ["connected", "auth:expiring", "auth:expired"]
        assert await refusal(orchestrator, key) == "API_KEY_EXPIRED"

    async def test_who_made_it_may_go(self, orchestrator: Orchestrator, boss: Person, guest: Person) -> None:
        path = f"tenants/{boss.tenant_id}/users/{guest.user_id}"
        assert (await boss.patch(path, {"role": "admin"}))[0] == 200
        guest.token = await sign_in(guest)
        key = await make_key(guest, KeyScope.EVENTS_READ)
        [wire] = await enter_all([orchestrator], key.machine)
        [person] = await enter_all([orchestrator], guest)
        assert (await boss.delete(path))[0] == 200
        await until(lambda: revoked(person), PROMISE_S)
        assert await wire.say("ping") == {"ok": True}
        for one in (wire, person):
            await one.drop()

    async def test_a_storm_of_connects_while_it_is_revoked_leaves_nobody(
        self, instances: list[Orchestrator], boss: Person
    ) -> None:
        key = await make_key(boss, KeyScope.EVENTS_READ)

        first = await enter_all(instances, key.machine)
        storm = asyncio.gather(*(enter(one, key.machine) for one in instances for _ in range(20)))
        await asyncio.gather(storm, key.revoke())
        wires = [*first, *storm.result()]
        inside = [wire for wire in wires if wire.answer is not None]
        await until(lambda: all(revoked(wire) for wire in inside), PROMISE_S)
        for one in instances:
            assert not any(str(seat.principal.user_id) == key.id for seat in one.house.sockets.seats.all())
        refused = {wire.refusal["data"]["code"] for wire in wires if wire.answer is None}
        assert refused | {revoked(wire) for wire in inside} == {"API_KEY_REVOKED"}
        for wire in wires:
            await wire.drop()

    async def test_an_instance_that_comes_later_knows(self, orchestrator: Orchestrator, boss: Person) -> None:
        key = await make_key(boss, *KeyScope)
        assert (await key.machine.get("provisioning/jobs"))[0] == 200
        await key.revoke()
        async with beside(orchestrator) as later:
            assert await refusal(later, key) == "API_KEY_REVOKED"

    async def test_rows_that_go_with_their_tenant_open_nothing(self, orchestrator: Orchestrator, boss: Person) -> None:
        key = await make_key(boss, *KeyScope)
        [wire] = await enter_all([orchestrator], key.machine)
        assert (await boss.delete(f"tenants/{boss.tenant_id}"))[0] == 200
        await until(lambda: revoked(wire) == "TENANT_DELETED", PROMISE_S)
        await wire.drop()
        assert await refusal(orchestrator, key) == "TENANT_DELETED"
