"""A fake of Stripe: its HTTP API as the official SDK speaks to it, and the webhooks that it sends.

It shares no code with the product. Requests are forms, answers and errors have Stripe's shapes and headers,
an `Idempotency-Key` replays the first answer, and only the pinned API version is served. What happens on
Stripe's side (somebody pays, a renewal is due, a bank disputes) is told by the story of its account
(stripe_account.py), which returns the events of that moment; `deliver` signs one and POSTs it.
"""

import copy
import hashlib
import hmac
import json
import time
from collections.abc import Callable

from aiohttp import web

from tests.fakes import stripe_form, stripe_objects
from tests.fakes.server import Fault, Reply, Seen
from tests.fakes.stripe_account import StripeAccount
from tests.fakes.stripe_objects import API_VERSION, Obj

__all__ = ["FakeStripe", "Fault", "Seen"]

SECRET_KEY = "sk_test_fake"
WEBHOOK_SECRET = "whsec_test_secret"


class FakeStripe(StripeAccount):
    """One Stripe account and its API."""

    indent = 2

    def __init__(
        self,
        *,
        secret_key: str = SECRET_KEY,
        webhook_secret: str = WEBHOOK_SECRET,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(clock=clock, live=secret_key.startswith("sk_live_"))
        self.secret_key = secret_key
        self.webhook_secret = webhook_secret
        self._replays: dict[str, tuple[str, int, Obj]] = {}

    # ------------------------------------------------------------------------------------------ webhooks

    def encode(self, event: Obj) -> bytes:
        """The body as Stripe sends it: indented, so that whoever re-serialises before verifying fails."""
        return json.dumps(event, indent=2).encode()

    def sign(self, body: bytes, *, at: int | None = None, secret: str | None = None) -> str:
        """The value of `Stripe-Signature`; as in the real thing, the retired `v0` stands beside `v1`."""
        moment = self.now() if at is None else at
        key = (self.webhook_secret if secret is None else secret).encode()
        good = hmac.new(key, f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
        return f"t={moment},v1={good},v0={'0' * 64}"

    async def deliver(self, event: Obj, url: str, *, at: int | None = None, secret: str | None = None) -> int:
        """POST one signed event; return the status of the answer."""
        body = self.encode(event)
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": self.sign(body, at=at, secret=secret),
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        }
        return await self.post(url, body, headers)

    # -------------------------------------------------------------------------------------------- HTTP

    def decode(self, request: web.Request, body: str) -> Obj:
        return stripe_form.decode(body if request.method == "POST" else request.query_string)

    def answer(self, request: web.Request, seen: Seen) -> Reply:
        headers = {
            "Request-Id": stripe_objects.new_id("req", 14),
            "Stripe-Version": API_VERSION,
        }
        key = request.headers.get("Idempotency-Key")
        fingerprint = f"{request.method} {request.path} {seen.body}"
        if key in self._replays:
            before, status, answer = self._replays[key]
            if before == fingerprint:
                return Reply(status, answer, {**headers, "Idempotent-Replayed": "true", "Idempotency-Key": key})
            message = "Keys for idempotent requests can only be used with the same parameters."
            return Reply(400, _error("idempotency_error", message), headers)
        status, answer = self._route(request, seen.params)
        # Refusals before the work begins are not remembered.
        if key is not None and status == 200:
            self._replays[key] = (fingerprint, status, copy.deepcopy(answer))
        return Reply(status, answer, headers)

    def _route(self, request: web.Request, params: Obj) -> tuple[int, Obj]:
        if request.headers.get("Authorization") != f"Bearer {self.secret_key}":
            return 401, _error("invalid_request_error", "Invalid API Key provided: sk_test_****")
        if request.headers.get("Stripe-Version") != API_VERSION:
            return 400, _error("invalid_request_error", "Invalid Stripe API version")
        if request.method == "POST" and request.content_type != "application/x-www-form-urlencoded":
            return 400, _error("invalid_request_error", "Invalid request (check your POST content type)")
        try:
            return 200, self._resource(request, params)
        except stripe_form.BadParameter as bad:
            error = _error("invalid_request_error", bad.message, code=bad.code, param=bad.param)
            return 404 if bad.code == "resource_missing" else 400, error

    def _resource(self, request: web.Request, params: Obj) -> Obj:
        path = request.path.strip("/").split("/")
        found = self._read(path, params) if request.method == "GET" else self._write(request.method, path, params)
        if found is None:
            message = f"Unrecognized request URL ({request.method}: {request.path})."
            raise stripe_form.BadParameter(message, param="url", code="resource_missing")
        return found

    def _read(self, path: list[str], params: Obj) -> Obj | None:
        match path:
            case ["v1", "checkout", "sessions"]:
                return self._sessions_of(params["payment_intent"])
            case ["v1", "checkout", "sessions", session_id]:
                return _found(self.sessions, session_id, "checkout.session")
            case ["v1", "charges", charge_id]:
                return self._show_charge(charge_id, params.get("expand", []))
            case ["v1", "events"]:
                return self._list_events(params)
            case ["v1", "invoices", invoice_id]:
                return self._show_invoice(invoice_id, params)
            case ["v1", "payment_intents", payment_id]:
                return self._show_payment(payment_id, params)
            case ["v1", "subscriptions", subscription_id]:
                return _found(self.subscriptions, subscription_id, "subscription")
            case _:
                return None

    def _write(self, method: str, path: list[str], params: Obj) -> Obj | None:
        match method, path:
            case "POST", ["v1", "checkout", "sessions"]:
                return self._create_session(params)
            case "POST", ["v1", "checkout", "sessions", session_id, "expire"]:
                return self._expire_session(session_id)
            case "POST", ["v1", "invoices", invoice_id, "pay"]:
                return self._pay_invoice(invoice_id)
            case "POST", ["v1", "refunds"]:
                return self._create_refund(params)
            case "POST", ["v1", "subscriptions", subscription_id]:
                return self._update_subscription(subscription_id, params)
            case "DELETE", ["v1", "subscriptions", subscription_id]:
                return self._cancel_subscription(subscription_id)
            case _:
                return None

    def _create_session(self, params: Obj) -> Obj:
        line = stripe_form.session_line(params)
        if "customer" in params:
            _found(self.customers, params["customer"], "customer", param="customer")
        session = stripe_objects.session(params, now=self.now(), line=line, live=self.live)
        self.sessions[session["id"]] = session
        self._lines[session["id"]] = line
        data: Obj = params.get("subscription_data") or params.get("payment_intent_data") or {}
        self._metadata[session["id"]] = data.get("metadata", {})
        return session

    def _sessions_of(self, payment_id: str) -> Obj:
        found = [session for session in self.sessions.values() if session["payment_intent"] == payment_id]
        return stripe_objects.listing(found, "/v1/checkout/sessions")

    def _list_events(self, params: Obj) -> Obj:
        """The newest first, of the last 30 days, as a webhook showed them."""
        created, types = params.get("created", {}), params.get("types", [])
        if len(types) > 20:
            raise stripe_form.BadParameter("Invalid array: at most 20 types", param="types")
        oldest = max(int(created.get("gte", 0)), self.now() - 30 * 86_400)
        newest = int(created.get("lte", self.now()))
        found = [row for row in reversed(self.events) if oldest <= row["created"] <= newest]
        found = [row for row in found if not types or row["type"] in types]
        if "starting_after" in params:
            ids = [row["id"] for row in found]
            found = found[ids.index(params["starting_after"]) + 1 :]
        page = found[: int(params.get("limit", 10))]
        return {"object": "list", "data": page, "has_more": len(page) < len(found), "url": "/v1/events"}

    def _expire_session(self, session_id: str) -> Obj:
        session = _found(self.sessions, session_id, "checkout.session")
        if session["status"] != "open":
            message = "Only Checkout Sessions with a status in [`open`] can be expired."
            raise stripe_form.BadParameter(message, param="session")
        self.expire_checkout(session_id)
        return session

    def _show_invoice(self, invoice_id: str, params: Obj) -> Obj:
        invoice = _found(self.invoices, invoice_id, "invoice")
        if "payments" not in params.get("expand", []):
            return invoice
        links = [link for link in self._links if link["invoice"] == invoice_id]
        return {**invoice, "payments": stripe_objects.listing(links, "/v1/invoice_payments")}

    def _show_payment(self, payment_id: str, params: Obj) -> Obj:
        payment = _found(self.payments, payment_id, "payment_intent")
        charge, expand = payment["latest_charge"], params.get("expand", [])
        within = [path.removeprefix("latest_charge.") for path in expand if path.startswith("latest_charge")]
        return {**payment, "latest_charge": self._show_charge(charge, within)} if charge and within else payment

    def _show_charge(self, charge_id: str, expand: list[str]) -> Obj:
        shown = {**_found(self.charges, charge_id, "charge")}
        if "balance_transaction" in expand:
            # Until the money has settled there is none.
            shown["balance_transaction"] = self.books.get(shown["balance_transaction"])
        if "refunds" in expand:
            # Newest first, ten of them.
            made = [refund for refund in self.refunds.values() if refund["charge"] == charge_id]
            shown["refunds"] = stripe_objects.listing(made[::-1][:10], f"/v1/charges/{charge_id}/refunds")
        return shown

    def _create_refund(self, params: Obj) -> Obj:
        payment = _found(self.payments, params.get("payment_intent", ""), "payment_intent", param="payment_intent")
        charge = self.charges[payment["latest_charge"]]
        amount = int(params.get("amount", charge["amount"] - charge["amount_refunded"]))
        if charge["amount_refunded"] == charge["amount"]:
            message = f"Charge {charge['id']} has already been refunded."
            raise stripe_form.BadParameter(message, param="charge", code="charge_already_refunded")
        if not 0 < amount <= charge["amount"] - charge["amount_refunded"]:
            raise stripe_form.BadParameter("Refund amount is greater than unrefunded amount", param="amount")
        self.refund(charge["id"], amount, params.get("metadata"))
        return list(self.refunds.values())[-1]

    def _update_subscription(self, subscription_id: str, params: Obj) -> Obj:
        subscription = _found(self.subscriptions, subscription_id, "subscription")
        if subscription["status"] == "canceled":
            message = "A canceled subscription can only update its cancellation_details and metadata."
            raise stripe_form.BadParameter(message, param="cancel_at_period_end")
        known = {"cancel_at_period_end", "items", "proration_behavior", "trial_end"}
        if unknown := params.keys() - known:
            name = min(unknown)
            raise stripe_form.BadParameter(f"Received unknown parameter: {name}", param=name)
        if "cancel_at_period_end" in params:
            ends = params["cancel_at_period_end"] == "true"
            period_end = subscription["items"]["data"][0]["current_period_end"]
            subscription.update(cancel_at_period_end=ends, cancel_at=period_end if ends else None)
        if "items" in params:
            self._reprice(subscription, params)
        self._event("customer.subscription.updated", subscription)
        return subscription

    def _reprice(self, subscription: Obj, params: Obj) -> None:
        """Give the one item another price; a new interval would begin anew and be charged, unless a trial delays it."""
        (change,) = params["items"]
        (item,) = subscription["items"]["data"]
        if change.get("id") != item["id"]:
            raise _missing("subscription item", change.get("id", ""), param="items[0][id]")
        data = change["price_data"]
        if data["product"] != item["price"]["product"]:
            raise _missing("product", data["product"], param="items[0][price_data][product]")
        if params.get("proration_behavior") != "none":
            raise stripe_form.BadParameter("The fake does not prorate", param="proration_behavior")
        line = {
            "currency": data["currency"],
            "unit_amount": int(data["unit_amount"]),
            "interval": data["recurring"]["interval"],
        }
        before = item["price"]["recurring"]["interval"]
        price = stripe_objects.price(line, now=self.now(), live=self.live)
        price["product"] = data["product"]
        item.update(price=price, plan=stripe_objects.plan_of(price))
        if line["interval"] == before:
            return
        if "trial_end" not in params:
            raise stripe_form.BadParameter("The fake does not begin a period by itself", param="trial_end")
        until = int(params["trial_end"])
        subscription.update(status="trialing", trial_start=self.now(), trial_end=until, billing_cycle_anchor=until)
        item.update(current_period_start=self.now(), current_period_end=until)

    def _pay_invoice(self, invoice_id: str) -> Obj:
        invoice = _found(self.invoices, invoice_id, "invoice")
        if invoice["status"] == "paid":
            raise stripe_form.BadParameter("Invoice is already paid", param="invoice", code="invoice_already_paid")
        self.collected.append(invoice_id)
        return invoice

    def _cancel_subscription(self, subscription_id: str) -> Obj:
        subscription = _found(self.subscriptions, subscription_id, "subscription")
        if subscription["status"] == "canceled":
            raise _missing("subscription", subscription_id, param="id")
        self.end_subscription(subscription_id)
        return subscription


def _found(rows: dict[str, Obj], key: str, kind: str, *, param: str = "id") -> Obj:
    if key not in rows:
        raise _missing(kind, key, param=param)
    return rows[key]


def _missing(kind: str, key: str, *, param: str) -> stripe_form.BadParameter:
    return stripe_form.BadParameter(f"No such {kind}: '{key}'", param=param, code="resource_missing")


def _error(kind: str, message: str, *, code: str | None = None, param: str | None = None) -> Obj:
    error = {"code": code, "message": message, "param": param, "type": kind}
    return {"error": {key: value for key, value in error.items() if value is not None}}
