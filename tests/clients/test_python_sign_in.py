"""How the Python client gets in and stays in: its tokens, and what it does when it is refused."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from erpmax_client import (
    AccessRevoked,
    ConnectRefused,
    OrchestratorClient,
    SignInRefused,
    Tokens,
    Unreachable,
)

from services.permissions import KeyScope
from tests.clients.conftest import Guarded, Log, Wire, expiry_of, short_lived, sign_in, sign_out
from tests.clients.ears import tokens_of
from tests.support.keys import make_key
from tests.support.running import Orchestrator
from tests.support.waiting import until

# A client knows the server by its doors only, which are the same in both deployments; what several instances add is
# proved in tests/e2e and tests/faults.
pytestmark = pytest.mark.embedded


class TestTokens:
    async def test_an_expired_token_is_refreshed_before_connecting(self, orchestrator: Orchestrator, log: Log) -> None:
        fresh = await tokens_of(log.person)
        told: list[Tokens] = []
        expired = Tokens(short_lived(orchestrator, fresh.access, -10), fresh.refresh)
        async with OrchestratorClient(orchestrator.url, tokens=expired, on_tokens=told.append) as client:
            assert client.connected
            assert [await client.token()] == [each.access for each in told]

    async def test_a_token_that_expires_is_refreshed_on_the_open_connection(
        self, orchestrator: Orchestrator, log: Log
    ) -> None:
        fresh = await tokens_of(log.person)
        told: list[Tokens] = []
        dying = short_lived(orchestrator, fresh.access, 3)
        options: dict[str, Any] = {"tokens": Tokens(dying, fresh.refresh), "on_tokens": told.append}
        async with OrchestratorClient(orchestrator.url, **options) as client:
            connection = client._line
            await until(lambda: told)
            await until(lambda: datetime.now(UTC) > expiry_of(dying) + timedelta(seconds=1))
            assert await client.call("ping") == {"ok": True}
            assert client._line is connection

    async def test_many_who_ask_refresh_once(self, orchestrator: Orchestrator, log: Log) -> None:
        told: list[Tokens] = []
        options: dict[str, Any] = {"tokens": await tokens_of(log.person), "on_tokens": told.append}
        async with OrchestratorClient(orchestrator.url, **options) as client:
            stale = await client.token()
            fresh = await asyncio.gather(*(client._tokens(stale) for _ in range(5)))
        assert len(told) == 1
        assert set(fresh) == {told[0].access}

    async def test_a_spent_refresh_token_falls_back_to_the_password(self, orchestrator: Orchestrator, log: Log) -> None:
        access = short_lived(orchestrator, (await tokens_of(log.person)).access, -10)
        options: dict[str, Any] = {"tokens": Tokens(access, "spent")}
        with pytest.raises(SignInRefused):
            async with OrchestratorClient(orchestrator.url, **options):
                pass
        options |= {"email": log.person.email, "password": log.person.password}
        async with OrchestratorClient(orchestrator.url, **options) as client:
            assert client.connected

    async def test_a_second_factor_is_asked_for(self, orchestrator: Orchestrator, guarded: Guarded) -> None:
        who: dict[str, Any] = {"email": guarded.person.email, "password": guarded.person.password}
        codes = [*guarded.recovery_codes]

        async def code() -> str:
            return codes.pop()

        for _ in range(2):
            async with OrchestratorClient(orchestrator.url, **who, second_factor=code) as client:
                assert client.connected
        assert len(codes) == len(guarded.recovery_codes) - 2
        with pytest.raises(SignInRefused) as refused:
            async with OrchestratorClient(orchestrator.url, **who):
                pass
        assert refused.value.code == "2FA_REQUIRED"
        codes.append("wrong")
        with pytest.raises(SignInRefused) as refused:
            async with OrchestratorClient(orchestrator.url, **who, second_factor=code):
                pass
        assert refused.value.code == "WRONG_CODE"

    async def test_a_provider_without_a_newer_token_ends_the_client(self, orchestrator: Orchestrator, log: Log) -> None:
        expired = short_lived(orchestrator, log.person.token, -10)

        async def provide(_: str | None) -> str:
            return expired

        with pytest.raises(SignInRefused) as refused:
            async with OrchestratorClient(orchestrator.url, token_provider=provide):
                pass
        assert refused.value.code == "TOKEN_EXPIRED"


class TestRefusals:
    async def test_a_wrong_password_is_told_at_once(self, orchestrator: Orchestrator, log: Log) -> None:
        with pytest.raises(SignInRefused):
            async with OrchestratorClient(orchestrator.url, email=log.person.email, password="wrong horse"):
                pass

    @pytest.mark.parametrize(
        ("options", "code"), [({"tokens": Tokens("forged")}, "AUTH_ERROR"), ({"namespace": "/nowhere"}, "REFUSED")]
    )
    async def test_a_refusal_for_good_ends_the_client(
        self, orchestrator: Orchestrator, log: Log, options: dict[str, Any], code: str
    ) -> None:
        options = {"tokens": await tokens_of(log.person), **options}
        with pytest.raises(ConnectRefused) as refused:
            async with OrchestratorClient(orchestrator.url, **options):
                pass
        assert refused.value.code == code

    async def test_a_server_that_is_not_there_is_told_after_the_timeout(self, wire: Wire, log: Log) -> None:
        await wire.relay.cut()
        options: dict[str, Any] = {"tokens": Tokens(log.person.token), "connect_timeout_s": 1.0}
        with pytest.raises(Unreachable):
            async with OrchestratorClient(wire.url, **options):
                pass

    async def test_whoever_is_asked_for_patience_comes_back_later(self, strict: Orchestrator, log: Log) -> None:
        tokens = await tokens_of(log.person)
        refused = strict.house.meter.throttles["connects"]
        clients = [OrchestratorClient(strict.url, tokens=tokens) for _ in range(4)]
        async with AsyncExitStack() as stack:
            await asyncio.gather(*(stack.enter_async_context(client) for client in clients))
            assert all(client.connected for client in clients)
        assert strict.house.meter.throttles["connects"] > refused

    async def test_revocation_ends_the_client_with_its_code(self, orchestrator: Orchestrator, log: Log) -> None:
        session = await sign_in(log.person)
        async with OrchestratorClient(orchestrator.url, tokens=Tokens(session.access, session.refresh)) as client:
            await sign_out(log.person, session)
            async with asyncio.timeout(5):
                with pytest.raises(AccessRevoked) as revoked:
                    await anext(client.events())
            assert revoked.value.code == "SESSION_REVOKED"

    async def test_a_machine_listens_with_an_api_key_until_it_is_revoked(
        self, orchestrator: Orchestrator, log: Log
    ) -> None:
        key = await make_key(replace(log.person, token=(await sign_in(log.person)).access), KeyScope.EVENTS_READ)
        async with OrchestratorClient(orchestrator.url, tokens=Tokens(key.text)) as client:
            await log.write(1)
            assert (await anext(client.events())).seq is not None
            await key.revoke()
            async with asyncio.timeout(5):
                with pytest.raises(AccessRevoked) as revoked:
                    await anext(client.events())
            assert revoked.value.code == "API_KEY_REVOKED"
        with pytest.raises(ConnectRefused) as refused:
            async with OrchestratorClient(orchestrator.url, tokens=Tokens(key.text)):
                pass
        assert refused.value.code == "API_KEY_REVOKED"
