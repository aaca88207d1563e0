"""A fake of Coinbase Business checkouts: an API that takes a token per request, and webhooks that sign headers too.

It shares no code with the product. A token must be signed by the account's key for exactly this method and path and be
fresh; an idempotency key replays the first answer; a checkout priced in money also says what it costs in USDC.
"""

import base64
import hashlib
import hmac
import json
import secrets
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.fakes.server import FakeServer, Obj, Reply, Seen

KEY_ID = "5e9a7d62-2f3e-4c1c-9d4f-0d8b6f6c1a11"
WEBHOOK_SECRET = "hook0-secret"

_RATES = {"USDC": Decimal(1), "USD": Decimal(1), "EUR": Decimal("1.08"), "GBP": Decimal("1.27"), "SGD": Decimal("0.77")}


class FakeBusiness(FakeServer):
    """One Coinbase Business account."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock=clock)
        self.checkouts: dict[str, Obj] = {}
        self._key = Ed25519PrivateKey.generate()
        self._replays: dict[str, tuple[str, Reply]] = {}

    @property
    def key_secret(self) -> str:
        """The secret of the API key, as Coinbase hands it out: the private key and the public one behind it."""
        private = self._key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        return base64.b64encode(private + self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()

    # ------------------------------------------------------------------------------------------ the story

    def see(self, checkout_id: str) -> None:
        """Money is on its way; there is no event for that."""
        self._set(checkout_id, "PROCESSING")

    def pay(self, checkout_id: str) -> list[Obj]:
        checkout = self._set(checkout_id, "COMPLETED")
        checkout["transactionHash"] = "0x" + secrets.token_hex(32)
        fee = (Decimal(checkout["amount"]) / 100).quantize(Decimal("0.01"))
        checkout["settlement"] = {
            "totalAmount": checkout["amount"],
            "feeAmount": str(fee),
            "netAmount": str(Decimal(checkout["amount"]) - fee),
            "currency": "USDC",
        }
        return [self._event("checkout.payment.success", checkout)]

    def fail(self, checkout_id: str) -> list[Obj]:
        return [self._event("checkout.payment.failed", self._set(checkout_id, "FAILED"))]

    def expire(self, checkout_id: str) -> list[Obj]:
        return [self._event("checkout.payment.expired", self._set(checkout_id, "EXPIRED"))]

    def complete_refunds(self, checkout_id: str, *, succeed: bool = True) -> list[Obj]:
        """The refunds under way reach the payer, or do not."""
        checkout = self.checkouts[checkout_id]
        for refund in checkout["refunds"]:
            if refund["status"] == "PENDING":
                refund["status"] = "COMPLETED" if succeed else "FAILED"
        given = self._refunded(checkout)
        checkout["refundedAmount"] = str(given)
        is_all = given == _price(checkout)
        self._set(checkout_id, "REFUNDED" if is_all else "PARTIALLY_REFUNDED" if given else "COMPLETED")
        return [self._event("checkout.refund.success" if succeed else "checkout.refund.failed", checkout)]

    def _set(self, checkout_id: str, status: str) -> Obj:
        checkout = self.checkouts[checkout_id]
        checkout.update(status=status, updatedAt=self._moment())
        return checkout

    def _event(self, kind: str, checkout: Obj) -> Obj:
        shown: Obj = json.loads(json.dumps(checkout))
        return {**shown, "eventType": kind}

    # ------------------------------------------------------------------------------------------- webhooks

    def sign(
        self, body: bytes, *, at: int | None = None, secret: str = WEBHOOK_SECRET, **headers: str
    ) -> dict[str, str]:
        """All headers of a delivery; those given here are among the signed ones."""
        moment = self.now() if at is None else at
        sent = {
            "content-type": "application/json",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        names = " ".join(sent)
        simple = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
        bound = f"{moment}.{names}.{'.'.join(sent.values())}.".encode() + body
        full = hmac.new(secret.encode(), bound, hashlib.sha256).hexdigest()
        return {**sent, "X-Hook0-Signature": f"t={moment},v0={simple},h={names},v1={full}"}

    # ----------------------------------------------------------------------------------------------- HTTP

    def answer(self, request: web.Request, seen: Seen) -> Reply:
        refusal = self._refuse_token(request)
        if refusal is not None:
            return refusal
        key = request.headers.get("X-Idempotency-Key")
        if key is not None and uuid.UUID(key).version != 4:
            return _error(400, "invalid_request", "X-Idempotency-Key must be a UUID v4")
        fingerprint = f"{request.method} {request.path} {seen.body}"
        if key is not None and key in self._replays:
            before, reply = self._replays[key]
            return (
                reply
                if before == fingerprint
                else _error(422, "idempotency_error", "The key was used for another request")
            )
        reply = self._route(request, seen)
        if key is not None and reply.status < 300:
            self._replays[key] = (fingerprint, Reply(reply.status, json.loads(json.dumps(reply.content))))
        return reply

    def _refuse_token(self, request: web.Request) -> Reply | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        try:
            header = jwt.get_unverified_header(token)
            # The fake's clock stands still, so times are compared below.
            claims = jwt.decode(
                token,
                self._key.public_key(),
                algorithms=["EdDSA"],
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
        except jwt.InvalidTokenError:
            return _error(401, "unauthorized", "Unauthorized")
        good = (
            scheme == "Bearer"
            and header["kid"] == claims["sub"] == KEY_ID
            and header["nonce"]
            and claims["iss"] == "cdp"
            and claims["nbf"] <= self.now() < claims["exp"] <= claims["nbf"] + 120
            and claims["uris"] == [f"{request.method} {request.host}{request.path}"]
        )
        return None if good else _error(401, "unauthorized", "Unauthorized")

    def _route(self, request: web.Request, seen: Seen) -> Reply:
        match request.method, request.path.strip("/").split("/")[2:]:
            case "POST", ["checkouts"]:
                return self._create(seen.params)
            case "GET", ["checkouts"]:
                return self._list(seen.params)
            case "GET", ["checkouts", checkout_id] if checkout_id in self.checkouts:
                return Reply(200, self.checkouts[checkout_id])
            case "POST", ["checkouts", checkout_id, "deactivate"] if checkout_id in self.checkouts:
                if self.checkouts[checkout_id]["status"] != "ACTIVE":
                    return _error(400, "invalid_request", "Only active checkouts can be deactivated")
                return Reply(200, self._set(checkout_id, "DEACTIVATED"))
            case "POST", ["checkouts", checkout_id, "refund"] if checkout_id in self.checkouts:
                return self._refund(self.checkouts[checkout_id], seen.params)
        return _error(404, "not_found", "Not found")

    def _list(self, params: Obj) -> Reply:
        """The newest first; times are of when a checkout was made."""
        begin, end, size = params.get("startTime", ""), params.get("endTime", "9"), int(params.get("pageSize", 20))
        if not 1 <= size <= 100:
            return _error(400, "invalid_request", "Invalid pageSize")
        rows = sorted(self.checkouts.values(), key=lambda row: row["createdAt"], reverse=True)
        found = [row for row in rows if begin <= row["createdAt"] <= end]
        at = int(params.get("pageToken", 0))
        more = {"nextPageToken": str(at + size)} if at + size < len(found) else {}
        return Reply(200, {"checkouts": found[at : at + size], **more})

    def _create(self, params: Obj) -> Reply:
        currency, amount = params.get("currency"), Decimal(params["amount"])
        if currency not in _RATES or not Decimal("0.01") <= amount <= 100_000_000 or amount != round(amount, 2):
            return _error(400, "invalid_request", "Invalid amount")
        if any(len(value) > 100 for value in params["metadata"].values()) or len(params["metadata"]) > 20:
            return _error(400, "invalid_request", "Metadata is too large")
        if params["network"] != "base" or params["expiresAt"] <= self._moment() or len(params["description"]) > 500:
            return _error(400, "invalid_request", "Invalid checkout")
        checkout_id = secrets.token_hex(12)
        usdc = (amount * _RATES[currency]).quantize(Decimal("0.01"))
        fiat = {} if currency == "USDC" else {"fiatAmount": params["amount"], "fiatCurrency": currency}
        self.checkouts[checkout_id] = {
            "id": checkout_id,
            "url": f"https://payments.coinbase.com/payment-links/pl_{checkout_id}",
            "status": "ACTIVE",
            "amount": str(usdc),
            "currency": "USDC",
            "network": "base",
            "address": "0x" + secrets.token_hex(20),
            "tokenAddress": "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913",
            "description": params["description"],
            "metadata": params["metadata"],
            "expiresAt": params["expiresAt"],
            "successRedirectUrl": params["successRedirectUrl"],
            "failRedirectUrl": params["failRedirectUrl"],
            "createdAt": self._moment(),
            "updatedAt": self._moment(),
            "refunds": [],
            **fiat,
        }
        return Reply(201, self.checkouts[checkout_id])

    def _refund(self, checkout: Obj, params: Obj) -> Reply:
        asked = _price(checkout)
        currency = checkout.get("fiatCurrency", "USDC")
        amount = Decimal(params["amount"])
        if checkout["status"] not in {"COMPLETED", "PARTIALLY_REFUNDED"} or params["currency"] != currency:
            return _error(400, "invalid_request", "The checkout cannot be refunded")
        if not 0 < amount <= asked - self._refunded(checkout):
            return _error(400, "invalid_request", "The amount exceeds what can be refunded")
        rate = _RATES[currency]
        refund = {
            "id": str(uuid.uuid4()),
            "checkoutId": checkout["id"],
            "amount": str((amount * rate).quantize(Decimal("0.01"))),
            "currency": "USDC",
            "status": "PENDING",
            "createdAt": self._moment(),
            "reason": params.get("reason", ""),
            **({} if currency == "USDC" else {"fiatAmount": params["amount"], "fiatCurrency": currency}),
        }
        checkout["refunds"].append(refund)
        return Reply(201, {"checkout": checkout, "refund": refund})

    def _refunded(self, checkout: Obj) -> Decimal:
        good = (refund for refund in checkout["refunds"] if refund["status"] != "FAILED")
        return sum((Decimal(refund.get("fiatAmount", refund["amount"])) for refund in good), Decimal(0))

    def _moment(self) -> str:
        return datetime.fromtimestamp(self.now(), UTC).isoformat().replace("+00:00", "Z")


def _price(checkout: Obj) -> Decimal:
    return Decimal(checkout["fiatAmount"] if "fiatAmount" in checkout else checkout["amount"])


def _error(status: int, kind: str, message: str) -> Reply:
    return Reply(status, {"correlationId": secrets.token_hex(8), "errorType": kind, "errorMessage": message})
