"""The wiring: a store that cannot be reached at start is named, with its setting and without its secret."""

import asyncio
import gc
from collections.abc import Awaitable, Callable

import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from jobs.broker import DoorbellBroker
from server.database import plain_url
from server.settings import ConfigurationError, Settings, load_settings
from server.stores import StoreAway, open_database
from server.wiring import Part, build
from tests.jobs.rabbit import patient
from tests.support.relay import relay_to


async def refusal(attempt: Callable[[], Awaitable[None]], *, setting: str) -> None:
    """Check that an attempt is refused, at whatever step, with words that help."""
    with pytest.raises((StoreAway, ConfigurationError)) as caught:
        async with asyncio.timeout(8):
            await attempt()
    text = str(caught.value)
    assert setting in text
    assert "docs/configuration.md" in text
    assert "hidden" not in text


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://app:hidden@127.0.0.1:1/app",
        "postgresql://app:hidden@no-such-host.invalid/app",
        "postgresql://app:hidden@/app?host=/nowhere/at/all",
        "postgresql://app:hidden@127.0.0.1:port/app",
        "mysql://app:hidden@127.0.0.1/app",
        "noise",
    ],
    ids=["port", "name", "socket", "number", "kind", "noise"],
)
async def test_a_wrong_database(url: str) -> None:
    async def attempt() -> None:
        settings = load_settings(_env_file=None, database_url=url)
        async with open_database(settings):
            pass

    await refusal(attempt, setting="DATABASE_URL")


async def test_a_database_that_does_not_exist(engine: AsyncEngine) -> None:
    url = engine.url.set(database="no_such_database").render_as_string(hide_password=False)
    settings = load_settings(_env_file=None, database_url=url)
    with pytest.raises(StoreAway, match=r"(?s)no_such_database.*DATABASE_URL"):
        async with open_database(settings):
            pass


@pytest.mark.parametrize(
    "url",
    ["redis://:hidden@127.0.0.1:1/0", "redis://:hidden@no-such-host.invalid/0", "http://:hidden@h/", "noise"],
    ids=["port", "name", "kind", "noise"],
)
async def test_a_wrong_redis(settings: Settings, engine: AsyncEngine, url: str) -> None:
    async def attempt() -> None:
        changed = settings.model_copy(update={"redis_url": SecretStr(url)})
        async with build(changed, engine, Part()):
            pass

    await refusal(attempt, setting="REDIS_URL")


@pytest.mark.parametrize(
    "url",
    ["amqp://guest:hidden@127.0.0.1:1/", "amqp://guest:hidden@no-such-host.invalid/", "http://:hidden@h/", "noise"],
    ids=["port", "name", "kind", "noise"],
)
async def test_a_wrong_rabbitmq(settings: Settings, engine: AsyncEngine, url: str) -> None:
    async def attempt() -> None:
        changed = settings.model_copy(update={"rabbitmq_url": SecretStr(url)})
        async with build(changed, engine, Part()):
            pass

    await refusal(attempt, setting="RABBITMQ_URL")


@pytest.mark.cluster
async def test_a_wrong_password_for_rabbitmq(settings: Settings, engine: AsyncEngine) -> None:
    url = settings.rabbitmq_url.get_secret_value().replace("guest:guest@", "guest:hidden@")

    async def attempt() -> None:
        async with build(settings.model_copy(update={"rabbitmq_url": SecretStr(url)}), engine, Part()):
            pass

    await refusal(attempt, setting="RABBITMQ_URL")


async def test_a_house_tells_whether_its_stores_are_there(settings: Settings, engine: AsyncEngine) -> None:
    async with build(settings, engine, Part()) as house:
        expected = {
            "database": "ok",
            "redis": "ok" if settings.redis_url.get_secret_value() else "not configured",
            "rabbitmq": "ok" if settings.rabbitmq_url.get_secret_value() else "not configured",
        }
        assert await house.readiness.check() == expected
        assert isinstance(house.broker, DoorbellBroker) == bool(settings.rabbitmq_url.get_secret_value())


async def test_a_house_can_be_built_again_and_again(settings: Settings, engine: AsyncEngine) -> None:
    """What one house opens it closes: connections, pools and threads. A warning about a leak would fail this run."""
    for _ in range(2):
        async with build(settings, engine, Part()) as house:
            assert await house.limiter.hit("5/second", "a key of this test") is None
    gc.collect()


@pytest.mark.cluster
@pytest.mark.parametrize("store", ["database", "redis", "rabbitmq"])
async def test_readiness_follows_an_outage_and_the_return(settings: Settings, engine: AsyncEngine, store: str) -> None:
    urls = {
        "database": plain_url(engine.url.render_as_string(hide_password=False)),
        "redis": settings.redis_url.get_secret_value(),
        "rabbitmq": settings.rabbitmq_url.get_secret_value(),
    }
    async with relay_to(urls[store]) as (relay, url):
        urls[store] = patient(url) if store == "rabbitmq" else url
        changed = settings.model_copy(
            update={f"{name}_url": SecretStr(address) for name, address in urls.items()},
        )
        async with open_database(changed) as own, build(changed, own, Part()) as house:

            async def until(state: str) -> None:
                async with asyncio.timeout(15):
                    while (states := await house.readiness.check())[store].split(":")[0] != state:
                        await asyncio.sleep(0.05)
                others = {name: told for name, told in states.items() if name != store}
                assert set(others.values()) == {"ok"}, others

            await until("ok")
            await relay.cut()
            await until("error")
            await relay.restore()
            await until("ok")
