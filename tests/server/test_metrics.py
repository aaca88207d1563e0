"""`/metrics`: what Prometheus reads, who may read it, and that it tells what has really happened."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from server.settings import Settings
from server.web import create_app
from server.wiring import Part, build
from tests.support.listeners import Listener
from tests.support.people import Person
from tests.support.running import Orchestrator

Samples = dict[tuple[str, str], float]


async def scrape(http: ClientSession, url: str) -> Samples:
    async with http.get(f"{url}/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        text = await answer.text()
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples[sample.name, ",".join(sample.labels.values())] = sample.value
    return samples


async def test_it_tells_what_happens(
    orchestrator: Orchestrator, http: ClientSession, company: Callable[[], Awaitable[Person]]
) -> None:
    before = await scrape(http, orchestrator.url)
    owner = await company()
    listener = await Listener().connect(orchestrator.url, owner.token, "/", "/billing")
    during = await scrape(http, orchestrator.url)
    assert during["erpmax_connections", "websocket"] == before["erpmax_connections", "websocket"] + 1
    for namespace in ("/", "/billing"):
        assert during["erpmax_sockets", namespace] == before.get(("erpmax_sockets", namespace), 0) + 1
    assert during["erpmax_deliveries_total", ""] >= before["erpmax_deliveries_total", ""] + 2
    assert during["erpmax_delivered_bytes_total", ""] > before["erpmax_delivered_bytes_total", ""]
    assert during["erpmax_head_check_age_seconds", ""] < 5
    assert during["erpmax_loop_lag_seconds_count", ""] >= before["erpmax_loop_lag_seconds_count", ""]
    await listener.close()
    async with asyncio.timeout(10):
        while closes(await scrape(http, orchestrator.url)) <= closes(before):
            await asyncio.sleep(0.02)


def closes(samples: Samples) -> float:
    return sum(value for (name, _), value in samples.items() if name == "erpmax_closes_total")


@pytest.mark.cluster
async def test_it_tells_how_the_bus_is(orchestrator: Orchestrator, http: ClientSession) -> None:
    samples = await scrape(http, orchestrator.url)
    assert samples["erpmax_redis_probe_age_seconds", ""] < 2
    assert samples["erpmax_bus_messages_total", "sent"] > 0


@pytest.fixture
async def guarded(settings: Settings, engine: AsyncEngine, request: pytest.FixtureRequest) -> AsyncIterator[TestClient]:
    """A server in production, or in development, with or without a token for its metrics."""
    changed = settings.model_copy(update=request.param)
    async with build(changed, engine, Part()) as house, TestClient(TestServer(create_app(house))) as client:
        yield client


SECRET = {"metrics_token": SecretStr("open sesame")}
PRODUCTION = {"environment": "production"}


@pytest.mark.parametrize("guarded", [PRODUCTION, {**PRODUCTION, **SECRET}, SECRET], indirect=True)
@pytest.mark.parametrize("shown", [{}, {"Authorization": "Bearer "}, {"Authorization": "Bearer wrong"}])
async def test_strangers_find_nothing(guarded: TestClient, shown: dict[str, str]) -> None:
    async with guarded.get("/metrics", headers=shown) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize("guarded", [{**PRODUCTION, **SECRET}, SECRET], indirect=True)
async def test_the_token_opens_it(guarded: TestClient) -> None:
    async with guarded.get("/metrics", headers={"Authorization": "Bearer open sesame"}) as answer:
        assert answer.status == 200
