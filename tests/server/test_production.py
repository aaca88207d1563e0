"""A server in production has none of development's conveniences."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from server.processes import listening
from server.settings import Settings
from server.wiring import Part, build
from tests.support.running import Running
from tests.support.stores import free_port


@pytest.fixture
async def production(settings: Settings, engine: AsyncEngine) -> AsyncIterator[str]:
    """The address of a server with production's settings on this run's database."""
    values = {
        **settings.model_dump(),
        "environment": "production",
        "port": free_port(),
        "password_hash_memory_kib": 64 * 1024,
        "database_url": SecretStr(engine.url.render_as_string(hide_password=False)),
        "redis_url": SecretStr(""),
        "rabbitmq_url": SecretStr(""),
        "merchant_private_hosts": False,
        "secret_key": SecretStr("x" * 40),
        "encryption_key": SecretStr("a" * 43 + "="),
        "public_url": "https://erp.example.org",
        "site_url_template": "https://{slug}.erp.example.org",
        "stripe_secret_key": SecretStr("sk_live_not_a_real_one"),
        "stripe_webhook_secret": SecretStr("whsec_not_a_real_one"),
        "smtp_host": "mail.example.org",
    }
    complete = Settings(_env_file=None, **values)

    async def start(stack):
        house = await stack.enter_async_context(build(complete, engine, Part(web=True)))
        return await stack.enter_async_context(listening(house, "127.0.0.1", complete.port))

    running = Running(start)
    port = await running.started()
    yield f"http://127.0.0.1:{port}"
    await running.stop()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/sandbox/pay/sbx_cs_1?token=x"),
        ("POST", "/sandbox/pay/sbx_cs_1"),
        ("GET", "/sites/test-company/desk"),
        ("GET", "/sites/test-company/api/method/erpmax.sso.login?token=x"),
        ("POST", "/api/v1/billing/webhook/sandbox"),
    ],
)
async def test_the_stand_ins_are_not_there(production: str, http: ClientSession, method: str, path: str) -> None:
    async with http.request(method, production + path, data=b"{}") as response:
        assert response.status == 404


async def test_it_serves_all_the_same(production: str, http: ClientSession) -> None:
    async with http.get(f"{production}/health") as response:
        assert (response.status, (await response.json())["environment"]) == (200, "production")
    async with http.get(f"{production}/openapi.json") as response:
        paths = (await response.json())["paths"]
    assert "/api/v1/billing/checkout" in paths
    assert not [path for path in paths if path.startswith(("/sandbox", "/sites"))]
