"""Resuming, packet by packet: what is answered to every place a client may bring, true, old, foreign or forged."""

from typing import Any

import pytest

from realtime.rooms import managers_room, member_room
from tests.namespaces.deploying import fill, pay, state_of
from tests.namespaces.resuming import Enter, goes_on, reset_of
from tests.namespaces.test_delivery import every_event, record
from tests.support.people import Person
from tests.support.running import Orchestrator


class TestAnswers:
    async def test_a_plain_client_is_answered_as_ever(
        self, orchestrator: Orchestrator, owner: Person, enter: Enter
    ) -> None:
        for auth in ({}, {"recovery": False}, {"recovery": 1}, {"recovery": "true"}, {"pid": "x", "offset": "y"}):
            wire = await enter(**auth)
            assert set(wire.answer or ()) == {"sid"}
            (numbers,) = ([number] for number in await pay(orchestrator, owner.tenant_id, 1))
            await wire.hears(1)
            assert wire.numbers == numbers
            assert all(len(words) == 2 for words in wire.heard), "one argument"
            assert wire.names == ["connected", "payment:received"]
            await wire.drop()

    async def test_a_recovering_client_learns_its_pid_and_its_place(
        self, orchestrator: Orchestrator, owner: Person, enter: Enter
    ) -> None:
        state = await state_of(orchestrator, owner.tenant_id)
        wire = await enter(recovery=True)
        await wire.until(lambda: wire.of("rt:pos"))
        place = f"{state.epoch}.{state.head}"
        assert set(wire.answer or ()) == {"sid", "pid"}
        assert wire.names == ["connected", "rt:pos"]
        ((greeting, position),) = wire.of("connected")
        assert (greeting["epoch"], greeting["seq"], position) == (state.epoch, state.head, place)
        assert wire.of("rt:pos") == [[place]]
        await pay(orchestrator, owner.tenant_id, 1)
        await wire.until(lambda: wire.numbers)
        assert wire.heard[-1][2] == f"{state.epoch}.{wire.numbers[-1]}"
        await wire.drop()

    async def test_who_comes_back_gets_its_id_again_and_what_it_missed(
        self, orchestrator: Orchestrator, owner: Person, enter: Enter
    ) -> None:
        first = await enter(recovery=True)
        await first.until(lambda: first.of("rt:pos"))
        place = first.position
        await first.drop()
        missed = await pay(orchestrator, owner.tenant_id, 3)
        second = await enter(recovery=True, pid=(first.answer or {})["pid"], offset=place)
        assert second.answer == first.answer
        await second.until(lambda: second.of("rt:pos"))
        assert second.numbers == missed
        assert second.names == ["connected", *["payment:received"] * 3, "rt:pos"]
        assert second.of("connected")[0][1] == place
        await goes_on(orchestrator, owner, second, before=3)

    async def test_who_comes_back_before_anybody_has_missed_it_takes_its_own_place(
        self, orchestrator: Orchestrator, owner: Person, enter: Enter
    ) -> None:
        """A phone that changes networks is back long before the server learns that its old connection is dead."""
        first = await enter(recovery=True)
        await first.until(lambda: first.of("rt:pos"))
        heard = await pay(orchestrator, owner.tenant_id, 2)
        await first.until(lambda: first.numbers == heard)
        seats = orchestrator.house.sockets.seats
        seated = seats.count(owner.tenant_id)
        second = await enter(recovery=True, pid=(first.answer or {})["pid"], offset=first.position)
        assert second.answer == first.answer
        await first.until(lambda: not first.open)
        await second.until(lambda: seats.count(owner.tenant_id) == seated)
        assert await second.say("ping") == {"ok": True}
        await goes_on(orchestrator, owner, second)
        assert first.numbers == heard

    async def test_who_was_cut_off_before_it_heard_anything_starts_anew(
        self, orchestrator: Orchestrator, owner: Person, enter: Enter
    ) -> None:
        first = await enter(recovery=True)
        await first.drop()
        await pay(orchestrator, owner.tenant_id, 1)
        second = await enter(recovery=True, pid=(first.answer or {})["pid"])
        await second.until(lambda: second.of("rt:pos"))
        assert second.answer != first.answer
        assert second.names == ["connected", "rt:pos"]
        await goes_on(orchestrator, owner, second)

    async def test_a_client_that_kept_its_place_itself_may_start_with_it(
        self, orchestrator: Orchestrator, owner: Person, enter: Enter
    ) -> None:
        numbers = await pay(orchestrator, owner.tenant_id, 4)
        wire = await enter(recovery=True, last_seq=numbers[0])
        await wire.until(lambda: wire.of("rt:pos"))
        assert wire.numbers == numbers[1:]
        assert set(wire.answer or ()) == {"sid", "pid"}
        await goes_on(orchestrator, owner, wire, before=3)


class TestForgeries:
    """Whoever brings what is not its own starts anew, is told so, and gets nothing of others."""

    @pytest.mark.parametrize("pid", [None, 5, "", "x", "x.y", ["a"], {"a": 1}, "п.ид", "x" * 10_000], ids=range(9))
    async def test_a_pid_that_is_none(
        self, orchestrator: Orchestrator, owner: Person, enter: Enter, pid: object
    ) -> None:
        state = await state_of(orchestrator, owner.tenant_id)
        await pay(orchestrator, owner.tenant_id, 1)
        wire = await enter(recovery=True, pid=pid, offset=f"{state.epoch}.{state.head}")
        await reset_of(orchestrator, owner, wire, "invalid")
        assert (wire.answer or {})["pid"] != pid
        await goes_on(orchestrator, owner, wire)

    @pytest.mark.parametrize(
        "whose", ["a colleague's", "another tenant's", "another namespace's", "tampered with", "another socket's"]
    )
    async def test_a_pid_that_is_not_its_own(  # noqa: PLR0917 - fixtures
        self,
        orchestrator: Orchestrator,
        owner: Person,
        stranger: Person,
        colleague: Person,
        enter: Enter,
        whose: str,
    ) -> None:
        holder = {"a colleague's": colleague, "another tenant's": stranger}.get(whose, owner)
        theirs = await enter("/billing" if "namespace" in whose else "/", person=holder, recovery=True)
        sid, _, mac = (theirs.answer or {})["pid"].rpartition(".")
        pid = f"{sid}.{mac}"
        if whose == "tampered with":
            pid = f"{sid}.{mac[::-1]}"
        elif whose == "another socket's":
            other = await enter(recovery=True)
            pid = f"{(other.answer or {})['sid']}.{mac}"
            await other.drop()
        state = await state_of(orchestrator, owner.tenant_id)
        wire = await enter(recovery=True, pid=pid, offset=f"{state.epoch}.{max(0, state.head - 1)}")
        await reset_of(orchestrator, owner, wire, "invalid")
        assert (wire.answer or {})["sid"] not in (sid, pid)
        assert theirs.open, "nobody is put out by a forger"
        assert await theirs.say("ping") == {"ok": True}
        assert wire.numbers == []
        await theirs.drop()
        await goes_on(orchestrator, owner, wire)

    @pytest.mark.parametrize(
        "offset", [None, 5, "", "x", "5", "a.b", ".", ["a.1"], "a.-1", "a.1.1", "a." + "9" * 40], ids=range(11)
    )
    async def test_an_offset_that_is_none(
        self, orchestrator: Orchestrator, owner: Person, enter: Enter, offset: object
    ) -> None:
        first = await enter(recovery=True)
        await first.drop()
        await pay(orchestrator, owner.tenant_id, 1)
        wire = await enter(recovery=True, pid=(first.answer or {})["pid"], offset=offset)
        await reset_of(orchestrator, owner, wire, "invalid")
        assert wire.answer != first.answer
        await goes_on(orchestrator, owner, wire)

    @pytest.mark.parametrize("shift", [1, 1_000, 10**17])
    async def test_a_place_that_is_yet_to_come(
        self, orchestrator: Orchestrator, owner: Person, enter: Enter, shift: int
    ) -> None:
        first = await enter(recovery=True)
        await first.drop()
        state = await state_of(orchestrator, owner.tenant_id)
        place = state.head + shift
        pid = (first.answer or {})["pid"]
        recovering = await enter(recovery=True, pid=pid, offset=f"{state.epoch}.{place}")
        plain = await enter(last_seq=place, epoch=state.epoch)
        for wire in (recovering, plain):
            await reset_of(orchestrator, owner, wire, "future")
        assert (recovering.answer or {})["pid"] != pid
        await plain.drop()
        await goes_on(orchestrator, owner, recovering)

    async def test_a_place_in_a_life_of_the_log_that_is_over(
        self, orchestrator: Orchestrator, owner: Person, enter: Enter
    ) -> None:
        first = await enter(recovery=True)
        await first.drop()
        numbers = await pay(orchestrator, owner.tenant_id, 2)
        recovering = await enter(recovery=True, pid=(first.answer or {})["pid"], offset=f"0ld.{numbers[0]}")
        plain = await enter(last_seq=numbers[0], epoch="0ld")
        for wire in (recovering, plain):
            await reset_of(orchestrator, owner, wire, "epoch")
            assert wire.numbers == []
        await plain.drop()
        await goes_on(orchestrator, owner, recovering)


class TestPlainClients:
    """Clients of other languages bring the number of the last event that they had."""

    async def test_get_what_came_after_it(self, orchestrator: Orchestrator, owner: Person, enter: Enter) -> None:
        numbers = await pay(orchestrator, owner.tenant_id, 5)
        state = await state_of(orchestrator, owner.tenant_id)
        for auth in ({}, {"epoch": state.epoch}, {"epoch": None}, {"epoch": ""}):
            wire = await enter(last_seq=numbers[1], **auth)
            await wire.hears(3)
            assert wire.numbers == numbers[2:]
            assert all(len(words) == 2 for words in wire.heard)
            assert wire.of("connected")[0][0]["seq"] == numbers[1]
            assert set(wire.answer or ()) == {"sid"}
            await wire.drop()
        wire = await enter("/billing", last_seq=numbers[-1])
        await goes_on(orchestrator, owner, wire)

    async def test_get_their_own_namespace_and_rooms_only(
        self, orchestrator: Orchestrator, owner: Person, colleague: Person, enter: Enter
    ) -> None:
        head = (await state_of(orchestrator, owner.tenant_id)).head
        await fill(orchestrator, owner.tenant_id, 1)
        await fill(orchestrator, owner.tenant_id, 1, namespace="/provisioning")
        await fill(orchestrator, owner.tenant_id, 1, room=member_room(owner.tenant_id, owner.user_id))
        await fill(orchestrator, owner.tenant_id, 1, room=managers_room(owner.tenant_id))
        await fill(orchestrator, owner.tenant_id, 1, room=member_room(colleague.tenant_id, colleague.user_id))
        (last,) = await pay(orchestrator, owner.tenant_id, 1)
        for person, place, expected in (
            (owner, "/", [1, 2, 3, 4, 6]),
            (owner, "/ws/billing", [1, 3, 4, 6]),
            (owner, "/provisioning", [2]),
            (colleague, "/", [1, 2, 5, 6]),
            (colleague, "/billing", [1, 5, 6]),
        ):
            wire = await enter(place, person=person, last_seq=head)
            await wire.hears(len(expected))
            assert [number - head for number in wire.numbers] == expected, (place, last)
            await wire.drop()

    async def test_do_not_get_second_names_of_what_they_missed(
        self, orchestrator: Orchestrator, owner: Person, enter: Enter
    ) -> None:
        head = (await state_of(orchestrator, owner.tenant_id)).head
        facts = every_event(owner.tenant_id, owner.user_id)
        await record(orchestrator, *facts)
        wire = await enter(last_seq=head)
        await wire.hears(len(facts))
        assert wire.names == ["connected", *(fact.event for fact in facts)]
        await wire.drop()

    @pytest.mark.parametrize(
        "auth",
        [
            {"last_seq": -1},
            {"last_seq": "5"},
            {"last_seq": 1.5},
            {"last_seq": True},
            {"last_seq": [1]},
            {"last_seq": 1, "epoch": 5},
            {"last_seq": 1, "epoch": {}},
            {"last_seq": 1, "epoch": False},
            {"last_seq": 1, "epoch": ["a"]},
        ],
        ids=repr,
    )
    async def test_are_told_when_it_is_none(
        self, orchestrator: Orchestrator, owner: Person, enter: Enter, auth: dict[str, Any]
    ) -> None:
        wire = await enter(**auth)
        await reset_of(orchestrator, owner, wire, "invalid")
        await goes_on(orchestrator, owner, wire)
