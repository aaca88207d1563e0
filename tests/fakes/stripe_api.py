"""A fake of Stripe: its HTTP API as the official SDK speaks to it, and the webhooks that it sends.

It shares no code with the product. Requests are forms, answers and errors have Stripe's shapes and headers,
an `Idempotency-Key` replays the first answer, and only the pinned API version is served. What happens on
Stripe's side (somebody pays, a renewal is due, a bank disputes) is told by the story methods of `FakeStripe`,
which change the stored objects and return the events of that moment; `deliver` signs one and POSTs it.
"""

import copy
import hashlib
import hmac
import json
import time
from collections.abc import Callable

from aiohttp import web

from tests.fakes import stripe_form, stripe_objects
from tests.fakes.server import FakeServer, Fault, Reply, Seen
from tests.fakes.stripe_objects import API_VERSION, Obj

__all__ = ["FakeStripe", "Fault", "Seen"]

SECRET_KEY = "sk_test_fake"
WEBHOOK_SECRET = "whsec_test_secret"


class FakeStripe(FakeServer):
    """One Stripe account."""

    indent = 2

    def __init__(
        self,
        *,
        secret_key: str = SECRET_KEY,
        webhook_secret: str = WEBHOOK_SECRET,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(clock=clock)
        self.secret_key = secret_key
        self.webhook_secret = webhook_secret
        self.live = secret_key.startswith("sk_live_")
        self.customers: dict[str, Obj] = {}
        self.sessions: dict[str, Obj] = {}
        self.subscriptions: dict[str, Obj] = {}
        self.invoices: dict[str, Obj] = {}
        self.charges: dict[str, Obj] = {}
        self.disputes: dict[str, Obj] = {}
        self.payments: dict[str, Obj] = {}
        self.refunds: dict[str, Obj] = {}
        # Bills that we asked to collect once more; the story tells what comes of it.
        self.collected: list[str] = []
        self.events: list[Obj] = []
        self.books: dict[str, Obj] = {}
        self._links: list[Obj] = []
        self._lines: dict[str, Obj] = {}
        self._metadata: dict[str, Obj] = {}
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

    # --------------------------------------------------------------------------------------- the story

    def pay_checkout(self, session_id: str, *, delayed: bool = False) -> list[Obj]:
        """Somebody completes a checkout: paid at once, or by a slow method whose money is on its way."""
        session = self.sessions[session_id]
        assert session["status"] == "open"
        if session["mode"] == "payment":
            return self._pay_once(session, delayed=delayed)
        if session["customer"] is None:
            email = session["customer_email"] or "payer@example.com"
            created = stripe_objects.customer(email, now=self.now(), live=self.live)
            self.customers[created["id"]] = created
            session["customer"] = created["id"]
        price = stripe_objects.price(self._lines[session_id], now=self.now(), live=self.live)
        subscription = stripe_objects.subscription(
            price, session["customer"], self._metadata[session_id], now=self.now(), status="active"
        )
        self.subscriptions[subscription["id"]] = subscription
        invoice = self._bill(subscription, "subscription_create")
        session.update(status="complete", subscription=subscription["id"], invoice=invoice["id"])
        events = [self._event("customer.subscription.created", subscription)]
        if not delayed:
            events += self._settle(invoice)
            session["payment_status"] = "paid"
        return [*events, self._event("checkout.session.completed", session)]

    def _pay_once(self, session: Obj, *, delayed: bool) -> list[Obj]:
        metadata = self._metadata[session["id"]]
        session["status"] = "complete"
        if delayed:
            payment = stripe_objects.payment_intent(session["amount_total"], session, metadata, now=self.now())
            self.payments[payment["id"]] = payment
            session["payment_intent"] = payment["id"]
            return [self._event("checkout.session.completed", session)]
        charge = self._charge(session["amount_total"], session, metadata=metadata)
        session.update(payment_status="paid", payment_intent=charge["payment_intent"])
        return [self._event("charge.succeeded", charge), self._event("checkout.session.completed", session)]

    def settle_checkout(self, session_id: str, *, arrives: bool) -> list[Obj]:
        """The slow money of a delayed checkout arrives, or never will."""
        session = self.sessions[session_id]
        if session["mode"] == "payment":
            assert not arrives
            self.payments[session["payment_intent"]]["status"] = "requires_payment_method"
            return [self._event("checkout.session.async_payment_failed", session)]
        invoice = self.invoices[session["invoice"]]
        if not arrives:
            return [self._fail(invoice), self._event("checkout.session.async_payment_failed", session)]
        session["payment_status"] = "paid"
        return [*self._settle(invoice), self._event("checkout.session.async_payment_succeeded", session)]

    def expire_checkout(self, session_id: str) -> list[Obj]:
        session = self.sessions[session_id]
        session.update(status="expired", url=None)
        return [self._event("checkout.session.expired", session)]

    def renew(self, subscription_id: str, *, paid: bool = True) -> list[Obj]:
        """A period is over: the next one begins and is charged, with or without success."""
        subscription = self.subscriptions[subscription_id]
        item = subscription["items"]["data"][0]
        item["current_period_start"] = item["current_period_end"]
        interval = item["price"]["recurring"]["interval"]
        item["current_period_end"] = stripe_objects.add_interval(item["current_period_start"], interval)
        subscription["status"] = "active" if paid else "past_due"
        invoice = self._bill(subscription, "subscription_cycle")
        money = self._settle(invoice) if paid else [self._fail(invoice)]
        return [*money, self._event("customer.subscription.updated", subscription)]

    def end_subscription(self, subscription_id: str) -> list[Obj]:
        """The subscription is cancelled for good, at its period's end or after the last failed attempt."""
        subscription = self.subscriptions[subscription_id]
        self._cancel(subscription)
        return [self._event("customer.subscription.deleted", subscription)]

    def refund(self, charge_id: str, amount: int) -> list[Obj]:
        """Give back `amount` minor units of a charge."""
        charge = self.charges[charge_id]
        before = charge["amount_refunded"]
        charge["amount_refunded"] = before + amount
        charge["refunded"] = charge["amount_refunded"] == charge["amount"]
        return [self._event("charge.refunded", charge, previous={"amount_refunded": before})]

    def fail_refund(self, charge_id: str, amount: int) -> list[Obj]:
        """The bank sends a refund back: Stripe takes it off the charge, and tells so three times over."""
        charge = self.charges[charge_id]
        refund = stripe_objects.refund(charge, amount, {}, now=self.now())
        refund["status"] = "failed"
        charge.update(amount_refunded=charge["amount_refunded"] - amount, refunded=False)
        kinds = ("charge.refund.updated", "refund.updated", "refund.failed")
        return [self._event(kind, refund, previous={"status": "succeeded"}) for kind in kinds]

    def open_dispute(self, charge_id: str, *, inquiry: bool = False) -> list[Obj]:
        status = "warning_needs_response" if inquiry else "needs_response"
        charge = self.charges[charge_id]
        charge["disputed"] = True
        dispute = stripe_objects.dispute(charge, now=self.now(), status=status, reason="fraudulent")
        if not inquiry:
            taken = stripe_objects.balance_transaction(
                {**charge, "amount": -charge["amount"]}, fee=1500, now=self.now()
            )
            dispute["balance_transactions"].append({**taken, "source": dispute["id"], "type": "adjustment"})
        self.disputes[dispute["id"]] = dispute
        return [self._event("charge.dispute.created", dispute)]

    def close_dispute(self, dispute_id: str, status: str) -> list[Obj]:
        """Close a dispute as `won`, `lost`, `warning_closed` or `prevented`."""
        dispute = self.disputes[dispute_id]
        dispute["status"] = status
        if status == "won" and dispute["balance_transactions"]:
            (taken,) = dispute["balance_transactions"]
            back = {**taken, "id": stripe_objects.new_id("txn"), "amount": -taken["amount"], "fee": -taken["fee"]}
            dispute["balance_transactions"].append({**back, "net": -taken["net"], "fee_details": []})
        return [self._event("charge.dispute.closed", dispute)]

    def charge_of(self, subscription_id: str) -> Obj:
        """The newest charge of a subscription's customer."""
        customer = self.subscriptions[subscription_id]["customer"]
        return [charge for charge in self.charges.values() if charge["customer"] == customer][-1]

    def _event(self, kind: str, subject: Obj, *, previous: Obj | None = None) -> Obj:
        # What an event shows never changes afterwards.
        event = stripe_objects.event(kind, copy.deepcopy(subject), now=self.now(), previous=previous)
        self.events.append(event)
        return event

    def _bill(self, subscription: Obj, reason: str) -> Obj:
        number = f"F4K3-{len(self.invoices) + 1:04}"
        invoice = stripe_objects.invoice(subscription, now=self.now(), reason=reason, number=number)
        self.invoices[invoice["id"]] = invoice
        subscription["latest_invoice"] = invoice["id"]
        return invoice

    def _settle(self, invoice: Obj) -> list[Obj]:
        charge = self._charge(invoice["amount_due"], invoice, metadata={})
        payment_intent = charge["payment_intent"]
        invoice.update(status="paid", amount_paid=invoice["amount_due"], amount_remaining=0, attempted=True)
        invoice["attempt_count"] += 1
        invoice["status_transitions"]["paid_at"] = self.now()
        link = stripe_objects.invoice_payment(invoice, payment_intent, now=self.now())
        self._links.append(link)
        return [
            self._event("charge.succeeded", charge),
            self._event("invoice.paid", invoice),
            self._event("invoice.payment_succeeded", invoice),
            self._event("invoice_payment.paid", link),
        ]

    def _charge(self, amount: int, of: Obj, *, metadata: Obj) -> Obj:
        """Take money for an invoice or a session; return the charge, which its payment names."""
        payment = stripe_objects.payment_intent(amount, of, metadata, now=self.now())
        charge = stripe_objects.charge(payment, now=self.now())
        payment.update(status="succeeded", amount_received=amount, latest_charge=charge["id"])
        self.payments[payment["id"]] = payment
        self.charges[charge["id"]] = charge
        # What Stripe keeps: 2.9 % and 30 cents.
        booked = stripe_objects.balance_transaction(charge, fee=round(amount * 0.029) + 30, now=self.now())
        charge["balance_transaction"] = booked["id"]
        self.books[booked["id"]] = booked
        return charge

    def _fail(self, invoice: Obj) -> Obj:
        invoice.update(attempted=True, next_payment_attempt=self.now() + 259_200)
        invoice["attempt_count"] += 1
        return self._event("invoice.payment_failed", invoice)

    def _cancel(self, subscription: Obj) -> None:
        subscription.update(status="canceled", canceled_at=self.now(), ended_at=self.now())

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
                return self._show_charge(charge_id, is_booked="balance_transaction" in params.get("expand", []))
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
        if charge is None or not {"latest_charge", "latest_charge.balance_transaction"} & set(expand):
            return payment
        is_deep = "latest_charge.balance_transaction" in expand
        return {**payment, "latest_charge": self._show_charge(charge, is_booked=is_deep)}

    def _show_charge(self, charge_id: str, *, is_booked: bool) -> Obj:
        charge = _found(self.charges, charge_id, "charge")
        return {**charge, "balance_transaction": self.books[charge["balance_transaction"]]} if is_booked else charge

    def _create_refund(self, params: Obj) -> Obj:
        payment = _found(self.payments, params.get("payment_intent", ""), "payment_intent", param="payment_intent")
        charge = self.charges[payment["latest_charge"]]
        amount = int(params.get("amount", charge["amount"] - charge["amount_refunded"]))
        if charge["amount_refunded"] == charge["amount"]:
            message = f"Charge {charge['id']} has already been refunded."
            raise stripe_form.BadParameter(message, param="charge", code="charge_already_refunded")
        if not 0 < amount <= charge["amount"] - charge["amount_refunded"]:
            raise stripe_form.BadParameter("Refund amount is greater than unrefunded amount", param="amount")
        self.refund(charge["id"], amount)
        refund = stripe_objects.refund(charge, amount, params.get("metadata", {}), now=self.now())
        self.refunds[refund["id"]] = refund
        return refund

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
