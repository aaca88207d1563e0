"""A server that makes real sites, for the tests that are about them.

The server that most tests share makes none (`quick_recipe.yml`). This one has a database, a data folder and queues of
its own, because jobs belong to whoever finds them in the database. A test module gets it by overriding `orchestrator`.

`tests/conftest.py` names this module as a plugin.
"""

import os
from collections.abc import AsyncIterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from pydantic import SecretStr

from server.settings import Settings
from tests.support.running import Orchestrator, Running, open_migrated, start
from tests.support.stores import Stores, free_port, own_database

LOCAL_RECIPE = Path(__file__).resolve().parents[2] / "deploy" / "recipes" / "local.yml"


@pytest.fixture(scope="session")
async def site_orchestrator(settings: Settings, stores: Stores) -> AsyncIterator[Orchestrator]:
    """A running server whose jobs make sites by the local recipe."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="orchestrator-sites-"))
        database_url = stack.enter_context(own_database(stores.database_url, worker)) if stores.database_url else ""
        changed = settings.model_copy(
            update={
                "port": free_port(),
                "data_dir": Path(folder),
                "database_url": SecretStr(database_url),
                "provisioning_recipe": LOCAL_RECIPE,
                "provisioning_queue_name": f"{settings.provisioning_queue_name}.sites",
                "tasks_queue_name": f"{settings.tasks_queue_name}.sites",
            }
        )
        database = Running(partial(open_migrated, settings=changed))
        engine = await database.started()
        server = Running(partial(start, settings=changed, engine=engine))
        yield await server.started()
        await server.stop()
        await database.stop()
