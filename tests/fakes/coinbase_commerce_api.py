"""A fake of Coinbase Commerce: charges with their timeline, and webhooks signed without a time.

It shares no code with the product. As in the real thing there are no idempotency keys, and the number of the attempt
and the outer id change with each delivery of one event.
"""

import hashlib
import hmac
import json
import secrets
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal

from aiohttp import web

from tests.fakes.server import FakeServer, Obj, Reply, Seen

API_KEY = "commerce-key"
WEBHOOK_SECRET = "commerce-shared-secret"


class FakeCommerce(FakeServer):
    """One Coinbase Commerce account."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock=clock)
        self.charges: dict[str, Obj] = {}
        self.events: list[Obj] = []

    # ------------------------------------------------------------------------------------------ the story

    def pay(self, charge_id: str, amount: str | None = None) -> list[Obj]:
        """Money is seen and then certain; `amount` is its worth if it is not what was asked."""
        charge = self.charges[charge_id]
        self._receive(charge, amount, "CONFIRMED")
        self._step(charge, "PENDING")
        events = [self._event("charge:pending", charge)]
        paid, asked = self._paid(charge), Decimal(charge["pricing"]["local"]["amount"])
        if paid == asked:
            self._step(charge, "COMPLETED")
            return [*events, self._event("charge:confirmed", charge)]
        self._step(charge, "UNRESOLVED", "UNDERPAID" if paid < asked else "OVERPAID")
        return [*events, self._event("charge:failed" if paid < asked else "charge:confirmed", charge)]

    def see(self, charge_id: str) -> list[Obj]:
        """Money is seen and not certain yet."""
        charge = self.charges[charge_id]
        self._receive(charge, None, "PENDING")
        self._step(charge, "PENDING")
        return [self._event("charge:pending", charge)]

    def fail(self, charge_id: str) -> list[Obj]:
        charge = self.charges[charge_id]
        self._step(charge, "FAILED")
        return [self._event("charge:failed", charge)]

    def expire(self, charge_id: str) -> list[Obj]:
        charge = self.charges[charge_id]
        self._step(charge, "EXPIRED")
        return [self._event("charge:failed", charge)]

    def pay_late(self, charge_id: str, amount: str | None = None) -> list[Obj]:
        charge = self.charges[charge_id]
        self._receive(charge, amount, "CONFIRMED")
        self._step(charge, "UNRESOLVED", "DELAYED")
        return [self._event("charge:delayed", charge)]

    def resolve(self, charge_id: str) -> list[Obj]:
        """The merchant decides that what has come will do."""
        charge = self.charges[charge_id]
        self._step(charge, "RESOLVED")
        return [self._event("charge:resolved", charge)]

    def _receive(self, charge: Obj, amount: str | None, status: str) -> None:
        local = charge["pricing"]["local"]
        worth = {"amount": amount or local["amount"], "currency": local["currency"]}
        charge["payments"].append(
            {
                "network": "ethereum",
                "transaction_id": "0x" + secrets.token_hex(32),
                "status": status,
                "value": {"local": worth, "crypto": {"amount": "0.02", "currency": "ETH"}},
            }
        )

    def _paid(self, charge: Obj) -> Decimal:
        return sum((Decimal(payment["value"]["local"]["amount"]) for payment in charge["payments"]), Decimal(0))

    def _step(self, charge: Obj, status: str, context: str | None = None) -> None:
        entry = {"status": status, "time": self._moment()}
        charge["timeline"].append(entry if context is None else {**entry, "context": context})

    # ------------------------------------------------------------------------------------------- webhooks

    def deliver(self, event: Obj, *, attempt: int = 1) -> bytes:
        """The body of one delivery of an event."""
        outer = {
            "attempt_number": attempt,
            "event": event,
            "id": str(uuid.uuid4()),
            "scheduled_for": self._moment(),
        }
        return json.dumps(outer).encode()

    def sign(self, body: bytes, *, secret: str = WEBHOOK_SECRET) -> str:
        """The value of `X-CC-Webhook-Signature`."""
        return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()

    def _event(self, kind: str, charge: Obj) -> Obj:
        event = {
            "id": str(uuid.uuid4()),
            "resource": "event",
            "type": kind,
            "api_version": "2018-03-22",
            "created_at": self._moment(),
            "data": json.loads(json.dumps(charge)),
        }
        self.events.append(event)
        return event

    # ----------------------------------------------------------------------------------------------- HTTP

    def answer(self, request: web.Request, seen: Seen) -> Reply:
        if request.headers.get("X-CC-Api-Key") != API_KEY:
            return _error(401, "authentication_error", "No such API key")
        if request.headers.get("X-CC-Version") != "2018-03-22":
            return _error(400, "invalid_request", "Version required")
        match request.method, request.path.strip("/").split("/"):
            case "POST", ["charges"]:
                return self._create(seen.params)
            case "GET", ["charges"]:
                newest = list(self.charges.values())[::-1][: int(seen.params.get("limit", "25"))]
                return Reply(200, {"pagination": {"order": "desc", "total": len(self.charges)}, "data": newest})
            case "GET", ["events"]:
                return self._list_events(seen.params)
            case "GET", ["charges", charge_id] if charge_id in self.charges:
                return Reply(200, {"data": self.charges[charge_id]})
            case "POST", ["charges", charge_id, "cancel"] if charge_id in self.charges:
                return self._cancel(self.charges[charge_id])
        return _error(404, "not_found", "Not found")

    def _list_events(self, params: Obj) -> Reply:
        newest, limit = self.events[::-1], int(params.get("limit", "25"))
        after = params.get("starting_after")
        rest = newest if after is None else newest[[event["id"] for event in newest].index(after) + 1 :]
        page = rest[:limit]
        more = len(page) < len(rest)
        pagination = {
            "order": "desc",
            "starting_after": after,
            "ending_before": None,
            "total": len(newest),
            "limit": limit,
            "yielded": len(page),
            "previous_uri": None,
            "next_uri": f"{self.base_url}/events?limit={limit}&starting_after={page[-1]['id']}" if more else None,
        }
        return Reply(200, {"pagination": pagination, "data": page})

    def _create(self, params: Obj) -> Reply:
        price = params.get("local_price", {})
        if params.get("pricing_type") != "fixed_price" or not params.get("name") or len(params["name"]) > 100:
            return _error(400, "invalid_request", "Invalid charge")
        if not price.get("amount") or len(price.get("currency", "")) != 3:
            return _error(400, "invalid_request", "Invalid local_price")
        charge_id, code = str(uuid.uuid4()), secrets.token_hex(4).upper()
        self.charges[charge_id] = {
            "id": charge_id,
            "resource": "charge",
            "code": code,
            "name": params["name"],
            "description": params["description"],
            "hosted_url": f"https://commerce.coinbase.com/pay/{charge_id}",
            "created_at": self._moment(),
            "expires_at": self._moment(after_s=172_800),
            "timeline": [{"status": "NEW", "time": self._moment()}],
            "metadata": params.get("metadata", {}),
            "pricing_type": "fixed_price",
            "pricing": {"local": price, "settlement": {"amount": price["amount"], "currency": "USDC"}},
            "payments": [],
            "redirects": {"success_url": params["redirect_url"], "cancel_url": params["cancel_url"]},
        }
        return Reply(201, {"data": self.charges[charge_id]})

    def _cancel(self, charge: Obj) -> Reply:
        if charge["timeline"][-1]["status"] != "NEW":
            return _error(400, "invalid_request", "Only new charges can be canceled")
        self._step(charge, "CANCELED")
        return Reply(200, {"data": charge})

    def _moment(self, *, after_s: int = 0) -> str:
        return datetime.fromtimestamp(self.now() + after_s, UTC).isoformat().replace("+00:00", "Z")


def _error(status: int, kind: str, message: str) -> Reply:
    return Reply(status, {"error": {"type": kind, "message": message}})
