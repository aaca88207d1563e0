"""A fake of BTCPay Server: one store of a Greenfield API, whose invoices are paid in parts, late, or not at all.

It shares no code with the product. Amounts due are counted in coins at a fixed rate, webhooks are indented JSON without
amounts and with the flags that the real server sets, and there are no idempotency keys. `is_older` makes it a server
of before 2.4, which knows an invoice only below its store.
"""

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from decimal import ROUND_UP, Decimal

from aiohttp import web

from tests.fakes.server import FakeServer, Obj, Reply, Seen

API_KEY = "greenfield-key"
STORE = "9CiNzKoANXxmk5ayZngSXrHTiVvvgCrwrpFQd4m2K776"
WEBHOOK_SECRET = "HelloWorld"
RATE = Decimal(64_000)

_SATOSHI = Decimal("0.00000001")


class FakeBtcPay(FakeServer):
    """One store."""

    def __init__(self, *, clock: Callable[[], float] = time.time, is_older: bool = False) -> None:
        super().__init__(clock=clock)
        self.is_older = is_older
        self.invoices: dict[str, Obj] = {}
        self.pull_payments: dict[str, Obj] = {}
        self._payments: dict[str, list[Obj]] = {}

    # ------------------------------------------------------------------------------------------ the story

    def pay(self, invoice_id: str, part: str = "1", *, at: int | None = None, certain: bool = True) -> list[Obj]:
        """`part` of what was asked comes at unix second `at`; return the events."""
        invoice = self.invoices[invoice_id]
        moment = self.now() if at is None else at
        is_late = moment > invoice["expirationTime"]
        value = (self._asked(invoice) * Decimal(part)).quantize(_SATOSHI, rounding=ROUND_UP)
        payment = {
            "id": secrets.token_hex(32) + "-0",
            "receivedDate": moment,
            "value": str(value),
            "fee": "0.0",
            "status": "Processing",
            "destination": "bcrt1q" + secrets.token_hex(16),
        }
        self._payments[invoice_id].append(payment)
        shown = {"afterExpiration": is_late, "paymentMethodId": "BTC-CHAIN", "payment": dict(payment)}
        events = [self._event("InvoiceReceivedPayment", invoice, **shown)]
        if not is_late and self._due(invoice) <= 0:
            self._set(invoice, "Processing", "PaidOver" if self._due(invoice) < 0 else "None")
            events.append(self._event("InvoiceProcessing", invoice, overPaid=self._due(invoice) < 0))
        return [*events, *(self.confirm(invoice_id) if certain else [])]

    def confirm(self, invoice_id: str) -> list[Obj]:
        """All transfers become certain."""
        invoice = self.invoices[invoice_id]
        events = []
        for payment in self._payments[invoice_id]:
            if payment["status"] == "Processing":
                payment["status"] = "Settled"
                # The flag is wrong here in the real thing too (btcpayserver #3966).
                shown = {"afterExpiration": False, "paymentMethodId": "BTC-CHAIN", "payment": dict(payment)}
                events.append(self._event("InvoicePaymentSettled", invoice, **shown))
        if invoice["status"] == "Processing":
            self._set(invoice, "Settled", invoice["additionalStatus"])
            events.append(self._event("InvoiceSettled", invoice, manuallyMarked=False, overPaid=self._due(invoice) < 0))
        elif invoice["status"] == "Expired" and self._due(invoice) <= 0:
            self._set(invoice, "Expired", "PaidLate")
            events.append(self._event("InvoicePaidAfterExpiration", invoice))
        return events

    def expire(self, invoice_id: str) -> list[Obj]:
        invoice = self.invoices[invoice_id]
        is_partial = bool(self._payments[invoice_id])
        self._set(invoice, "Expired", "PaidPartial" if is_partial else "None")
        events = [self._event("InvoiceExpired", invoice, partiallyPaid=is_partial)]
        return [*events, self._event("InvoiceExpiredPaidPartial", invoice)] if is_partial else events

    def invalidate(self, invoice_id: str) -> list[Obj]:
        """What was seen is replaced or never confirmed."""
        invoice = self.invoices[invoice_id]
        for payment in self._payments[invoice_id]:
            payment["status"] = "Invalid"
        self._set(invoice, "Invalid", "None")
        return [self._event("InvoiceInvalid", invoice, manuallyMarked=False)]

    def mark_settled(self, invoice_id: str) -> list[Obj]:
        """An operator decides that it is paid."""
        invoice = self.invoices[invoice_id]
        self._set(invoice, "Settled", "Marked")
        return [self._event("InvoiceSettled", invoice, manuallyMarked=True, overPaid=False)]

    def _set(self, invoice: Obj, status: str, more: str) -> None:
        invoice.update(status=status, additionalStatus=more)

    def _asked(self, invoice: Obj) -> Decimal:
        return (Decimal(invoice["amount"]) / RATE).quantize(_SATOSHI, rounding=ROUND_UP)

    def _due(self, invoice: Obj) -> Decimal:
        counted = (payment for payment in self._payments[invoice["id"]] if payment["status"] != "Invalid")
        return self._asked(invoice) - sum((Decimal(payment["value"]) for payment in counted), Decimal(0))

    # ------------------------------------------------------------------------------------------- webhooks

    def encode(self, event: Obj) -> bytes:
        return json.dumps(event, indent=2).encode()

    def sign(self, body: bytes, *, secret: str = WEBHOOK_SECRET) -> str:
        """The value of `BTCPay-Sig`."""
        return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()

    def redeliver(self, event: Obj) -> Obj:
        """The same event once more, as the server sends it when the first delivery failed."""
        return {**event, "deliveryId": _new_id(), "isRedelivery": True}

    def _event(self, kind: str, invoice: Obj, **more: object) -> Obj:
        delivery = _new_id()
        return {
            **more,
            "deliveryId": delivery,
            "webhookId": "WJ2kPUjQJxeKHwAfm3eN3x",
            "originalDeliveryId": delivery,
            "isRedelivery": False,
            "type": kind,
            "timestamp": self.now(),
            "storeId": STORE,
            "invoiceId": invoice["id"],
            "metadata": invoice["metadata"],
        }

    # ----------------------------------------------------------------------------------------------- HTTP

    def answer(self, request: web.Request, seen: Seen) -> Reply:
        if request.headers.get("Authorization") != f"token {API_KEY}":
            return _error(401, "unauthenticated", "Authentication is required")
        match request.path.strip("/").split("/")[2:]:
            case ["stores", store, "invoices"] if store == STORE:
                return self._create(seen.params) if request.method == "POST" else self._list(seen.params)
            case ["stores", store, "pull-payments"] if store == STORE and request.method == "GET":
                return Reply(200, list(self.pull_payments.values()))
            case ["stores", store, "invoices", invoice_id, *rest] if store == STORE and self.is_older:
                return self._invoice(request.method, invoice_id, rest, seen.params)
            case ["invoices", invoice_id, *rest] if not self.is_older:
                return self._invoice(request.method, invoice_id, rest, seen.params)
        # An address that the server does not have is answered without a body.
        return Reply(404, None)

    def _list(self, params: Obj) -> Reply:
        """The newest first; times are of when an invoice was made."""
        wanted = params.get("orderId")
        begin, end = int(params.get("startDate", 0)), int(params.get("endDate", self.now()))
        found = [
            row
            for row in sorted(self.invoices.values(), key=lambda row: -row["createdTime"])
            if begin <= row["createdTime"] <= end and wanted in (None, row["metadata"].get("orderId"))
        ]
        skip = int(params.get("skip", 0))
        return Reply(200, [self._shown(row) for row in found[skip : skip + int(params.get("take", 50))]])

    def _shown(self, invoice: Obj) -> Obj:
        """An invoice with what has come for it, in the currency asked."""
        counted = (payment for payment in self._payments[invoice["id"]] if payment["status"] != "Invalid")
        paid = sum((Decimal(payment["value"]) for payment in counted), Decimal(0)) * RATE
        return {**invoice, "paidAmount": str(paid)}

    def _create(self, params: Obj) -> Reply:
        if Decimal(params["amount"]) <= 0 or not params["currency"].isalpha():
            return _error(422, "validation-error", "The amount must be positive")
        invoice_id = _new_id()
        expires_at = self.now() + 60 * params["checkout"]["expirationMinutes"]
        self._payments[invoice_id] = []
        self.invoices[invoice_id] = {
            "id": invoice_id,
            "storeId": STORE,
            "amount": params["amount"],
            "paidAmount": "0",
            "currency": params["currency"],
            "type": "Standard",
            "checkoutLink": f"{self.base_url}/i/{invoice_id}",
            "createdTime": self.now(),
            "expirationTime": expires_at,
            "monitoringExpiration": expires_at + 86_400,
            "status": "New",
            "additionalStatus": "None",
            "availableStatusesForManualMarking": ["Settled", "Invalid"],
            "archived": False,
            "metadata": params["metadata"],
            "checkout": {**params["checkout"], "speedPolicy": "MediumSpeed", "paymentTolerance": 0.0},
        }
        return Reply(200, self.invoices[invoice_id])

    def _invoice(self, method: str, invoice_id: str, rest: list[str], params: Obj) -> Reply:
        invoice = self.invoices.get(invoice_id)
        if invoice is None:
            return _error(404, "invoice-not-found", "The invoice was not found")
        match method, rest:
            case "GET", []:
                return Reply(200, self._shown(invoice))
            case "GET", ["payment-methods"]:
                return Reply(200, self._methods(invoice))
            case "POST", ["status"]:
                self._set(invoice, params["status"], "Marked")
                return Reply(200, invoice)
            case "POST", ["refund"]:
                return self._refund(invoice, params)
            case _:
                return Reply(404, None)

    def _methods(self, invoice: Obj) -> list[Obj]:
        payments = self._payments[invoice["id"]]
        paid = sum((Decimal(payment["value"]) for payment in payments), Decimal(0))
        common = {"rate": str(RATE), "amount": str(self._asked(invoice)), "due": str(self._due(invoice))}
        chain = {
            "paymentMethodId": "BTC-CHAIN",
            "currency": "BTC",
            "paymentMethodPaid": str(paid),
            "networkFee": "0.0",
            "payments": payments,
        }
        lightning = {**chain, "paymentMethodId": "BTC-LN", "paymentMethodPaid": "0", "payments": []}
        return [{**common, "totalPaid": str(paid), **method, "activated": True} for method in (chain, lightning)]

    def _refund(self, invoice: Obj, params: Obj) -> Reply:
        if invoice["status"] not in {"Settled", "Expired"} or not self._payments[invoice["id"]]:
            return _error(400, "non-refundable", "The invoice is not refundable")
        if params["refundVariant"] != "Custom" or len(params["name"]) > 50:
            return _error(422, "validation-error", "Invalid refund")
        pull_payment_id = _new_id()
        self.pull_payments[pull_payment_id] = {
            "id": pull_payment_id,
            "name": params["name"],
            "description": params.get("description", ""),
            "amount": params["customAmount"],
            "currency": params["customCurrency"],
            "archived": False,
            "viewLink": f"{self.base_url}/pull-payments/{pull_payment_id}",
        }
        return Reply(200, self.pull_payments[pull_payment_id])


def _new_id() -> str:
    return secrets.token_urlsafe(16).replace("-", "A").replace("_", "B")


def _error(status: int, code: str, message: str) -> Reply:
    return Reply(status, {"code": code, "message": message})
