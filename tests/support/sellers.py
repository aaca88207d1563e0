"""A deployment of real processes that sells by every provider, and what its database holds of one purchase."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import aio_pika
import asyncpg
from aiohttp import ClientSession
from pydantic import SecretStr

from core.clock import SystemClock
from core.sealing import new_key
from providers.payments import CheckoutCreated
from providers.payments.sandbox import SandboxProvider
from tests.providers.payments.harness import Delivery
from tests.support.market import keys, open_harnesses
from tests.support.people import Person, address, company_factory
from tests.support.processes import Fleet, cluster_environment, fleet
from tests.support.stalls import LiveSandbox
from tests.support.stores import Stores, own_database

# What `Sellers.books` says after one payment that took effect once.
ONE_PAYMENT = {
    "purchases": ["paid 49.99"],
    "payments": ["payment_success 49.99"],
    "journal": ["charge cash revenue 49.99"],
    "fees_doubled": False,
    "credits": 0,
    "told": 1,
    "noted": 1,
    "activated": 1,
    "status": "active",
}
_QUICK_RECIPE = Path(__file__).parent / "quick_recipe.yml"
# What a purchase may lead to, each counted or told in full, so that a doubled effect of any kind is seen.
_BOOKS = """
    SELECT
        (SELECT array_agg(state || ' ' || amount) FROM checkout_sessions WHERE tenant_id = $1) AS purchases,
        (SELECT array_agg(event_type || ' ' || amount) FROM payment_events WHERE tenant_id = $1) AS payments,
        (SELECT array_agg(kind || ' ' || debit || ' ' || credit || ' ' || amount) FROM journal_entries
            WHERE tenant_id = $1 AND kind <> 'fee') AS journal,
        (SELECT count(*) > 1 FROM journal_entries WHERE tenant_id = $1 AND kind = 'fee') AS fees_doubled,
        (SELECT count(*) FROM credits WHERE tenant_id = $1) AS credits,
        (SELECT count(*) FROM events WHERE tenant_id = $1 AND name = 'payment:received') AS told,
        (SELECT count(*) FROM audit_entries WHERE tenant_id = $1 AND action = 'payment.received') AS noted,
        (SELECT count(*) FROM audit_entries WHERE tenant_id = $1 AND action = 'subscription.activated') AS activated,
        status, current_period_start, current_period_end
    FROM subscriptions WHERE tenant_id = $1
"""


@dataclass(slots=True)
class Buyer:
    """Somebody who has begun to buy at a provider."""

    owner: Person
    provider: str
    purchase: CheckoutCreated


@dataclass(slots=True)
class Sellers:
    """The deployment, of which nothing runs until it is started, and each provider's other side by its name."""

    fleet: Fleet
    environment: Mapping[str, str]
    harnesses: dict[str, Any]

    async def buyer(self, http: ClientSession, url: str, provider: str) -> Buyer:
        """Register a company and begin to buy at a provider."""
        owner = await company_factory(http, url)()
        _, plans = await owner.get("billing/plans")
        order = {
            "plan_id": next(plan["id"] for plan in plans["data"] if plan["slug"] == "professional"),
            "billing_period": "monthly",
            "payment_provider": provider,
            "success_url": "https://shop.example/ok",
            "cancel_url": "https://shop.example/no",
        }
        status, answer = await owner.post("billing/checkout", order)
        assert status == 200, answer
        created = CheckoutCreated(
            session_id=answer["session_id"],
            url=answer["checkout_url"],
            customer_ref=None,
            expires_at=datetime.now(UTC) + timedelta(hours=1),
        )
        return Buyer(owner, provider, created)

    def pay(self, buyer: Buyer) -> Sequence[bytes]:
        """Pay, and return what the provider has to tell of it: the last alone says it all. Nobody has told us yet."""
        told: Sequence[bytes] = self.harnesses[buyer.provider].paid(buyer.purchase)
        return told

    def sign(self, buyer: Buyer, content: bytes) -> Delivery:
        """Sign an event as its provider does for each delivery."""
        delivery: Delivery = self.harnesses[buyer.provider].deliver(content, at=datetime.now(UTC))
        return delivery

    async def deliver(self, http: ClientSession, url: str, provider: str, delivery: Delivery) -> int:
        """Bring an event to one instance; returns the status of its answer."""
        hook = address(url, f"billing/webhook/{provider}")
        async with http.post(hook, data=delivery.body, headers=delivery.headers) as answer:
            await answer.read()
            return answer.status

    async def books(self, tenant_id: UUID) -> dict[str, Any]:
        """Return everything that has come of a tenant's purchase."""
        (row,) = await self.ask(_BOOKS, tenant_id)
        return dict(row)

    async def ask(self, statement: str, *values: object) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.environment["DATABASE_URL"])
        try:
            return list(await connection.fetch(statement, *values))
        finally:
            await connection.close()


@asynccontextmanager
async def open_sellers(stores: Stores, folder: Path) -> AsyncIterator[Sellers]:
    """Yield a deployment with a database, queues and providers of its own; end it all afterwards."""
    async with AsyncExitStack() as stack:
        database_url = stack.enter_context(own_database(stores.database_url, "sellers"))
        environment = cluster_environment(stores, database_url, folder)
        harnesses = await open_harnesses(stack)
        environment |= {name.upper(): _plain(value) for name, value in keys(harnesses, folder).items()}
        environment |= {
            "PROVISIONING_RECIPE": str(_QUICK_RECIPE),
            "PASSWORD_HASH_MEMORY_KIB": "64",
            "PASSWORD_HASH_ROUNDS": "1",
            # Merchants' own servers are on this machine too.
            "MERCHANT_PRIVATE_HOSTS": "true",
            "ENCRYPTION_KEY": new_key(),
            "LOG_LEVEL": "WARNING",
        }
        sandbox = SandboxProvider(environment["SECRET_KEY"], "http://localhost", clock=SystemClock())
        harnesses["sandbox"] = LiveSandbox(sandbox, SystemClock())
        stack.push_async_callback(_delete_queues, environment)
        ships = await stack.enter_async_context(fleet(environment, folder))
        sellers = Sellers(ships, environment, harnesses)
        # Nothing that these tests kill is the database, so that no commit need wait for the disk.
        name = urlsplit(database_url).path.lstrip("/")
        await sellers.ask(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
        yield sellers


def _plain(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


async def _delete_queues(environment: Mapping[str, str]) -> None:
    # They bear names of this test's own, and RabbitMQ would keep them for ever.
    tasks, provisioning = environment["TASKS_QUEUE_NAME"], environment["PROVISIONING_QUEUE_NAME"]
    async with await aio_pika.connect(environment["RABBITMQ_URL"]) as connection:
        channel = await connection.channel()
        for queue in (tasks, provisioning, f"{provisioning}.dead"):
            await channel.queue_delete(queue)
