"""Entitlement over time: nobody hears a second longer than they may, on any instance."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import ClassVar, Literal
from uuid import uuid4

import pytest

from models.events import PLATFORM as PLATFORM_STREAM
from realtime.log import NumberedEvent
from realtime.rooms import managers_room
from services.auth import Device
from services.events import DomainEvent
from services.standing import sessions_ended
from tests.namespaces.conftest import sign_in
from tests.namespaces.endings import (
    ENDINGS,
    PLATFORM,
    PROMISE_S,
    PROMISE_WITHOUT_REDIS_S,
    change_role,
    enter,
    enter_all,
    log_out,
    principal_of,
    revoked,
    seat_of,
    standing_of,
    superuser,
    suspend,
    tell_managers,
)
from tests.namespaces.instances import beside
from tests.namespaces.newcomers import newcomer
from tests.namespaces.wire import Wire
from tests.support.listeners import Listener
from tests.support.people import Person
from tests.support.relay import relay_to
from tests.support.running import Orchestrator
from tests.support.waiting import until


class MembersTold(DomainEvent):
    """An event for everybody."""

    event: ClassVar[str] = "test:members"
    namespace: ClassVar[Literal["/notifications"]] = "/notifications"


class TestRevocation:
    @pytest.mark.parametrize("what", ENDINGS)
    async def test_every_socket_everywhere_is_told_why_and_ends(
        self, instances: list[Orchestrator], boss: Person, guest: Person, what: str
    ) -> None:
        deed, code, refusal = ENDINGS[what]
        victims = await enter_all(instances, guest, "/", "/ws/billing")
        others = await enter_all(instances, boss)

        await deed(instances[0], boss, guest)
        await until(lambda: all(revoked(wire) for wire in victims), PROMISE_S)

        assert {revoked(wire) for wire in victims} == {code}
        assert len(victims[0].of("auth:revoked")) == 1
        for one in instances:
            late = await enter(one, guest)
            assert late.refusal["data"]["code"] == refusal
            assert not any(seat.principal.user_id == guest.user_id for seat in one.house.sockets.seats.all())
        if what in ("deletion", "suspension"):
            await until(lambda: {revoked(wire) for wire in others} == {code}, PROMISE_S)
        else:
            for wire in others:
                assert await wire.say("ping") == {"ok": True}
        for wire in victims + others:
            await wire.drop()

    async def test_whoever_acts_in_somebodys_name_is_put_out_when_they_end_it(
        self, instances: list[Orchestrator], guest: Person
    ) -> None:
        server = instances[0]
        async with server.units(PLATFORM) as uow:
            seen = await server.services.platform.impersonation.begin(
                uow,
                await superuser(uow),
                user_id=guest.user_id,
                reason="a test",
                tenant_id=guest.tenant_id,
                device=Device(),
            )
        acting = await enter_all(instances, guest, "/", "/notifications", token=seen.access_token)
        assert all(wire.of("connected")[0][0]["user_id"] == str(guest.user_id) for wire in acting)
        own = await enter_all(instances, guest)
        status, answer = await guest.delete(f"auth/sessions/{seen.session_id}")
        assert status == 200, answer
        await until(lambda: all(revoked(wire) for wire in acting), PROMISE_S)
        assert {revoked(wire) for wire in acting} == {"SESSION_REVOKED"}
        assert [await wire.say("ping") for wire in own] == [{"ok": True}] * len(own)
        for wire in acting + own:
            await wire.drop()

    async def test_a_stock_client_stays_away(self, instances: list[Orchestrator], guest: Person) -> None:
        listener = await Listener().connect(instances[-1].url, guest.token, "/", "/billing")
        await log_out(instances[0], guest, guest)
        await listener.until(lambda: not listener.client.connected, PROMISE_S)
        assert [body["code"] for body in listener.of("auth:revoked")] == ["SESSION_REVOKED"] * 2
        assert set(listener.of("auth:revoked")[0]) == {"code", "message"}

    async def test_one_session_ends_and_the_users_others_do_not(
        self, instances: list[Orchestrator], stranger: Person
    ) -> None:
        ended, kept = replace(stranger, token=await sign_in(stranger)), await sign_in(stranger)
        first = await enter_all(instances, ended)
        second = await enter_all(instances, stranger, token=kept)
        await log_out(instances[0], stranger, ended)
        await until(lambda: all(revoked(wire) for wire in first), PROMISE_S)
        for wire in second:
            assert await wire.say("ping") == {"ok": True}
        for wire in first + second:
            await wire.drop()

    async def test_nothing_is_heard_after_the_end(
        self, orchestrator: Orchestrator, boss: Person, guest: Person
    ) -> None:
        """Not even what is delivered in the same turn of the loop, before the socket could be put out."""
        [victim], [witness] = await enter_all([orchestrator], guest), await enter_all([orchestrator], boss)
        ending = sessions_ended([principal_of(guest).session_id])
        sockets = orchestrator.house.sockets
        sockets.deliver(_numbered(ending, 1), "epoch")
        sockets.deliver(_numbered(MembersTold(tenant_id=boss.tenant_id), 10**9), "epoch")
        await witness.until(lambda: witness.of("test:members"))
        await victim.until(lambda: revoked(victim))
        assert victim.of("test:members") == []
        for wire in (victim, witness):
            await wire.drop()

    async def test_a_reinstated_tenant_is_let_in_again(self, instances: list[Orchestrator], boss: Person) -> None:
        victims = await enter_all(instances, boss)
        await suspend(instances[0], boss, boss)
        await until(lambda: all(revoked(wire) for wire in victims), PROMISE_S)
        slug = boss.registration["current_tenant"]["slug"]
        async with instances[0].units(PLATFORM) as uow:
            assert await instances[0].services.tenants.suspension.reinstate(uow, slug=slug)
        for wire in await enter_all(instances, boss):
            assert await wire.say("ping") == {"ok": True}
            await wire.drop()

    @pytest.mark.cluster
    @pytest.mark.parametrize("what", ["logout", "removal"])
    async def test_without_redis_the_log_tells_of_it(
        self, orchestrator: Orchestrator, boss: Person, guest: Person, what: str
    ) -> None:
        deed, code, _ = ENDINGS[what]
        async with (
            relay_to(orchestrator.settings.redis_url.get_secret_value()) as (relay, url),
            beside(orchestrator, redis_url=type(orchestrator.settings.redis_url)(url)) as other,
        ):
            [victim] = await enter_all([other], guest)
            await relay.cut()
            await deed(orchestrator, boss, guest)
            await until(lambda: revoked(victim) == code, PROMISE_WITHOUT_REDIS_S)
            late = await enter(other, guest)
            assert late.refusal is not None
            await victim.drop()

    async def test_an_ended_token_is_refused_by_an_instance_that_starts_later(
        self, orchestrator: Orchestrator, guest: Person
    ) -> None:
        await log_out(orchestrator, guest, guest)
        async with beside(orchestrator) as late:
            wire = await enter(late, guest)
            assert wire.refusal["data"]["code"] == "TOKEN_REVOKED"


class TestRoles:
    async def test_rooms_are_entered_and_left_with_the_role(
        self, instances: list[Orchestrator], boss: Person, guest: Person
    ) -> None:
        wires = await enter_all(instances, guest)
        witnesses = await enter_all(instances, boss)

        async def tell(number: int) -> None:
            await tell_managers(instances[0], boss, number)
            await until(lambda: all(len(wire.of("test:managers")) == number for wire in witnesses))

        await tell(1)
        await change_role(boss, guest, "admin")
        await until(lambda: all(wire.of("auth:changed") == [[{"role": "admin"}]] for wire in wires), PROMISE_S)
        await tell(2)
        for wire in wires:
            assert str(guest.user_id) in (await wire.say("presence"))["users"]
        await change_role(boss, guest, "member")
        await until(lambda: all(len(wire.of("auth:changed")) == 2 for wire in wires), PROMISE_S)
        await tell(3)
        for wire in wires:
            assert set(await wire.say("presence")) == {"ok", "online"}
            page = await wire.say("sync", {"after_seq": 0})
            assert "test:managers" not in [event["event"] for event in page["events"]]
            assert [body[0]["number"] for body in wire.of("test:managers")] == [2]
        for wire in wires + witnesses:
            await wire.drop()

    @pytest.mark.parametrize(("former", "present"), [("admin", "member"), ("member", "admin")])
    async def test_the_database_knows_better_than_an_old_token(
        self,
        instances: list[Orchestrator],
        boss: Person,
        former: str,
        present: str,
    ) -> None:
        guest = await newcomer(instances[0], boss, former)
        [wire] = await enter_all(instances[:1], guest)
        assert ("users" in await wire.say("presence")) == (former == "admin")
        await wire.drop()
        await change_role(boss, guest, present)
        standings = [standing_of(one) for one in instances]
        await until(lambda: all(standing.doubts(principal_of(guest)) for standing in standings), PROMISE_S)
        for server, wire in zip(instances, await enter_all(instances, guest), strict=True):
            assert ("users" in await wire.say("presence")) == (present == "admin")
            # A token that is as old as the first does not bring the former role back either.
            assert (await wire.say("auth:refresh", {"token": guest.token}))["ok"] is True
            assert ("users" in await wire.say("presence")) == (present == "admin")
            assert (managers_room(guest.tenant_id) in _rooms(server, wire)) == (present == "admin")
            await wire.drop()


class TestSurprises:
    async def test_a_change_of_another_release_is_skipped(self, orchestrator: Orchestrator, guest: Person) -> None:
        """What one instance does not understand must not keep it from hearing what follows."""

        class Later(DomainEvent):
            event: ClassVar[str] = "authority:changed"
            namespace: ClassVar[str] = ""
            change: str

            def room(self) -> str:
                return ""

        [wire] = await enter_all([orchestrator], guest)
        async with orchestrator.units(PLATFORM) as uow:
            uow.record(Later(tenant_id=PLATFORM_STREAM, change="planet_closed"))
        await log_out(orchestrator, guest, guest)
        await wire.until(lambda: revoked(wire), PROMISE_S)
        async with beside(orchestrator) as late:
            assert standing_of(late).doubts(principal_of(guest))
        await wire.drop()


def _numbered(fact: DomainEvent, seq: int) -> NumberedEvent:
    """Return an event as the log would give it."""
    return NumberedEvent(
        id=uuid4(),
        tenant_id=fact.tenant_id,
        namespace=fact.namespace,
        room=fact.room(),
        name=fact.event,
        payload=fact.payload(),
        created_at=datetime.now(UTC),
        seq=seq,
    )


def _rooms(server: Orchestrator, wire: Wire) -> tuple[str, ...]:
    return seat_of(server, wire).member.rooms
