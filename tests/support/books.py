"""A database beside the shared one, for tests that move time: a sweeper then ends the trials of all its tenants."""

from contextlib import AsyncExitStack
from uuid import uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from server.database import create_engine, migrate


async def open_books(stack: AsyncExitStack, engine: AsyncEngine) -> AsyncEngine:
    name = f"billing_{uuid4().hex[:12]}"
    await run_outside(engine, f"CREATE DATABASE {name}")
    stack.push_async_callback(run_outside, engine, f"DROP DATABASE {name} WITH (FORCE)")
    own = create_engine(engine.url.set(database=name).render_as_string(hide_password=False), pool_size=5)
    stack.push_async_callback(own.dispose)
    await migrate(own)
    return own


async def run_outside(engine: AsyncEngine, statement: str) -> None:
    """Run what PostgreSQL allows in no transaction."""
    async with engine.connect() as connection:
        outside = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await outside.execute(text(statement))
