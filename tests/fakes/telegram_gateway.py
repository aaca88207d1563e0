"""A fake of Telegram Gateway (core.telegram.org/gateway/api): codes to phone numbers, with fees and reports.

It shares no code with the product. Errors are `{"ok": false, "error": NAME}` with status 200.
"""

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable

from tests.fakes.messenger_http import FakeHttpServer, Obj, Result, Seen

TOKEN = "AAEFAQfake-gateway-token"
FEE = 0.01


class Refused(Exception):
    """The API answers with an error of this name."""


class FakeTelegramGateway(FakeHttpServer):
    """One account. `accounts` are the phone numbers that have Telegram; `sent` what reached them."""

    def __init__(self, *accounts: str, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self.accounts = set(accounts)
        self.balance = 10.0
        self.sent: list[Obj] = []
        # An error that meets every request of a method, such as `FLOOD_WAIT_7`.
        self.refusals: dict[str, str] = {}
        self._clock = clock
        self._requests: dict[str, Obj] = {}

    @property
    def methods(self) -> list[str]:
        """The methods called so far."""
        return [seen.path.removeprefix("/") for seen in self.requests]

    def report(self, request_id: str, status: str) -> Obj:
        """What the account is told about a message when it got so far."""
        message = self._requests[request_id]
        message["delivery_status"] = {"status": status, "updated_at": int(self._clock())}
        return {**message, "is_refunded": status == "expired"}

    def sign(self, body: bytes, *, at: int, token: str = TOKEN) -> dict[str, str]:
        """The headers of a report, in the way the documentation tells to check them."""
        data_check_string = str(at).encode() + b"\n" + body
        secret_key = hashlib.sha256(token.encode()).digest()
        signature = hmac.new(secret_key, data_check_string, "sha256").hexdigest()
        return {"X-Request-Timestamp": str(at), "X-Request-Signature": signature}

    async def deliver_report(self, report: Obj, url: str) -> int:
        body = json.dumps(report).encode()
        return await self.deliver(body, url, headers=self.sign(body, at=int(self._clock())))

    async def work(self, seen: Seen) -> Result:
        try:
            return Result(200, {"ok": True, "result": self._call(seen)})
        except Refused as refused:
            return Result(200, {"ok": False, "error": str(refused)})

    def _call(self, seen: Seen) -> Obj:
        token = seen.headers.get("Authorization", "").removeprefix("Bearer ") or seen.body.get("access_token", "")
        if not token:
            raise Refused("ACCESS_TOKEN_REQUIRED")
        if token != TOKEN:
            raise Refused("ACCESS_TOKEN_INVALID")
        method = seen.path.removeprefix("/")
        if method in self.refusals:
            raise Refused(self.refusals[method])
        if method == "checkSendAbility":
            return self._check(seen.body)
        if method == "sendVerificationMessage":
            return self._send(seen.body)
        raise Refused("UNKNOWN_METHOD")

    def _check(self, body: Obj) -> Obj:
        phone = body.get("phone_number", "")
        if not phone.startswith("+") or not phone[1:].isdigit():
            raise Refused("PHONE_NUMBER_INVALID")
        if phone not in self.accounts:
            raise Refused("PHONE_NUMBER_NOT_FOUND")
        if self.balance < FEE:
            raise Refused("BALANCE_NOT_ENOUGH")
        self.balance -= FEE
        request_id = secrets.token_hex(16)
        self._requests[request_id] = {"request_id": request_id, "phone_number": phone, "request_cost": FEE}
        return {**self._requests[request_id], "remaining_balance": round(self.balance, 2)}

    def _send(self, body: Obj) -> Obj:
        _check_options(body)
        request_id = body.get("request_id") or self._check(body)["request_id"]
        request = self._requests.get(request_id)
        if request is None:
            raise Refused("REQUEST_ID_INVALID")
        if request["phone_number"] != body.get("phone_number"):
            raise Refused("PHONE_NUMBER_MISMATCH")
        if "delivery_status" in request:
            raise Refused("MESSAGE_ALREADY_SENT")
        request["delivery_status"] = {"status": "sent", "updated_at": int(self._clock())}
        request["payload"] = body.get("payload", "")
        self.sent.append(dict(body))
        return request


def _check_options(body: Obj) -> None:
    code, ttl = body.get("code"), body.get("ttl", 60)
    if not isinstance(code, str) or not code.isdigit() or not 4 <= len(code) <= 8:
        raise Refused("CODE_INVALID")
    if not isinstance(ttl, int) or not 30 <= ttl <= 3600:
        raise Refused("TTL_INVALID")
    if len(body.get("payload", "").encode()) > 128:
        raise Refused("PAYLOAD_INVALID")
    if not body.get("callback_url", "https://").startswith("https://"):
        raise Refused("CALLBACK_URL_INVALID")
