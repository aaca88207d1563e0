"""The two deployments every test can run in, and the fixtures that most tests start from."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis
import pytest
from aiohttp import ClientSession
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from server.settings import Settings
from services.unit_of_work import UnitOfWorkFactory
from tests.support.people import RegisterCompany, company_factory
from tests.support.running import Orchestrator, Running, open_migrated, start
from tests.support.stores import StoreMissing, Stores, cluster_stores, free_port, refuse_or_skip

# `make thorough`: for nights, not for every run.
THOROUGH = "thorough"
hypothesis.settings.register_profile(THOROUGH, max_examples=10_000)
_A_NIGHT_S = 6 * 3600

QUICK_RECIPE = Path(__file__).parent / "support" / "quick_recipe.yml"

# Fixtures that tests in several folders ask for, and that are a subject of their own.
pytest_plugins = ("tests.support.node", "tests.support.sited")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--deployment",
        choices=("embedded", "cluster"),
        default="embedded",
        help="embedded: everything in one process; cluster: PostgreSQL, Redis, RabbitMQ and several processes",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that are marked for the other deployment, and in the cluster those that need no store."""
    if config.getoption("--hypothesis-profile") == THOROUGH:
        for item in items:
            item.add_marker(pytest.mark.timeout(_A_NIGHT_S), append=False)
    deployment = config.getoption("--deployment")
    other = "cluster" if deployment == "embedded" else "embedded"

    def belongs(item: pytest.Item) -> bool:
        # What touches no store is the same in both, and is proved once.
        both = "stores" in getattr(item, "fixturenames", ())
        named = item.get_closest_marker(deployment) is not None
        return item.get_closest_marker(other) is None and (both or named or deployment == "embedded")

    left_out = [item for item in items if not belongs(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if belongs(item)]


def pytest_report_header(config: pytest.Config) -> str:
    return f"deployment: {config.getoption('--deployment')}"


@pytest.fixture(scope="session")
def deployment(request: pytest.FixtureRequest) -> str:
    """Which deployment this run plays: `embedded` or `cluster`."""
    return str(request.config.getoption("--deployment"))


@pytest.fixture(scope="session")
def stores(
    deployment: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Stores]:
    """The stores of this test process; in the embedded deployment the server starts its own."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    with ExitStack() as stack:
        found = Stores(told=["PostgreSQL: embedded, from the wheel"])
        if deployment == "cluster":
            try:
                found = stack.enter_context(cluster_stores(tmp_path_factory.mktemp("stores"), worker))
            except StoreMissing as missing:
                refuse_or_skip(missing)
        reporter = request.config.get_terminal_writer()
        reporter.line("\n" + "; ".join(found.told))
        yield found


@pytest.fixture(scope="session")
def data_dir() -> Iterator[Path]:
    """Where the server keeps its data.

    Not below pytest's own folder: run as root, pytest closes that to the user whom the embedded PostgreSQL runs as.
    """
    with TemporaryDirectory(prefix="orchestrator-test-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def settings(stores: Stores, data_dir: Path) -> Settings:
    """Settings of a server for tests: a free port, rate limits off, names of its own on shared servers."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    unique = f"{worker}.{os.getpid()}"
    return Settings(
        _env_file=None,
        environment="test",
        port=free_port(),
        data_dir=data_dir,
        database_url=SecretStr(stores.database_url),
        redis_url=SecretStr(stores.redis_url),
        rabbitmq_url=SecretStr(stores.rabbitmq_url),
        provisioning_queue_name=f"test.provisioning.{unique}",
        tasks_queue_name=f"test.tasks.{unique}",
        log_level="WARNING",
        # Tests that are about sites ask for `site_orchestrator` (tests/support/sited.py).
        provisioning_recipe=QUICK_RECIPE,
        # What a password costs to check is proved in tests/core; a suite that registers thousands would do little else.
        password_hash_memory_kib=64,
        password_hash_rounds=1,
        rate_auth_per_ip="off",
        rate_auth_per_account="off",
        rate_sso_per_user="off",
        rate_webhooks_per_ip="off",
        rate_documents_per_ip="off",
        rate_payments_per_tenant="off",
        rate_invites_per_tenant="off",
        # The fakes of merchants' servers listen on this machine.
        merchant_private_hosts=True,
        rate_user_total="off",
        rate_key_total="off",
        rate_key_looks_per_ip="off",
        rate_phone_codes_per_ip="off",
        rate_phone_codes_per_phone="off",
        rate_phone_codes_total="off",
        rate_phone_checks_per_ip="off",
    )


@pytest.fixture(scope="session")
async def engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    """The migrated database of this test process."""
    running = Running(partial(open_migrated, settings=settings))
    yield await running.started()
    await running.stop()


@pytest.fixture(scope="session")
async def orchestrator(settings: Settings, engine: AsyncEngine) -> AsyncIterator[Orchestrator]:
    """A running server that all tests of this process share; every test makes tenants of its own."""
    running = Running(partial(start, settings=settings, engine=engine))
    yield await running.started()
    await running.stop()


@pytest.fixture(scope="session")
def units(orchestrator: Orchestrator) -> UnitOfWorkFactory:
    """Units of work on the running server's database."""
    return orchestrator.units


@pytest.fixture
async def http() -> AsyncIterator[ClientSession]:
    """An HTTP client without cookies of other tests."""
    async with ClientSession() as session:
        yield session


@pytest.fixture
def company(http: ClientSession, orchestrator: Orchestrator) -> RegisterCompany:
    """Registers companies on the shared server."""
    return company_factory(http, orchestrator.url)
