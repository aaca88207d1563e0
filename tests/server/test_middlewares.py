"""What happens to every request: an id, the client's address, and a word to come back while the database is away."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiohttp import ClientResponse
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from structlog.testing import capture_logs

from server.database import create_engine
from server.middlewares import locate
from tests.handlers.frame import Client, open_door, refusal


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[Any]]:
    """What was logged, which would else be printed."""
    with capture_logs() as lines:
        yield lines


@pytest.fixture(scope="module")
async def door(engine: AsyncEngine) -> AsyncIterator[Client]:
    async with open_door(engine) as client:
        yield client


async def is_told_to_come_back(response: ClientResponse) -> None:
    body = await refusal(response, 503, "UNAVAILABLE")
    assert 1 <= int(response.headers["Retry-After"]) <= 60
    assert "secret" not in json.dumps(body)


class TestDatabaseAway:
    @pytest.mark.parametrize("name", ["refused", "timeout"])
    async def test_a_connection_that_fails(self, door: Client, name: str) -> None:
        await is_told_to_come_back(await door.get(f"/things/fail/{name}"))

    async def test_a_connection_that_is_cut(self, engine: AsyncEngine) -> None:
        # The role that the server works as may cut nobody off, so that this one keeps what it signed in as.
        mighty = create_async_engine(engine.url, pool_size=2)
        async with open_door(mighty) as door:
            await is_told_to_come_back(await door.get("/things/sql/SELECT pg_terminate_backend(pg_backend_pid())"))
            assert (await door.get("/things/sql/SELECT 1")).status == 200, "the pool finds its way back"
        await mighty.dispose()

    @pytest.mark.parametrize(
        "address",
        ["app:secret@127.0.0.1:1/d", "app:secret@/d?host=/nowhere/at/all", "app:secret@no-such-host.invalid/d"],
        ids=["port", "socket", "name"],
    )
    async def test_a_server_that_is_not_there(self, address: str) -> None:
        nobody = create_engine(f"postgresql+asyncpg://{address}", pool_size=2)
        async with open_door(nobody) as door:
            await is_told_to_come_back(await door.get("/things/sql/SELECT 1"))
            headers = {"Authorization": "Bearer member"}
            assert (await door.get("/things/mine", headers=headers)).status == 200, "needs no database here"
        await nobody.dispose()

    async def test_a_pool_without_a_free_connection(self, engine: AsyncEngine) -> None:
        small = create_async_engine(engine.url, pool_size=1, max_overflow=0, pool_timeout=0.05)
        async with open_door(small) as door:
            answers = await asyncio.gather(*(door.get("/things/sql/SELECT pg_sleep(0.3)") for _ in range(2)))
            ok, away = sorted(answers, key=lambda answer: answer.status)
            assert ok.status == 200
            await is_told_to_come_back(away)
        await small.dispose()

    async def test_a_wrong_statement_is_our_own_fault(self, door: Client) -> None:
        await refusal(await door.get("/things/sql/SELEC"), 500, "INTERNAL")


class TestRequestId:
    @pytest.mark.parametrize("given", ["abc", "A-b_c.d:e", "0" * 128, "5f0c6a2e-6d0b-4d4b-9f43-8a2d2d6f0b11"])
    async def test_a_sane_one_is_kept(self, door: Client, given: str) -> None:
        response = await door.get("/things/client", headers={"X-Request-ID": given})
        assert response.headers["X-Request-ID"] == given
        assert (await response.json())["data"]["request_id"] == given

    @pytest.mark.parametrize("given", ["", " ", "a b", "0" * 129, "<script>", "é", "a\tb", 'x"', "a,b"])
    async def test_another_is_replaced(self, door: Client, given: str) -> None:
        response = await door.get("/things/client", headers={"X-Request-ID": given})
        assert re.fullmatch(r"[0-9a-f]{32}", response.headers["X-Request-ID"])

    async def test_each_request_gets_its_own(self, door: Client) -> None:
        assert len({(await door.get("/things/flat")).headers["X-Request-ID"] for _ in range(3)}) == 3

    async def test_refusals_carry_it_too(self, door: Client) -> None:
        for path in ("/nowhere", "/things/mine", "/things/fail/unexpected", "/things?page=x"):
            response = await door.get(path, headers={"X-Request-ID": "mine"})
            assert response.headers["X-Request-ID"] == "mine"


class TestClientAddress:
    async def where(self, door: Client, *forwarded: str) -> str:
        headers = [("X-Forwarded-For", value) for value in forwarded]
        data = (await (await door.get("/things/client", headers=headers)).json())["data"]
        assert data["ip"] == data["trace_ip"]
        return str(data["ip"])

    async def test_nobody_is_believed_without_a_trusted_proxy(self, door: Client) -> None:
        assert await self.where(door) == "127.0.0.1"
        assert await self.where(door, "1.2.3.4") == "127.0.0.1"

    async def test_a_trusted_proxy_is_believed_for_its_own_hop_only(self, engine: AsyncEngine) -> None:
        async with open_door(engine, trusted_proxies=["127.0.0.0/8", "10.0.0.0/8"]) as door:
            assert await self.where(door) == "127.0.0.1"
            assert await self.where(door, "1.2.3.4") == "1.2.3.4"
            # The client wrote the first address itself; our proxy added the second, which is the true one.
            assert await self.where(door, "6.6.6.6, 1.2.3.4") == "1.2.3.4"
            assert await self.where(door, "6.6.6.6, 1.2.3.4, 10.0.0.7") == "1.2.3.4"
            assert await self.where(door, "10.0.0.9, 10.0.0.7") == "10.0.0.9"
            assert await self.where(door, "2001:db8::1") == "2001:db8::1"

    async def test_an_ipv4_address_in_the_words_of_ipv6_is_the_same(self, engine: AsyncEngine) -> None:
        """As a listener for both families sees a proxy."""
        async with open_door(engine, trusted_proxies=["127.0.0.0/8", "10.0.0.0/8"]) as door:
            assert await self.where(door, "1.2.3.4, ::ffff:10.0.0.7") == "1.2.3.4"
            assert await self.where(door, "::ffff:1.2.3.4") == "1.2.3.4"

    async def test_a_proxy_may_add_a_header_of_its_own(self, engine: AsyncEngine) -> None:
        """RFC 9110, 5.3: lines of one name are one list, so a second line is the nearer hop."""
        async with open_door(engine, trusted_proxies=["127.0.0.0/8"]) as door:
            assert await self.where(door, "6.6.6.6", "1.2.3.4") == "1.2.3.4"

    @pytest.mark.parametrize("noise", ["unknown", "x" * 5000, "", ",,", "1.2.3.4;drop", "é", "1.2.3"])
    async def test_what_is_no_address_is_not_taken_for_one(self, engine: AsyncEngine, noise: str) -> None:
        """Rate limits and audit rows go by the address, so nobody may choose a key of his own there."""
        async with open_door(engine, trusted_proxies=["127.0.0.0/8"]) as door:
            assert await self.where(door, noise) == "127.0.0.1"

    async def test_a_wrong_list_of_proxies_stops_the_start(self) -> None:
        with pytest.raises(ValueError, match="the-balancer"):
            locate(["the-balancer"])
