"""SIGTERM: nobody new is let in, and those who are there are sent elsewhere one after another, not all at once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, TCPConnector, WSCloseCode, WSMsgType

from tests.support.processes import Fleet, fleet

SOCKETS = 300
HANDSHAKE = "/socket.io/?EIO=4&transport=websocket"


@pytest.fixture
async def ships(tmp_path: Path) -> AsyncIterator[Fleet]:
    environment = {"ENVIRONMENT": "test", "DATA_DIR": str(tmp_path / "data"), "SOCKET_DRAIN_S": "8"}
    async with fleet(environment, tmp_path) as ships:
        yield ships


async def closed(socket: ClientWebSocketResponse) -> tuple[float, int | None]:
    """Wait until a socket is closed; return when that was, and its code."""
    while (await socket.receive()).type not in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
        pass
    return monotonic(), socket.close_code


@pytest.mark.embedded
@pytest.mark.slow
async def test_a_stopping_process_sends_its_clients_away_one_after_another(ships: Fleet) -> None:
    ship = await (await ships.run("serve", "--migrate", "--seed")).ready()
    async with ClientSession(connector=TCPConnector(limit=0)) as http:
        sockets = [await http.ws_connect(f"{ship.url}{HANDSHAKE}") for _ in range(SOCKETS)]
        closings = [asyncio.create_task(closed(socket)) for socket in sockets]
        began = monotonic()
        ending = asyncio.create_task(ship.terminate())
        await asyncio.wait(closings, return_when=asyncio.FIRST_COMPLETED)
        async with http.get(f"{ship.url}/ready") as answer:
            assert (answer.status, (await answer.json())["checks"]["process"]) == (503, "error: draining")
        async with http.get(f"{ship.url}/health") as answer:
            assert answer.status == 200, "requests are still answered"
        async with http.get(f"{ship.url}/socket.io/?EIO=4&transport=polling") as answer:
            assert answer.status == 503
        ends = await asyncio.gather(*closings)
        assert await ending == 0, ship.log
    assert {code for _, code in ends} == {WSCloseCode.GOING_AWAY}
    times = sorted(at - began for at, _ in ends)
    # A hundred a second: the middle of them goes about in the middle of three seconds.
    assert times[SOCKETS // 2] - times[0] > 1.0
    assert times[-1] - times[0] > 2.0
    assert monotonic() - began < 15.0
    assert "Traceback" not in ship.log
