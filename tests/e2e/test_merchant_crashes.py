"""`kill -9` between the arrival of a merchant's event and its effect: no order is lost, none is paid twice.

The points are those of the platform's payments (test_payment_crashes.py), on the road of merchants' accounts.
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiohttp import ClientSession

from providers.payments import CheckoutCreated
from tests.e2e.test_payment_crashes import (
    Point,
    Stage,
    die,
    kill_web,
    kill_worker,
    open_stage,
    queue,
    silence,
    statement,
)
from tests.fakes.btcpay_api import API_KEY, STORE, WEBHOOK_SECRET
from tests.providers.payments.harness import Delivery
from tests.support.people import address, company_factory
from tests.support.sellers import Buyer, Sellers
from tests.support.stores import Stores

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]

_WHOSE = "X-Whose"
ONE_ORDER = {
    "orders": ["paid 49.90"],
    "invoices": ["paid 49.90"],
    "commissions": ["1 2.50"],
    "journal": ["commission receivables commissions 2.50"],
    "told": 1,
    "noted": 1,
}
_BOOKS = """
    SELECT
        (SELECT array_agg(status || ' ' || amount) FROM orders WHERE tenant_id = $1) AS orders,
        (SELECT array_agg(state || ' ' || received) FROM order_invoices WHERE tenant_id = $1) AS invoices,
        (SELECT array_agg(number || ' ' || commission_amount) FROM commission_logs WHERE tenant_id = $1) AS commissions,
        (SELECT array_agg(kind || ' ' || debit || ' ' || credit || ' ' || amount) FROM journal_entries
            WHERE tenant_id = $1) AS journal,
        (SELECT count(*) FROM events WHERE tenant_id = $1 AND name = 'order:paid') AS told,
        (SELECT count(*) FROM audit_entries WHERE tenant_id = $1 AND action = 'order.paid') AS noted
"""


class Merchants(Sellers):
    """The same deployment, at which the buyers are customers of merchants."""

    async def buyer(self, http: ClientSession, url: str, provider: str) -> Buyer:
        """Found a merchant with an account at a BTCPay Server, and send a customer there."""
        owner = await company_factory(http, url)()
        account = {"storeId": STORE, "apiKey": API_KEY, "webhookSecret": WEBHOOK_SECRET}
        host = self.harnesses[provider].fake.base_url
        status, answer = await owner.request(
            "POST", "/api/tenant/payments/provider", json={"provider": provider, "host": host, **account}
        )
        assert status == 200, answer
        price = {"amount": "49.90", "currency": "USD"}
        _, order = await owner.post("/api/tenant/orders", price)
        status, begun = await owner.post(f"/api/tenant/orders/{order['id']}/pay", price)
        assert status == 200, begun
        _, order = await owner.get(f"/api/tenant/orders/{order['id']}")
        (invoice,) = order["invoices"]
        soon = datetime.now(UTC) + timedelta(hours=1)
        purchase = CheckoutCreated(
            session_id=invoice["providerInvoiceId"], url=begun["url"], customer_ref=None, expires_at=soon
        )
        return Buyer(owner, provider, purchase)

    def sign(self, buyer: Buyer, content: bytes) -> Delivery:
        """Sign an event, and note whose webhook it is for."""
        delivery = super().sign(buyer, content)
        return replace(delivery, headers={**delivery.headers, _WHOSE: str(buyer.owner.tenant_id)})

    async def deliver(self, http: ClientSession, url: str, provider: str, delivery: Delivery) -> int:
        """Bring an event to the merchant's webhook at one instance."""
        del provider
        hook = address(url, f"/api/tenant/payments/webhook?tenant={delivery.headers[_WHOSE]}")
        async with http.post(hook, data=delivery.body, headers=delivery.headers) as answer:
            await answer.read()
            return answer.status

    async def books(self, tenant_id: UUID) -> dict[str, Any]:
        """Return everything that has come of a customer's payment."""
        (row,) = await self.ask(_BOOKS, tenant_id)
        return dict(row)


WEB = (
    Point("with a good signature, before the insert", statement(b"INSERT INTO provider_events"), "btcpay"),
    Point("inserted, before the commit", statement(b"INSERT INTO provider_events", b"COMMIT"), "btcpay"),
    Point(
        "committed, which it does not hear",
        statement(b"INSERT INTO provider_events", b"COMMIT", answered=True),
        "btcpay",
    ),
    Point("answered with 200, before the worker is rung", queue(b"billing.apply_merchants"), "btcpay"),
)
WORKER = (
    Point("rung, before the row is read", statement(b"FROM provider_events"), "btcpay"),
    Point("the merchant's server is asked", silence, "btcpay"),
    Point("it has answered, before the row is held", statement(b"SKIP LOCKED"), "btcpay"),
    Point("before the order is changed", statement(b"UPDATE orders"), "btcpay"),
    Point("before the commission is booked", statement(b"INSERT INTO journal_entries"), "btcpay"),
    Point("all is written, before the commit", statement(b"INSERT INTO journal_entries", b"COMMIT"), "btcpay"),
    Point(
        "committed, which it does not hear",
        statement(b"INSERT INTO journal_entries", b"COMMIT", answered=True),
        "btcpay",
        is_done=True,
    ),
)
PLAYS = {"web": (kill_web, WEB), "worker": (kill_worker, WORKER)}


@pytest.fixture
async def stage(stores: Stores, tmp_path: Path) -> AsyncIterator[Stage]:
    async with open_stage(stores, tmp_path) as opened:
        known = opened.sellers
        opened.sellers = Merchants(known.fleet, known.environment, known.harnesses)
        yield opened


@pytest.mark.parametrize("part", PLAYS)
async def test_no_order_is_lost_or_paid_twice_wherever_a_process_dies(
    stage: Stage, http: ClientSession, part: str
) -> None:
    _, points = PLAYS[part]
    buyers = [await stage.sellers.buyer(http, stage.witness.url, point.provider) for point in points]
    await die(stage, http, part, PLAYS[part], buyers)
    for point, buyer in zip(points, buyers, strict=True):
        assert await stage.sellers.books(buyer.owner.tenant_id) == ONE_ORDER, point.name
