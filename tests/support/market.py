"""Two servers on one database that sell by every provider, each provider a fake that signs and delivers."""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from core.clock import SystemClock
from server.settings import Settings
from tests.fakes import btcpay_api, coinbase_business_api, coinbase_commerce_api, liqpay_api, paypal_api, paypal_ca
from tests.fakes.stripe_api import FakeStripe
from tests.providers.payments.harness import StripeHarness
from tests.support.running import Orchestrator, start
from tests.support.stalls import STALLS, open_harness
from tests.support.stores import free_port


@dataclass(slots=True)
class Market:
    """The instances, and each provider's other side by its name."""

    instances: list[Orchestrator]
    harnesses: dict[str, Any]

    @property
    def stripe(self) -> FakeStripe:
        stripe: FakeStripe = self.harnesses["stripe"].fake
        return stripe


async def open_market(stack: AsyncExitStack, settings: Settings, engine: AsyncEngine, folder: Path) -> Market:
    """Start two servers beside the shared one."""
    harnesses = await open_harnesses(stack)
    own = settings.model_copy(update=keys(harnesses, folder))
    instances = [
        await start(stack, own.model_copy(update={"port": free_port(), **_queues(settings, place)}), engine)
        for place in range(2)
    ]
    return Market(instances, harnesses)


async def open_harnesses(stack: AsyncExitStack) -> dict[str, Any]:
    """Open the other side of every provider that is reached over the network, on the machine's clock."""
    clock = SystemClock()
    harnesses: dict[str, Any] = {
        name: await stack.enter_async_context(open_harness(name, clock)) for name in sorted(STALLS)
    }
    stripe = await stack.enter_async_context(FakeStripe())
    harnesses["stripe"] = StripeHarness(stripe)
    stack.push_async_callback(harnesses["stripe"].close)
    return harnesses


def keys(harnesses: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the settings that make a server sell by the fakes; `folder` gets the file that one of them names."""
    authorities = folder / "paypal.pem"
    authorities.write_bytes(paypal_ca.roots())
    base = {name: harness.fake.base_url for name, harness in harnesses.items()}
    return {
        "stripe_secret_key": SecretStr(harnesses["stripe"].fake.secret_key),
        "stripe_webhook_secret": SecretStr(harnesses["stripe"].fake.webhook_secret),
        "stripe_api_base": base["stripe"],
        "liqpay_public_key": liqpay_api.PUBLIC_KEY,
        "liqpay_private_key": SecretStr(liqpay_api.PRIVATE_KEY),
        "liqpay_api_base": base["liqpay"],
        "paypal_client_id": paypal_api.CLIENT_ID,
        "paypal_client_secret": SecretStr(paypal_api.CLIENT_SECRET),
        "paypal_webhook_id": paypal_api.WEBHOOK_ID,
        "paypal_ca_file": str(authorities),
        "paypal_api_base": base["paypal"],
        "btcpay_host": base["btcpay"],
        "btcpay_api_key": SecretStr(btcpay_api.API_KEY),
        "btcpay_store_id": btcpay_api.STORE,
        "btcpay_webhook_secret": SecretStr(btcpay_api.WEBHOOK_SECRET),
        "coinbase_api_key": SecretStr(coinbase_commerce_api.API_KEY),
        "coinbase_webhook_secret": SecretStr(coinbase_commerce_api.WEBHOOK_SECRET),
        "coinbase_api_base": base["coinbase_commerce"],
        "coinbase_business_key_id": coinbase_business_api.KEY_ID,
        "coinbase_business_key_secret": SecretStr(harnesses["coinbase_business"].fake.key_secret),
        "coinbase_business_webhook_secret": SecretStr(coinbase_business_api.WEBHOOK_SECRET),
        "coinbase_business_api_base": base["coinbase_business"],
    }


def _queues(settings: Settings, place: int) -> dict[str, Any]:
    # Their events must reach their own workers, which alone know these providers.
    return {
        "provisioning_queue_name": f"{settings.provisioning_queue_name}.market{place}",
        "tasks_queue_name": f"{settings.tasks_queue_name}.market{place}",
    }
