"""Migrations: up from nothing, equal to the models, down to nothing, up again, and by many at once.

They run on a database of their own: on the embedded PostgreSQL in the embedded deployment, on the system's in the
cluster.
"""

import ast
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import alembic.command
import alembic.config
import pytest
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from models import Base
from server.database import create_engine, downgrade, migrate
from server.isolation import as_owner

ROOT = Path(__file__).resolve().parents[2]
# The advisory lock of migrations/env.py, which cannot be imported outside a migration.
LOCK = 7_221_653_001
VERSIONS = sorted((ROOT / "migrations" / "versions").glob("*.py"))

# Everything that makes up a schema, as PostgreSQL itself tells it.
CATALOGUE = {
    "columns": """
        SELECT table_name, column_name, data_type, character_maximum_length, numeric_precision, numeric_scale,
               is_nullable, column_default
        FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'
    """,
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
          AND conrelid::regclass::text <> 'alembic_version'
    """,
    "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'",
    "sequences": "SELECT sequencename, data_type::text FROM pg_sequences WHERE schemaname = 'public'",
    "types": """
        SELECT typname FROM pg_type
        WHERE typnamespace = 'public'::regnamespace AND typtype IN ('e', 'd')
    """,
    "functions": "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    "policies": "SELECT tablename, policyname, qual, with_check FROM pg_policies WHERE schemaname = 'public'",
    "row security": """
        SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'alembic_version'
    """,
    "triggers": "SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE NOT tgisinternal",
}


@asynccontextmanager
async def own_database(server: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    """Create an empty database on the server that `server` is connected to."""
    name = f"migrations_{uuid4().hex}"
    autocommit = server.execution_options(isolation_level="AUTOCOMMIT")
    async with autocommit.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
    engine = create_engine(server.url.set(database=name).render_as_string(hide_password=False), pool_size=4)
    try:
        yield engine
    finally:
        await engine.dispose()
        async with autocommit.connect() as connection:
            await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def empty(engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    async with own_database(engine) as empty:
        yield empty


async def schema(engine: AsyncEngine) -> dict[str, list[str]]:
    async with as_owner(engine) as connection:
        return {
            part: sorted(repr(tuple(row)) for row in await connection.execute(text(statement)))
            for part, statement in CATALOGUE.items()
        }


async def revision(engine: AsyncEngine) -> list[str]:
    async with as_owner(engine) as connection:
        return list((await connection.execute(text("SELECT version_num FROM alembic_version"))).scalars())


def scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(alembic.config.Config(str(ROOT / "alembic.ini")))


def check(connection: Connection) -> None:
    config = alembic.config.Config(str(ROOT / "alembic.ini"))
    config.attributes["connection"] = connection
    alembic.command.check(config)


async def test_up_from_nothing_gives_what_the_models_say(engine: AsyncEngine, empty: AsyncEngine) -> None:
    await migrate(empty)
    assert await revision(empty) == scripts().get_heads()
    async with as_owner(empty) as connection:
        await connection.run_sync(check)
    async with own_database(engine) as modelled:
        async with as_owner(modelled) as connection, connection.begin():
            await connection.run_sync(Base.metadata.create_all)
        expected = await schema(modelled)
    found = await schema(empty)
    assert expected["columns"]
    for part in CATALOGUE:
        assert found[part] == expected[part], part


async def test_a_difference_would_be_found(empty: AsyncEngine) -> None:
    await migrate(empty)
    async with as_owner(empty) as connection, connection.begin():
        await connection.execute(text("ALTER TABLE users DROP COLUMN locale"))
    async with as_owner(empty) as connection:
        with pytest.raises(CommandError, match="locale"):
            await connection.run_sync(check)


async def test_down_to_nothing_and_up_again(empty: AsyncEngine) -> None:
    before = await schema(empty)
    assert not any(before.values())
    await migrate(empty)
    after = await schema(empty)
    await downgrade(empty, "base")
    assert await schema(empty) == before
    assert await revision(empty) == []
    await migrate(empty)
    assert await schema(empty) == after


async def test_migrating_twice_changes_nothing(empty: AsyncEngine) -> None:
    await migrate(empty)
    before = await schema(empty)
    await migrate(empty)
    assert await schema(empty) == before


async def test_step_by_step_is_the_same_as_at_once(engine: AsyncEngine, empty: AsyncEngine) -> None:
    steps = [step.revision for step in scripts().walk_revisions()][::-1]
    for step in steps:
        await migrate(empty, step)
        assert await revision(empty) == [step]
    stepwise = await schema(empty)
    for step in [*steps[-2::-1], "base"]:
        await downgrade(empty, step)
    assert not any((await schema(empty)).values())
    await migrate(empty)
    assert await schema(empty) == stepwise


async def test_an_unknown_revision_is_refused(empty: AsyncEngine) -> None:
    with pytest.raises(CommandError, match="nowhere"):
        await migrate(empty, "nowhere")


async def test_processes_that_migrate_at_once_wait_for_each_other(empty: AsyncEngine) -> None:
    program = (
        "import asyncio, sys; from server.database import create_engine, migrate; "
        "asyncio.run(migrate(create_engine(sys.argv[1], pool_size=1)))"
    )
    url = empty.url.render_as_string(hide_password=False)
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, url, cwd=ROOT, stderr=asyncio.subprocess.PIPE
        )
        for _ in range(2)
    ]
    for process in processes:
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
    assert await revision(empty) == scripts().get_heads()


async def test_the_wait_for_another_migration_outlasts_the_lock_timeout(empty: AsyncEngine) -> None:
    """A migration may run for minutes; an instance that starts meanwhile must not give up after the lock timeout."""
    impatient = create_async_engine(empty.url, connect_args={"server_settings": {"lock_timeout": "200ms"}})
    async with as_owner(empty) as other:
        await other.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
        waiting = asyncio.create_task(migrate(impatient))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        await other.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": LOCK})
        await waiting
    await impatient.dispose()
    assert await revision(empty) == scripts().get_heads()


async def test_a_failed_migration_frees_the_lock(empty: AsyncEngine) -> None:
    async with as_owner(empty) as connection, connection.begin():
        await connection.execute(text("CREATE TABLE users (in_the_way int)"))
    with pytest.raises(Exception, match="users"):
        await migrate(empty)
    async with as_owner(empty) as connection, connection.begin():
        await connection.execute(text("DROP TABLE users"))
    await migrate(empty)
    assert await revision(empty) == scripts().get_heads()


def test_there_is_one_line_of_revisions() -> None:
    assert len(scripts().get_heads()) == 1
    assert len(scripts().get_bases()) == 1


@pytest.mark.parametrize("path", VERSIONS, ids=lambda path: path.stem)
@pytest.mark.parametrize("function", ["upgrade", "downgrade"])
def test_every_migration_first_says_how_long_it_waits_for_a_lock(path: Path, function: str) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (body,) = [node.body for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    assert ast.unparse(body[0]).startswith("op.execute(\"SET LOCAL lock_timeout = '")
    assert len(body) > 1, "a migration does something in both directions"


def test_there_are_migrations() -> None:
    assert VERSIONS
