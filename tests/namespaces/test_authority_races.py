"""Something is taken away at the very moment when a socket comes, or shows a new token."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.namespaces.conftest import sign_in
from tests.namespaces.endings import (
    ENDINGS,
    PROMISE_S,
    change_role,
    enter,
    enter_all,
    log_out,
    principal_of,
    revoked,
    standing_of,
)
from tests.namespaces.instances import beside
from tests.namespaces.newcomers import log_in, newcomer
from tests.namespaces.wire import Wire
from tests.support.people import Person
from tests.support.running import Orchestrator
from tests.support.waiting import until


class TestRaces:
    """Something is taken away while a socket comes, or shows a new token."""

    @pytest.mark.parametrize("what", ["logout", "removal", "suspension"])
    @pytest.mark.parametrize("moment", ["limits are read", "stream is joined", "tail is judged"])
    async def test_a_socket_that_comes_at_that_moment_does_not_stay(
        self,
        orchestrator: Orchestrator,
        boss: Person,
        monkeypatch: pytest.MonkeyPatch,
        what: str,
        moment: str,
    ) -> None:
        deed, code, refusal = ENDINGS[what]
        guest = await newcomer(orchestrator, boss)
        async with beside(orchestrator) as other:
            sockets = other.house.sockets
            target, name = {
                "limits are read": (sockets._quotas, "_load"),
                "stream is joined": (other.house.follower, "join"),
                "tail is judged": (_recovery_of(other), "refusal"),
            }[moment]
            _strike_before(
                monkeypatch, target, name, server=other, deed=lambda: deed(orchestrator, boss, guest), guest=guest
            )
            wire = await enter(other, guest)
            assert wire.answer is None
            assert wire.refusal["data"]["code"] in {code, refusal}
            assert not any(seat.principal.user_id == guest.user_id for seat in sockets.seats.all())
            assert guest.user_id not in await sockets.announcer._board.online(guest.tenant_id)
            await wire.drop()

    async def test_a_role_that_changes_while_the_old_one_is_looked_up_is_not_put_back(
        self,
        orchestrator: Orchestrator,
        boss: Person,
        guest: Person,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        async with beside(orchestrator) as other:
            await _doubted(other, boss, guest, "admin")
            # The look at the tenant comes after the one at the role.
            auth = other.services.auth
            _strike_before(
                monkeypatch,
                auth,
                "require_open_tenant",
                server=other,
                deed=lambda: change_role(boss, guest, "member"),
                guest=guest,
            )
            [wire] = await enter_all([other], guest)
            assert "users" not in await wire.say("presence")
            await wire.drop()

    @pytest.mark.parametrize("what", ["logout", "removal", "suspension"])
    async def test_a_socket_that_is_refreshed_at_that_moment_ends(
        self,
        orchestrator: Orchestrator,
        boss: Person,
        monkeypatch: pytest.MonkeyPatch,
        what: str,
    ) -> None:
        deed, code, _ = ENDINGS[what]
        guest = await newcomer(orchestrator, boss)
        async with beside(orchestrator) as other:
            await _doubted(other, boss, guest, "admin")
            [wire] = await enter_all([other], guest)
            fresh = (await log_in(orchestrator, guest.http, guest.email)).token
            _strike_before(
                monkeypatch,
                other.services.auth,
                "require_open_tenant",
                server=other,
                deed=lambda: deed(orchestrator, boss, guest),
                guest=guest,
            )
            answer = await wire.say("auth:refresh", {"token": fresh})
            assert answer["ok"] is False
            await wire.until(lambda: revoked(wire) == code)
            seats = other.house.sockets.seats
            assert not any(seat.principal.user_id == guest.user_id for seat in seats.all())
            sessions = [principal_of(replace(guest, token=token)).session_id for token in (fresh, guest.token)]
            assert [seats.of_session(session_id) for session_id in sessions] == [[], []]
            await wire.drop()

    async def test_a_storm_of_connects_while_its_session_ends_leaves_nobody(
        self, instances: list[Orchestrator], stranger: Person
    ) -> None:
        token = await sign_in(stranger)
        leaving = replace(stranger, token=token)

        async def come(place: int) -> Wire:
            await asyncio.sleep(0.002 * place)
            return await enter(instances[place % len(instances)], leaving)

        storm = [asyncio.create_task(come(place)) for place in range(60)]
        await asyncio.sleep(0.04)
        await log_out(instances[0], stranger, leaving)
        wires = await asyncio.gather(*storm)
        session_id = principal_of(leaving).session_id
        await until(lambda: not any(one.house.sockets.seats.of_session(session_id) for one in instances), 3.0)
        for wire in wires:
            await wire.until(lambda: wire.refusal or revoked(wire))  # noqa: B023 - waited for within the turn
            assert (wire.refusal["data"]["code"] if wire.refusal else revoked(wire)) in {
                "TOKEN_REVOKED",
                "SESSION_REVOKED",
            }
            await wire.drop()


async def _doubted(server: Orchestrator, owner: Person, guest: Person, role: str) -> None:
    """Change somebody's role, and wait until an instance will therefore ask the database about that person."""
    await change_role(owner, guest, role)
    await until(lambda: standing_of(server).doubts(principal_of(guest)), PROMISE_S)


def _strike_before(
    monkeypatch: pytest.MonkeyPatch,
    target: Any,
    name: str,
    *,
    server: Orchestrator,
    deed: Callable[[], Awaitable[None]],
    guest: Person,
) -> asyncio.Event:
    """Have `deed` done, and heard of by the instance, the moment it first calls a method."""
    original, struck = getattr(target, name), asyncio.Event()
    standing, principal = standing_of(server), principal_of(guest)

    async def strike(*arguments: Any, **named: Any) -> Any:
        if not struck.is_set():
            struck.set()
            before = standing.last_change(principal)
            await deed()
            await until(lambda: standing.last_change(principal) != before)
        return await original(*arguments, **named)

    monkeypatch.setattr(target, name, strike)
    return struck


def _recovery_of(server: Orchestrator) -> Any:
    return server.house.sockets.sio.namespace_handlers["/"]._reception._recovery
