"""A socket lives as long as its token: the notice before its end, the end, and the fresh token that puts it off."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import socketio

from tests.namespaces.conftest import sign_in
from tests.namespaces.endings import (
    PROMISE_S,
    enter,
    enter_all,
    log_out,
    principal_of,
    revoked,
    seat_of,
    standing_of,
)
from tests.namespaces.instances import beside, expiry_of, token_for
from tests.support.people import Person
from tests.support.running import Orchestrator
from tests.support.waiting import until


class TestExpiry:
    async def test_a_notice_comes_before_the_end(self, orchestrator: Orchestrator, owner: Person) -> None:
        token = token_for(orchestrator, owner.token, left_s=28)
        [wire] = await enter_all([orchestrator], owner, token=token)
        await wire.until(lambda: wire.of("auth:expiring"), 2.0)
        [[notice]] = wire.of("auth:expiring")
        assert set(notice) == {"expires_at", "in_s"}
        assert notice["expires_at"] == expiry_of(token).isoformat().replace("+00:00", "Z")
        assert 25 <= notice["in_s"] <= 28
        await wire.drop()

    async def test_notice_and_end_come_when_the_tokens_time_is_over_and_not_before(
        self, orchestrator: Orchestrator, owner: Person
    ) -> None:
        """An instance whose clock is ahead: an ordinary token has seconds left there, which pass in real time."""
        for left_s, event, not_before_s in ((32.0, "auth:expiring", 30.0), (2.0, "auth:expired", 0.0)):
            async with beside(orchestrator) as later:
                expiry = expiry_of(owner.token)
                later.clock.offset = expiry - orchestrator.clock.now() - timedelta(seconds=left_s)
                [wire] = await enter_all([later], owner)
                assert await wire.say("ping") == {"ok": True}
                assert wire.of(event) == []
                await until(lambda: wire.of(event), 5.0)  # noqa: B023 - waited for within the turn of the loop
                assert (expiry - later.clock.now()).total_seconds() <= not_before_s
                await wire.drop()

    async def test_at_its_end_the_connection_is_closed(self, orchestrator: Orchestrator, owner: Person) -> None:
        token = token_for(orchestrator, owner.token, left_s=2)
        [wire] = await enter_all([orchestrator], owner, token=token)
        await wire.until(lambda: not wire.open, 5.0)
        assert wire.heard[-1] == ["auth:expired", {"code": "TOKEN_EXPIRED", "message": "Token has expired"}]
        late = await enter(orchestrator, owner, token=token)
        assert late.refusal["data"]["code"] == "TOKEN_EXPIRED"

    async def test_a_stock_client_comes_back_with_a_token_that_it_asks_for(
        self, orchestrator: Orchestrator, owner: Person
    ) -> None:
        tokens = [token_for(orchestrator, owner.token, left_s=2), owner.token]
        client = socketio.AsyncClient(reconnection_delay=0.05, reconnection_delay_max=0.1)
        welcomed, ended = asyncio.Semaphore(0), list[str]()
        client.on("connected", handler=lambda _: welcomed.release())
        client.on("disconnect", handler=ended.append)
        await client.connect(orchestrator.url, auth=lambda: {"token": tokens.pop(0)}, transports=["websocket"])
        async with asyncio.timeout(10):
            await welcomed.acquire()
            await welcomed.acquire()
        assert (tokens, ended) == ([], ["transport error"])
        assert await client.call("ping") == {"ok": True}
        await client.disconnect()


class TestRefresh:
    async def test_a_fresh_token_keeps_the_socket(self, instances: list[Orchestrator], owner: Person) -> None:
        token = token_for(instances[0], owner.token, left_s=3)
        kept = await enter_all(instances, owner, token=token)
        ended = await enter_all(instances, owner, token=token)
        for wire in kept:
            answer = await wire.say("auth:refresh", {"token": owner.token})
            assert answer == {"ok": True, "expires_at": expiry_of(owner.token).isoformat().replace("+00:00", "Z")}
        await until(lambda: not any(wire.open for wire in ended), 6.0)
        for wire in kept:
            assert await wire.say("ping") == {"ok": True}
            assert wire.of("auth:expired") == []
            await wire.drop()

    async def test_a_token_that_ends_sooner_ends_the_socket_sooner(
        self, orchestrator: Orchestrator, owner: Person
    ) -> None:
        [wire] = await enter_all([orchestrator], owner)
        assert (await wire.say("auth:refresh", {"token": token_for(orchestrator, owner.token, left_s=2)}))["ok"]
        await wire.until(lambda: not wire.open, 5.0)

    async def test_what_is_refused_changes_nothing(
        self, instances: list[Orchestrator], owner: Person, stranger: Person, colleague: Person
    ) -> None:
        server = instances[-1]
        left = replace(stranger, token=await sign_in(stranger))
        same_place: dict[str, Any] = {
            "tenant_id": str(colleague.tenant_id),
            "tenant": str(colleague.tenant_id),
            "role": "member",
        }
        revoked_token = token_for(server, left.token, **same_place)
        await log_out(server, owner, left)
        refusals: dict[str, list[Any]] = {
            "TOKEN_MISMATCH": [owner.token, stranger.token],
            "TOKEN_EXPIRED": [token_for(server, colleague.token, left_s=-1)],
            "AUTH_ERROR": [owner.refresh_token, "forged", "Bearer " + "x" * 5000, "ü"],
            "VALIDATION_ERROR": ["", None, 5, ["token"], {"a": 1}],
            "TOKEN_REVOKED": [revoked_token],
        }
        standing = standing_of(server)
        await until(lambda: standing.doubts(principal_of(replace(left, token=revoked_token))), PROMISE_S)
        [wire] = await enter_all([server], colleague)
        seat = seat_of(server, wire)
        before = (seat.principal, seat.expires_at)
        for code, tokens in refusals.items():
            for token in tokens:
                answer = await wire.say("auth:refresh", {"token": token})
                assert (answer["ok"], answer["error"]["code"]) == (False, code), token
        odd: list[Any] = [None, "text", [], {}]
        for payload in odd:
            assert (await wire.say("auth:refresh", payload))["error"]["code"] == "VALIDATION_ERROR"
        assert (seat.principal, seat.expires_at) == before
        assert await wire.say("ping") == {"ok": True}
        await wire.drop()

    async def test_many_at_once_leave_the_last_in_force(self, orchestrator: Orchestrator, stranger: Person) -> None:
        sessions = [await sign_in(stranger) for _ in range(3)]
        [wire] = await enter_all([orchestrator], stranger, token=sessions[0])
        tokens = [token_for(orchestrator, sessions[n % 3], left_s=60 + n) for n in range(30)]
        for number, fresh in enumerate(tokens):
            await wire._socket.send_str(f"42{number}{json.dumps(['auth:refresh', {'token': fresh}])}")
        await wire.until(lambda: len(wire.acks) == len(tokens))
        assert [answer["expires_at"][:19] for answer in wire.acks] == [
            expiry_of(fresh).isoformat()[:19] for fresh in tokens
        ]
        seats = orchestrator.house.sockets.seats
        by_session = [len(seats.of_session(principal_of(replace(stranger, token=t)).session_id)) for t in sessions]
        assert by_session == [0, 0, 1]
        # The session that the socket went on under is the one whose end ends it.
        await log_out(orchestrator, stranger, replace(stranger, token=sessions[0]))
        assert await wire.say("ping") == {"ok": True}
        await log_out(orchestrator, stranger, replace(stranger, token=sessions[2]))
        await wire.until(lambda: revoked(wire), PROMISE_S)
        await wire.drop()
