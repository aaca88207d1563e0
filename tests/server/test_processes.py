"""Whole processes: they start soon, end cleanly at SIGTERM whatever is connected, and start again on the same data."""

from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic

import pytest
from aiohttp import ClientSession

from server.seed import DEMO_ACCOUNTS
from tests.support.listeners import Listener
from tests.support.people import company_factory
from tests.support.processes import Fleet, fleet

# A start or an end that hangs does so for ever, and a busy machine takes its time.
PATIENCE_S = 60.0


@pytest.fixture
async def ships(tmp_path: Path) -> AsyncIterator[Fleet]:
    environment = {"ENVIRONMENT": "test", "DATA_DIR": str(tmp_path / "data"), "LOG_LEVEL": "INFO"}
    async with fleet(environment, tmp_path) as ships:
        yield ships


@pytest.mark.embedded
@pytest.mark.slow
async def test_serve_starts_ends_and_starts_again(ships: Fleet, tmp_path: Path, http: ClientSession) -> None:
    first = await (await ships.run("serve", "--migrate", "--seed")).ready()
    await first.said("is running")
    for email, password, *_ in DEMO_ACCOUNTS:
        assert f"{email} / {password}" in first.log
    company = await company_factory(http, first.url)()
    websocket = await Listener().connect(first.url, company.token, "/", "/ws/provisioning")
    polling = await Listener().connect(first.url, company.token, "/", transports=["polling"])

    # The company's first job is still under way.
    begun = monotonic()
    assert await first.terminate() == 0, first.log
    assert monotonic() - begun < PATIENCE_S
    assert "Traceback" not in first.log
    assert not (tmp_path / "data" / "postgres" / "postmaster.pid").exists(), "the embedded database has ended too"
    await websocket.until(lambda: not websocket.client.connected)
    await websocket.close()
    await polling.client.eio.disconnect(abort=True)

    begun = monotonic()
    second = await (await ships.run("serve", "--migrate", "--seed")).ready()
    assert monotonic() - begun < PATIENCE_S
    body = {"email": company.email, "password": company.password}
    async with http.post(f"{second.url}/api/v1/auth/login", json=body) as response:
        assert response.status == 200, "what was written before is still there"
    # A token of the first process is good at the second: they share the secret that the first one made.
    again = await Listener().connect(second.url, company.token, "/")
    await again.until(lambda: again.of("notification:new"), seconds=60)
    (completed,) = again.of("status:completed")
    assert completed["job_type"] == "create_site", "the job that was cut short went on"
    await again.close()
    assert await second.terminate() == 0, second.log
    assert "Traceback" not in second.log
