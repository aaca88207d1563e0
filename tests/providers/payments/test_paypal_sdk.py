"""The fake of PayPal is true to the wire: PayPal's own SDK drives it, unmodified but for the address."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import paypal_api
from tests.providers.payments.harness_one_time import PayPalHarness

PROGRAM = Path(__file__).with_name("paypal_sdk_program.py")
# `make setup` puts it here (requirements/paypal-sdk.in tells why not beside the rest).
SDK = Path(sys.prefix) / "paypal-sdk"


class Sdk:
    """The program beside, which has the SDK."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def do(self, name: str, key: str, *args: str) -> Any:
        """Let the SDK do one thing."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, key, *args]).encode() + b"\n")
        line = await self._process.stdout.readline()
        assert line, "the program has ended"
        return json.loads(line)


@pytest.fixture
async def sdk(paypal: PayPalHarness) -> AsyncIterator[Sdk]:
    """The SDK on the fake."""
    if not SDK.is_dir() and not os.environ.get("CI"):
        pytest.skip(f"PayPal's SDK is not in {SDK}: `make setup` puts it there")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        PROGRAM,
        paypal.fake.base_url,
        paypal_api.CLIENT_ID,
        paypal_api.CLIENT_SECRET,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SDK)},
    )
    yield Sdk(process)
    assert process.stdin is not None
    process.stdin.close()
    assert await process.wait() == 0


async def test_an_order_from_beginning_to_refund(paypal: PayPalHarness, sdk: Sdk) -> None:
    order = await sdk.do("create", "key-1", "49.99")
    again = await sdk.do("create", "key-1", "49.99")
    assert order == again == {"id": order["id"], "status": "CREATED", "links": ["self", "approve"]}

    paypal.fake.approve(order["id"])
    assert await sdk.do("get", "", order["id"]) == {"status": "APPROVED"}
    captured = await sdk.do("capture", "key-2", order["id"])
    capture = captured["capture"]

    assert captured["status"] == "COMPLETED"
    assert capture == {"id": capture["id"], "status": "COMPLETED", "value": "49.99", "custom": "ours"}
    assert await sdk.do("get_capture", "", capture["id"]) == {"order": order["id"]}
    assert await sdk.do("refund", "key-3", capture["id"], "10.00") == {"status": "COMPLETED", "value": "10.00"}


async def test_refusals_have_the_sdks_shape(sdk: Sdk) -> None:
    missing = await sdk.do("get", "", "UNKNOWN")
    order = await sdk.do("create", "key-9", "49.99")
    early = await sdk.do("capture", "key-10", order["id"])

    assert (missing["refused"], missing["name"]) == (404, "RESOURCE_NOT_FOUND")
    assert (early["refused"], early["issues"]) == (422, ["ORDER_NOT_APPROVED"])


async def test_the_adapter_and_the_sdk_see_one_order(paypal: PayPalHarness, sdk: Sdk) -> None:
    order = await sdk.do("create", "key-1", "49.99")
    paypal.fake.approve(order["id"])

    state = await paypal.provider.capture(order["id"])

    assert state.tags is None
    assert state.payment_ref is not None
    assert await sdk.do("get_capture", "", state.payment_ref) == {"order": order["id"]}
