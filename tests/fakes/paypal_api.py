"""A fake of PayPal: tokens, orders, captures, refunds, and webhooks signed by a certificate that it serves itself.

It shares no code with the product; PayPal's official SDK drives it in `tests/providers/payments/test_paypal_sdk.py`.
`PayPal-Request-Id` replays the first answer, money for one invoice id is taken once only, and an order that is
approved is not paid before somebody captures it.
"""

import base64
import copy
import json
import secrets
import string
import time
import uuid
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import urlencode

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from tests.fakes import paypal_ca
from tests.fakes.server import FakeServer, Obj, Reply, Seen

CLIENT_ID = "paypal-client"
CLIENT_SECRET = "paypal-secret"
WEBHOOK_ID = "1JE4291016473214C"

_WHOLE_ONLY = {"HUF", "JPY", "TWD"}
_CURRENCIES = {"EUR", "GBP", "HUF", "JPY", "USD"}


class FakePayPal(FakeServer):
    """One PayPal application and its account."""

    def __init__(self, *, clock: Callable[[], float] = time.time, signer: paypal_ca.Signer | None = None) -> None:
        super().__init__(clock=clock)
        self.orders: dict[str, Obj] = {}
        self.events: list[Obj] = []
        self.tokens: set[str] = set()
        self.decline_next = False
        self.hold_next = False
        self._signer = signer or paypal_ca.signer()
        self._replays: dict[str, tuple[str, Reply]] = {}

    # ------------------------------------------------------------------------------------------ the story

    def approve(self, order_id: str) -> list[Obj]:
        """The payer agrees to pay; nothing is paid yet."""
        order = self.orders[order_id]
        order.update(status="APPROVED", payer={"payer_id": "QYR5Z8XDVJNXQ", "email_address": "payer@example.com"})
        self._touch(order)
        return [self._event("CHECKOUT.ORDER.APPROVED", "checkout-order", order)]

    def decide(self, order_id: str, *, arrives: bool) -> list[Obj]:
        """The money of a held capture arrives, or is denied."""
        (capture,) = _payments(self.orders[order_id])["captures"]
        capture["status"] = "COMPLETED" if arrives else "DECLINED"
        if arrives:
            capture["seller_receivable_breakdown"] = _breakdown(capture["amount"])
        self._touch(capture)
        kind = "PAYMENT.CAPTURE.COMPLETED" if arrives else "PAYMENT.CAPTURE.DENIED"
        return [self._event(kind, "capture", capture)]

    def reverse(self, order_id: str) -> list[Obj]:
        """PayPal takes the money back from the merchant."""
        (capture,) = _payments(self.orders[order_id])["captures"]
        capture["status"] = "REVERSED"
        self._touch(capture)
        return [self._event("PAYMENT.CAPTURE.REVERSED", "capture", capture)]

    def fail_refund(self, refund_id: str) -> None:
        """The bank sends a refund back; no notification tells of it."""
        for order in self.orders.values():
            payments = _payments(order)
            for refund in payments["refunds"]:
                if refund["id"] == refund_id:
                    refund["status"] = "FAILED"
                    self._touch(refund)
                    (capture,) = payments["captures"]
                    capture["status"] = "PARTIALLY_REFUNDED" if _given(payments) else "COMPLETED"

    def dispute(self, order_id: str, *, outcome: str | None = None, stage: str = "CHARGEBACK") -> list[Obj]:
        """The payer disputes a capture; with an `outcome` the dispute is decided."""
        (capture,) = _payments(self.orders[order_id])["captures"]
        dispute = {
            "dispute_id": f"PP-D-{capture['id']}",
            "create_time": self._moment(),
            "update_time": self._moment(),
            "disputed_transactions": [{"seller_transaction_id": capture["id"]}],
            "reason": "MERCHANDISE_OR_SERVICE_NOT_RECEIVED",
            "status": "OPEN" if outcome is None else "RESOLVED",
            "dispute_amount": capture["amount"],
            "dispute_life_cycle_stage": stage,
        }
        if outcome is None:
            return [self._event("CUSTOMER.DISPUTE.CREATED", "dispute", dispute)]
        decided = {**dispute, "dispute_outcome": {"outcome_code": outcome, "amount_refunded": capture["amount"]}}
        return [self._event("CUSTOMER.DISPUTE.RESOLVED", "dispute", decided)]

    def capture(self, order_id: str) -> list[Obj]:
        """Take the money of an approved order, as the API does; return the events."""
        order = self.orders[order_id]
        unit = order["purchase_units"][0]
        status = "PENDING" if self.hold_next else "COMPLETED"
        self.hold_next = False
        made = {
            "id": _new_id(),
            "status": status,
            "amount": unit["amount"],
            "final_capture": True,
            "custom_id": unit.get("custom_id"),
            "invoice_id": unit.get("invoice_id"),
            "supplementary_data": {"related_ids": {"order_id": order_id}},
            "create_time": self._moment(),
            "update_time": self._moment(),
        }
        if status == "COMPLETED":
            made["seller_receivable_breakdown"] = _breakdown(unit["amount"])
        made["links"] = [self._link(f"/v2/payments/captures/{made['id']}", "self", "GET")]
        unit["payments"] = {"captures": [made], "refunds": []}
        order["status"] = "COMPLETED"
        self._touch(order)
        kind = "PAYMENT.CAPTURE.PENDING" if status == "PENDING" else "PAYMENT.CAPTURE.COMPLETED"
        return [self._event(kind, "capture", made)]

    # ------------------------------------------------------------------------------------------- webhooks

    def encode(self, event: Obj) -> bytes:
        return json.dumps(event).encode()

    def sign(self, body: bytes, *, at: int | None = None, signer: paypal_ca.Signer | None = None) -> dict[str, str]:
        """The headers of a delivery at unix second `at`."""
        by = signer or self._signer
        transmission = str(uuid.uuid4())
        moment = self._moment(at)
        message = f"{transmission}|{moment}|{WEBHOOK_ID}|{zlib.crc32(body)}"
        signature = by.key.sign(message.encode(), PKCS1v15(), SHA256())
        return {
            "PAYPAL-AUTH-ALGO": "SHA256withRSA",
            "PAYPAL-CERT-URL": f"{self.base_url}/v1/notifications/certs/{by.name}",
            "PAYPAL-TRANSMISSION-ID": transmission,
            "PAYPAL-TRANSMISSION-SIG": base64.b64encode(signature).decode(),
            "PAYPAL-TRANSMISSION-TIME": moment,
        }

    def _event(self, kind: str, resource_type: str, resource: Obj) -> Obj:
        event = {
            "id": f"WH-{_new_id()}-{_new_id()}",
            "event_version": "1.0",
            "create_time": self._moment(),
            "resource_type": resource_type,
            "resource_version": "2.0",
            "event_type": kind,
            "summary": kind.title(),
            "resource": copy.deepcopy(resource),
            "links": [],
        }
        self.events.append(event)
        return event

    # ----------------------------------------------------------------------------------------------- HTTP

    def answer(self, request: web.Request, seen: Seen) -> Reply:
        path = request.path.strip("/").split("/")
        match request.method, path:
            case "GET", ["v1", "notifications", "certs", name]:
                pem = paypal_ca.served(name)
                return Reply(404, None) if pem is None else Reply(200, pem, {"Content-Type": "text/plain"})
            case "POST", ["v1", "oauth2", "token"]:
                return self._token(request, seen)
            case _:
                return self._authorised(request, seen, path)

    def _authorised(self, request: web.Request, seen: Seen, path: list[str]) -> Reply:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or token not in self.tokens:
            return _error(401, "AUTHENTICATION_FAILURE")
        if request.method == "POST" and request.content_type != "application/json":
            return _error(415, "UNSUPPORTED_MEDIA_TYPE")
        return self._idempotent(request, seen, path)

    def _token(self, request: web.Request, seen: Seen) -> Reply:
        expected = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {expected}":
            return Reply(401, {"error": "invalid_client", "error_description": "Client Authentication failed"})
        if "grant_type=client_credentials" not in seen.body:
            return Reply(400, {"error": "unsupported_grant_type"})
        token = "A21AA" + secrets.token_urlsafe(32)
        self.tokens.add(token)
        return Reply(200, {"scope": "", "access_token": token, "token_type": "Bearer", "expires_in": 31_668})

    def _idempotent(self, request: web.Request, seen: Seen, path: list[str]) -> Reply:
        key = request.headers.get("PayPal-Request-Id")
        if key is None or request.method != "POST":
            return self._route(request.method, path, seen)
        fingerprint = f"{request.path} {seen.body}"
        if key in self._replays:
            before, reply = self._replays[key]
            # A repetition of the request is answered as it was; the same key on other content is an error.
            return reply if before == fingerprint else _error(422, "DUPLICATE_REQUEST_ID")
        reply = self._route(request.method, path, seen)
        if reply.status < 300:
            self._replays[key] = (fingerprint, Reply(reply.status, copy.deepcopy(reply.content)))
        return reply

    def _route(self, method: str, path: list[str], seen: Seen) -> Reply:
        match method, path:
            case "GET", ["v1", "notifications", "webhooks-events"]:
                return self._list_events(seen.params)
            case "POST", ["v2", "checkout", "orders"]:
                return self._create(seen.params)
            case "GET", ["v2", "checkout", "orders", order_id] if order_id in self.orders:
                return Reply(200, self.orders[order_id])
            case "POST", ["v2", "checkout", "orders", order_id, "capture"] if order_id in self.orders:
                return self._capture(self.orders[order_id])
            case "GET", ["v2", "payments", "captures", capture_id]:
                found = self._find(capture_id)
                return _missing() if found is None else Reply(200, found[1])
            case "POST", ["v2", "payments", "captures", capture_id, "refund"]:
                found = self._find(capture_id)
                return _missing() if found is None else self._refund(*found, seen.params)
            case _:
                return _missing()

    def _list_events(self, params: Obj) -> Reply:
        """The application's notifications, the newest first, delivered or not."""
        begin, end = params.get("start_time", ""), params.get("end_time", "9")
        found = [event for event in reversed(self.events) if begin <= event["create_time"] <= end]
        at, size = int(params.get("next_page_token", 0)), int(params.get("page_size", 10))
        page = found[at : at + size]
        links = [self._link("/v1/notifications/webhooks-events", "self", "GET")]
        if at + size < len(found):
            query = urlencode({**params, "next_page_token": at + size})
            links.append(self._link(f"/v1/notifications/webhooks-events?{query}", "next", "GET"))
        return Reply(200, {"events": page, "count": len(page), "links": links})

    def _create(self, params: Obj) -> Reply:
        unit = params["purchase_units"][0]
        currency, value = unit["amount"]["currency_code"], unit["amount"]["value"]
        decimals = len(value.partition(".")[2])
        if params["intent"] != "CAPTURE" or currency not in _CURRENCIES or Decimal(value) <= 0:
            return _error(422, "UNPROCESSABLE_ENTITY", "CURRENCY_NOT_SUPPORTED")
        if decimals > 2 or (currency in _WHOLE_ONLY and decimals > 0):
            return _error(422, "UNPROCESSABLE_ENTITY", "DECIMAL_PRECISION")
        if len(unit.get("custom_id", "")) > 127 or len(unit.get("description", "")) > 127:
            return _error(400, "INVALID_REQUEST", "INVALID_STRING_MAX_LENGTH")
        order_id = _new_id()
        source = "payment_source" in params
        self.orders[order_id] = {
            "id": order_id,
            "intent": "CAPTURE",
            "status": "PAYER_ACTION_REQUIRED" if source else "CREATED",
            "purchase_units": [copy.deepcopy(unit)],
            "create_time": self._moment(),
            "links": [
                self._link(f"/v2/checkout/orders/{order_id}", "self", "GET"),
                {
                    "href": f"https://www.sandbox.paypal.com/checkoutnow?token={order_id}",
                    "rel": "payer-action" if source else "approve",
                    "method": "GET",
                },
            ],
        }
        return Reply(200 if source else 201, self.orders[order_id])

    def _capture(self, order: Obj) -> Reply:
        if order["status"] == "COMPLETED":
            return _error(422, "UNPROCESSABLE_ENTITY", "ORDER_ALREADY_CAPTURED")
        if order["status"] != "APPROVED":
            return _error(422, "UNPROCESSABLE_ENTITY", "ORDER_NOT_APPROVED")
        if self.decline_next:
            self.decline_next = False
            return _error(422, "UNPROCESSABLE_ENTITY", "INSTRUMENT_DECLINED")
        invoice_id = order["purchase_units"][0].get("invoice_id")
        taken = [
            unit["invoice_id"]
            for row in self.orders.values()
            for unit in row["purchase_units"]
            if row["status"] == "COMPLETED" and unit.get("invoice_id")
        ]
        if invoice_id in taken:
            return _error(422, "UNPROCESSABLE_ENTITY", "DUPLICATE_INVOICE_ID")
        self.capture(order["id"])
        return Reply(201, order)

    def _find(self, capture_id: str) -> tuple[Obj, Obj] | None:
        for order in self.orders.values():
            for capture in _payments(order)["captures"]:
                if capture["id"] == capture_id:
                    return order, capture
        return None

    def _refund(self, order: Obj, capture: Obj, params: Obj) -> Reply:
        refunds = _payments(order)["refunds"]
        total = Decimal(capture["amount"]["value"])
        given = _given(_payments(order))
        amount = params.get("amount") or {**capture["amount"], "value": str(total - given)}
        if capture["status"] not in {"COMPLETED", "PARTIALLY_REFUNDED"}:
            return _error(422, "UNPROCESSABLE_ENTITY", "CAPTURE_FULLY_REFUNDED")
        if not 0 < Decimal(amount["value"]) <= total - given or amount["currency_code"] != order_currency(order):
            return _error(422, "UNPROCESSABLE_ENTITY", "REFUND_AMOUNT_EXCEEDED")
        refund = {
            "id": _new_id(),
            "status": "COMPLETED",
            "amount": amount,
            "custom_id": capture["custom_id"],
            "create_time": self._moment(),
            "update_time": self._moment(),
            "links": [self._link(f"/v2/payments/captures/{capture['id']}", "up", "GET")],
        }
        refunds.append(refund)
        left = total - given - Decimal(amount["value"])
        capture["status"] = "PARTIALLY_REFUNDED" if left else "REFUNDED"
        self._touch(capture)
        self._event("PAYMENT.CAPTURE.REFUNDED", "refund", refund)
        return Reply(201, refund)

    def _touch(self, row: Obj) -> None:
        row["update_time"] = self._moment()

    def _link(self, path: str, rel: str, method: str) -> Obj:
        return {"href": self.base_url + path, "rel": rel, "method": method}

    def _moment(self, at: int | None = None) -> str:
        return datetime.fromtimestamp(self.now() if at is None else at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def order_currency(order: Obj) -> str:
    currency: str = order["purchase_units"][0]["amount"]["currency_code"]
    return currency


def _breakdown(amount: Obj) -> Obj:
    """What PayPal keeps, 3.49 %, and what is left of it."""
    gross, currency = Decimal(amount["value"]), amount["currency_code"]
    step = Decimal(1) if currency in _WHOLE_ONLY else Decimal("0.01")
    fee = (gross * Decimal("0.0349")).quantize(step)
    return {
        "gross_amount": amount,
        "paypal_fee": {"currency_code": currency, "value": str(fee)},
        "net_amount": {"currency_code": currency, "value": str(gross - fee)},
    }


def _payments(order: Obj) -> Obj:
    payments: Obj = order["purchase_units"][0].get("payments", {"captures": [], "refunds": []})
    return payments


def _given(payments: Obj) -> Decimal:
    good = (refund for refund in payments["refunds"] if refund["status"] != "FAILED")
    return sum((Decimal(refund["amount"]["value"]) for refund in good), Decimal(0))


def _new_id() -> str:
    return "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(17))


def _missing() -> Reply:
    return _error(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID")


def _error(status: int, name: str, issue: str | None = None) -> Reply:
    details = [] if issue is None else [{"issue": issue, "description": "See the documentation."}]
    return Reply(status, {"name": name, "message": "Refused.", "debug_id": secrets.token_hex(7), "details": details})
