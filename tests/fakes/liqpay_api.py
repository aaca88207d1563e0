"""A fake of LiqPay: the signed address that a payer comes with, the API behind `/api/request`, and its callbacks.

It shares no code with the product. As in the real thing an order exists only once its payer has come, refusals are
answered with status 200, amounts are JSON numbers, and there are no idempotency keys.
"""

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlencode, urlsplit

from aiohttp import web

from tests.fakes.server import FakeServer, Obj, Reply, Seen

PUBLIC_KEY = "sandbox_i00000000001"
PRIVATE_KEY = "sandbox_private_key"


class FakeLiqPay(FakeServer):
    """One LiqPay shop."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock=clock)
        self.orders: dict[str, Obj] = {}

    # ------------------------------------------------------------------------------------------ the story

    def arrive(self, url: str) -> Obj:
        """A payer comes with the address of a checkout: LiqPay checks it and opens its page."""
        address = urlsplit(url)
        assert address.path == "/api/3/checkout"
        query = parse_qs(address.query, strict_parsing=True)
        params = self._opened({name: values[0] for name, values in query.items()})
        assert params is not None, "the address is not signed by the shop"
        assert params["action"] == "pay"
        assert params["currency"] in {"UAH", "USD", "EUR"}
        assert isinstance(params["amount"], int | float)
        assert 0 < params["amount"] == round(params["amount"], 2)
        assert params["description"]
        assert len(params["order_id"]) <= 255
        assert params["server_url"].startswith("http")
        expires_at = datetime.strptime(params["expired_date"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
        assert expires_at.timestamp() > self.now()
        return self.orders.setdefault(params["order_id"], self._order(params))

    def pay(self, order_id: str, status: str = "success") -> list[bytes]:
        """The payer pays, or fails to; return the callbacks."""
        order = self.orders[order_id]
        order.update(status=status, end_date=self.now() * 1000)
        if status in {"failure", "error"}:
            order.update(result="error", err_code="limit", err_description="Limit is exceeded")
        return [self.callback(order)]

    def give_back(self, order_id: str, amount: float) -> list[bytes]:
        """Money goes back; return the callbacks."""
        order = self.orders[order_id]
        total = round(order.get("refund_amount", 0) + amount, 2)
        order.update(refund_amount=total, refund_date_last=self.now() * 1000)
        if total == order["amount"]:
            order["status"] = "reversed"
        return [self.callback(order)]

    # ------------------------------------------------------------------------------------------ callbacks

    def callback(self, order: Obj, *, key: str = PRIVATE_KEY) -> bytes:
        """The form that LiqPay posts to `server_url`."""
        data = base64.b64encode(json.dumps(order).encode()).decode()
        return self.form(data, key=key)

    def form(self, data: str, *, key: str = PRIVATE_KEY) -> bytes:
        return urlencode({"data": data, "signature": sign(data, key=key)}).encode()

    # ----------------------------------------------------------------------------------------------- HTTP

    def decode(self, request: web.Request, body: str) -> Obj:
        return {name: values[0] for name, values in parse_qs(body).items()}

    def answer(self, request: web.Request, seen: Seen) -> Reply:
        if (request.method, request.path) != ("POST", "/api/request"):
            return Reply(404, b"<html>Not found</html>", {"Content-Type": "text/html"})
        params = self._opened(seen.params)
        if params is None:
            return Reply(200, _error("invalid_signature"))
        if params["action"] == "reports":
            return Reply(200, self._reports(params))
        order = self.orders.get(params.get("order_id", ""))
        if params["action"] not in {"status", "refund"}:
            return Reply(200, _error("err_unknown_action"))
        if order is None:
            return Reply(200, _error("payment_not_found"))
        if params["action"] == "status":
            return Reply(200, {**order, "action": "pay"})
        return Reply(200, self._refund(order, params))

    def _reports(self, params: Obj) -> Obj:
        """The archive of payments, by when they were made."""
        if not params["date_from"] <= params["date_to"]:
            return _error("err_date")
        found = [
            {**order, "action": "pay"}
            for order in self.orders.values()
            if params["date_from"] <= order["create_date"] <= params["date_to"]
        ]
        return {"result": "success", "data": found}

    def _refund(self, order: Obj, params: Obj) -> Obj:
        left = round(order["amount"] - order.get("refund_amount", 0), 2)
        amount = params.get("amount", left)
        if order["status"] != "success" or not 0 < amount <= left:
            return _error("err_amount_refund")
        self.give_back(order["order_id"], amount)
        return {
            "action": "refund",
            "payment_id": order["payment_id"],
            "result": "ok",
            "status": order["status"],
            "wait_amount": False,
        }

    def _opened(self, form: Obj) -> Obj | None:
        """Check the signature of a request and decode it."""
        if form.keys() != {"data", "signature"} or form["signature"] != sign(form["data"]):
            return None
        params: Obj = json.loads(base64.b64decode(form["data"], validate=True))
        return params if params["public_key"] == PUBLIC_KEY and params["version"] == 3 else None

    def _order(self, params: Obj) -> Obj:
        # As in the real thing, no two payments bear one number, whichever shop they are of.
        number = 2_000_000_001 + secrets.randbelow(10**9)
        return {
            "result": "ok",
            "payment_id": number,
            "transaction_id": number,
            "action": "pay",
            "status": "3ds_verify",
            "version": 3,
            "type": "buy",
            "paytype": "card",
            "public_key": PUBLIC_KEY,
            "acq_id": 414963,
            "order_id": params["order_id"],
            "liqpay_order_id": f"FAKE{number}",
            "description": params["description"],
            "amount": params["amount"],
            "currency": params["currency"],
            "sender_commission": 0.0,
            "receiver_commission": round(params["amount"] * 0.0275, 2),
            "create_date": self.now() * 1000,
            "language": params["language"],
        }


def sign(data: str, *, key: str = PRIVATE_KEY) -> str:
    """base64(sha1(key + data + key)), as LiqPay's documentation has it."""
    return base64.b64encode(hashlib.sha1(f"{key}{data}{key}".encode(), usedforsecurity=False).digest()).decode()


def _error(code: str) -> Obj:
    return {"result": "error", "status": "error", "code": code, "err_code": code, "err_description": "Refused"}
