"""The command line, as operators meet it: in processes of its own, with words instead of tracebacks when it refuses."""

import asyncio
import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncEngine

from core.sealing import KeyRing, new_key, read_key
from models.merchants import PaymentIntegration
from server.database import create_engine
from server.settings import Settings
from services.merchants.vault import Vault
from tests.support.spine import everything, new_tenant

# The commands are the same in both deployments; here they meet stores that can be away one by one.
pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    *("serve", "worker", "scheduler", "migrate", "seed", "create-superuser", "suspend-tenant", "reinstate-tenant"),
    *("verify-audit", "rotate-keys", "register-bots", "check-config", "demo"),
)
SECRETS = {
    "SECRET_KEY": f"key-{uuid4().hex}-{uuid4().hex}",
    "ENCRYPTION_KEY": new_key(),
    "STRIPE_SECRET_KEY": "sk_test_hidden",
    "STRIPE_WEBHOOK_SECRET": "whsec_hidden",
    "SMTP_PASSWORD": "smtp-hidden",
}


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended and what it said."""

    code: int
    output: str
    errors: str

    def refusal(self) -> str:
        """Check that the command refused in words and return them."""
        assert self.code == 1, self
        assert "Traceback" not in self.errors
        # A library may have logged a word of its own before.
        words = self.errors.partition("orchestrator: ")[2]
        assert words, self.errors
        return words


async def orchestrator(*arguments: str, folder: Path, typed: str = "", **environment: str) -> Said:
    """Run a command in an empty folder and without a terminal, with no more of our environment than Python needs."""
    kept = ("PATH", "HOME", "LANG", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG", "COVERAGE_FILE")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from server.cli import main; main()",
        *arguments,
        cwd=folder,
        env={
            **{name: os.environ[name] for name in kept if name in os.environ},
            "PYTHONPATH": str(ROOT),
            "DATA_DIR": str(folder / "data"),
            **environment,
        },
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        output, errors = await process.communicate(typed.encode())
    assert process.returncode is not None
    return Said(process.returncode, output.decode(), errors.decode())


@pytest.fixture
def addresses(engine: AsyncEngine, settings: Settings) -> Mapping[str, str]:
    """The stores of this test run, named as an operator names them."""
    return {
        "DATABASE_URL": engine.url.render_as_string(hide_password=False),
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "RABBITMQ_URL": settings.rabbitmq_url.get_secret_value(),
        "PROVISIONING_QUEUE_NAME": settings.provisioning_queue_name,
        "TASKS_QUEUE_NAME": settings.tasks_queue_name,
    }


@pytest.fixture
async def new_database(engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    """An empty database on the server of this test run."""
    name = f"cli_{uuid4().hex}"
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    async with autocommit.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
    own = create_engine(engine.url.set(database=name).render_as_string(hide_password=False), pool_size=2)
    yield own
    await own.dispose()
    async with autocommit.connect() as connection:
        await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


async def count(engine: AsyncEngine, table: str) -> int:
    async with everything(engine) as connection:
        return int((await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one())  # noqa: S608


class TestCalls:
    async def test_help_lists_every_command(self, tmp_path: Path) -> None:
        said = await orchestrator("--help", folder=tmp_path)
        assert (said.code, said.errors) == (0, "")
        for command in COMMANDS:
            assert re.search(rf"^ +{command}\s+\w", said.output, re.MULTILINE), command

    async def test_a_wrong_call_is_told_how_it_should_be(self, tmp_path: Path) -> None:
        said = await orchestrator("serve", "--port", "eighty", folder=tmp_path)
        assert said.code == 2
        assert said.errors.startswith("usage: orchestrator")


class TestRotateKeys:
    async def test_seals_everything_anew_and_tells_what_it_cannot_open(
        self, tmp_path: Path, new_database: AsyncEngine
    ) -> None:
        url = new_database.url.render_as_string(hide_password=False)
        former, newest = new_key(), new_key()
        keys = {"DATABASE_URL": url, "ENCRYPTION_KEY": newest, "ENCRYPTION_KEY_PREVIOUS": former}
        await orchestrator("migrate", folder=tmp_path, **keys)
        vault = Vault(KeyRing([read_key(former)]))
        async with everything(new_database) as connection:
            row = PaymentIntegration(id=uuid4(), tenant_id=await new_tenant(new_database), provider="btcpay")
            vault.lock(row, {"api_key": "x"})
            told = {"account": {}, "hint": "", "account_since": datetime.now(UTC), "chosen_at": datetime.now(UTC)}
            sealed = {name: getattr(row, name) for name in ("id", "tenant_id", "provider", "sealed", "key_id")}
            await connection.execute(insert(PaymentIntegration).values(**sealed, **told))
        said = await orchestrator("rotate-keys", folder=tmp_path, **{**keys, "ENCRYPTION_KEY_PREVIOUS": ""})
        assert "1 cannot be opened" in said.refusal()
        said = await orchestrator("rotate-keys", folder=tmp_path, **keys)
        assert (said.code, said.output.splitlines()[-1]) == (0, "1 sealed anew"), said
        said = await orchestrator("rotate-keys", folder=tmp_path, **{**keys, "ENCRYPTION_KEY_PREVIOUS": ""})
        assert (said.code, said.output.splitlines()[-1]) == (0, "0 sealed anew"), said


class TestCheckConfig:
    async def test_shows_everything_but_secrets(self, tmp_path: Path, addresses: Mapping[str, str]) -> None:
        said = await orchestrator("check-config", folder=tmp_path, **addresses, **SECRETS)
        assert said.code == 0, said
        told = dict(line.split(None, 1) for line in said.output.splitlines() if len(line.split(None, 1)) == 2)
        for name in SECRETS:
            assert told[name] == "(set)"
        assert told["PORT"] == "8000"
        assert told["DATABASE_URL"] == "(set)"
        assert told["database"] == "ok"
        assert told["redis"] == ("ok" if addresses["REDIS_URL"] else "not configured")
        assert told["rabbitmq"] == ("ok" if addresses["RABBITMQ_URL"] else "not configured")
        for secret in (*SECRETS.values(), addresses["DATABASE_URL"]):
            assert secret not in said.output + said.errors

    async def test_names_a_store_that_is_away(self, tmp_path: Path, addresses: Mapping[str, str]) -> None:
        said = await orchestrator(
            "check-config", folder=tmp_path, **{**addresses, "REDIS_URL": "redis://:hidden@127.0.0.1:1/0"}
        )
        refusal = said.refusal()
        assert "REDIS_URL" in refusal
        assert "hidden" not in refusal + said.output


class TestRefusals:
    """At start every wrong address ends in a message that says which it is and how to mend it.

    Further kinds of wrong addresses are tried in test_wiring.py, without a process for each.
    """

    @pytest.mark.parametrize(
        ("name", "url"),
        [
            ("DATABASE_URL", "postgresql://app:hidden@127.0.0.1:1/app"),
            ("REDIS_URL", "redis://:hidden@127.0.0.1:1/0"),
            ("RABBITMQ_URL", "amqp://guest:hidden@127.0.0.1:1/"),
        ],
    )
    async def test_a_wrong_store(self, tmp_path: Path, addresses: Mapping[str, str], name: str, url: str) -> None:
        refusal = (await orchestrator("serve", folder=tmp_path, **{**addresses, name: url})).refusal()
        assert name in refusal
        assert "docs/configuration.md" in refusal
        assert "hidden" not in refusal

    async def test_production_without_its_secrets(self, tmp_path: Path) -> None:
        refusal = (await orchestrator("serve", folder=tmp_path, ENVIRONMENT="production")).refusal()
        for name in ("SECRET_KEY", "DATABASE_URL", "PUBLIC_URL", "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET"):
            assert f"{name} is missing" in refusal

    async def test_a_port_that_is_taken(self, tmp_path: Path, addresses: Mapping[str, str]) -> None:
        """The database alone is named, so that this process has no queue and takes part in no other test's work."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = str(taken.getsockname()[1])
            environment = {"DATABASE_URL": addresses["DATABASE_URL"], "PORT": port}
            refusal = (await orchestrator("serve", folder=tmp_path, **environment)).refusal()
        assert f"PORT={port} is in use" in refusal
        assert "choose another port" in refusal

    async def test_a_worker_without_a_queue(self, tmp_path: Path) -> None:
        assert "RABBITMQ_URL" in (await orchestrator("worker", folder=tmp_path)).refusal()

    async def test_a_data_folder_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "in-the-way").write_text("a file")
        said = await orchestrator("serve", folder=tmp_path, DATA_DIR=str(tmp_path / "in-the-way"))
        assert f"DATA_DIR={tmp_path / 'in-the-way'} cannot be used: it is not a folder" in said.refusal()


class TestData:
    async def test_an_empty_database_is_met_with_the_command_that_helps(
        self, tmp_path: Path, new_database: AsyncEngine
    ) -> None:
        url = new_database.url.render_as_string(hide_password=False)
        assert "orchestrator migrate" in (await orchestrator("seed", folder=tmp_path, DATABASE_URL=url)).refusal()

    async def test_migrate_and_seed(self, tmp_path: Path, new_database: AsyncEngine) -> None:
        environment = {"DATABASE_URL": new_database.url.render_as_string(hide_password=False)}
        assert (await orchestrator("migrate", folder=tmp_path, **environment)).code == 0
        # Two at once, as two containers of one release may do it, and then once more.
        first, second = await asyncio.gather(*(orchestrator("seed", folder=tmp_path, **environment) for _ in range(2)))
        assert (first.code, second.code) == (0, 0), (first, second)
        tables = ("plans", "users", "tenants", "subscriptions", "provisioning_jobs")
        counts = [await count(new_database, table) for table in tables]
        assert counts == [4, 2, 2, 2, 2]
        assert (await orchestrator("seed", folder=tmp_path, **environment)).code == 0
        assert counts == [await count(new_database, table) for table in tables]

        assert (await orchestrator("migrate", "base", folder=tmp_path, **environment)).code == 0
        assert await count(new_database, "pg_tables WHERE schemaname = 'public'") == 1, "alembic_version alone is left"

    async def test_create_superuser(self, tmp_path: Path, addresses: Mapping[str, str]) -> None:
        database = {"DATABASE_URL": addresses["DATABASE_URL"]}
        password = {"SUPERUSER_PASSWORD": "long enough a word"}
        command = ("create-superuser", f"root-{uuid4().hex}@example.org")

        bad_address, bad_password = await asyncio.gather(
            orchestrator("create-superuser", "no-address", folder=tmp_path, **database, **password),
            orchestrator(*command, folder=tmp_path, **database, SUPERUSER_PASSWORD="short"),
        )
        assert "mail" in bad_address.refusal().lower()
        assert bad_password.refusal() == "password (SUPERUSER_PASSWORD): String should have at least 8 characters\n"
        said = await orchestrator(*command, folder=tmp_path, **database, **password)
        assert said.code == 0, said
        assert password["SUPERUSER_PASSWORD"] not in said.output + said.errors
        said = await orchestrator(*command, folder=tmp_path, **database, **password)
        assert "already exists" in said.refusal()

    async def test_a_password_is_piped_in_or_missed_in_one_line(
        self, tmp_path: Path, addresses: Mapping[str, str]
    ) -> None:
        command = ("create-superuser", f"root-{uuid4().hex}@example.org")
        database = {"DATABASE_URL": addresses["DATABASE_URL"]}

        nobody, somebody = await asyncio.gather(
            orchestrator(*command, folder=tmp_path, **database),
            orchestrator(*command, folder=tmp_path, typed="long enough a word\n", **database),
        )

        assert nobody.refusal() == "no password: set SUPERUSER_PASSWORD, or run this in a terminal\n"
        assert somebody.code == 0, somebody

    async def test_reset_a_second_factor(self, tmp_path: Path, addresses: Mapping[str, str]) -> None:
        database = {"DATABASE_URL": addresses["DATABASE_URL"]}
        said = await orchestrator("reset-second-factor", "nobody@example.org", folder=tmp_path, **database)
        assert (said.code, "--reason" in said.errors) == (2, True)
        command = ("reset-second-factor", "nobody@example.org", "--reason", "a lost phone")
        assert "User not found" in (await orchestrator(*command, folder=tmp_path, **database)).refusal()

    async def test_reconcile(self, tmp_path: Path, new_database: AsyncEngine) -> None:
        environment = {"DATABASE_URL": new_database.url.render_as_string(hide_password=False)}
        assert (await orchestrator("migrate", folder=tmp_path, **environment)).code == 0
        said = await orchestrator("reconcile", "--provider", "sandbox", folder=tmp_path, **environment)
        assert (said.code, said.output) == (0, "sandbox is done: 0 checked, 0 found that nobody had told\n"), said
        # Stripe's keys are not set, nor has anybody given an account at BTCPay.
        for name in ("nobody", "stripe", "btcpay"):
            said = await orchestrator("reconcile", "--provider", name, folder=tmp_path, **environment)
            assert "No keys of this payment provider are set" in said.refusal()
            assert "something at: sandbox" in said.errors
            assert (said.output, "Traceback" in said.errors) == ("", False)

    async def test_suspend_and_reinstate_a_tenant(
        self, tmp_path: Path, addresses: Mapping[str, str], engine: AsyncEngine
    ) -> None:
        tenant_id = await new_tenant(engine)
        slug, database = f"t-{tenant_id.hex}", {"DATABASE_URL": addresses["DATABASE_URL"]}

        async def status() -> str:
            async with everything(engine) as connection:
                found = await connection.execute(text("SELECT status FROM tenants WHERE id = :id"), {"id": tenant_id})
                return str(found.scalar_one())

        said = await orchestrator("suspend-tenant", slug, folder=tmp_path, **database)
        assert (said.code, "--reason" in said.errors) == (2, True)
        for command, outcome, after in (
            (("suspend-tenant", slug, "--reason", "a bill"), "is suspended", "suspended"),
            (("suspend-tenant", slug, "--reason", "a bill"), "was suspended already", "suspended"),
            (("reinstate-tenant", slug), "is open again", "active"),
            (("reinstate-tenant", slug), "is not suspended", "active"),
        ):
            said = await orchestrator(*command, folder=tmp_path, **database)
            assert (said.code, said.output.strip()) == (0, f"{slug} {outcome}"), said
            assert await status() == after
        said = await orchestrator("verify-audit", folder=tmp_path, **database)
        assert said.code == 0, said
        assert re.fullmatch(r"\d+ entries in \d+ chains, digest [0-9a-f]{64}\n", said.output)
        assert "not found" in (await orchestrator("reinstate-tenant", "nobody", folder=tmp_path, **database)).refusal()
