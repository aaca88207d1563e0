"""LiqPay: the payer is sent to a signed address, the outcome is told by a signed form and asked for again.

Wire facts are in providers.md 2.2. A callback has neither an id nor a time of its own, so whoever has seen one can send
it again: its id is a digest of what it tells, and what it tells is believed only as `action=status` confirms it.
LiqPay's own Python SDK checks signatures wrongly and is not used.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final
from urllib.parse import parse_qsl, urlencode

from core import json
from core.clock import Clock
from providers.http import HttpClient
from providers.payments.api import ProviderApi, is_missing, reading_answer
from providers.payments.contract import (
    Capabilities,
    CheckoutCreated,
    EventPage,
    RefundCreated,
    RefundRequest,
    RefundStatus,
    VerifiedEvent,
)
from providers.payments.errors import BadSignature, ProviderRejected, ProviderUnavailable, SignatureFault
from providers.payments.facts import Fee
from providers.payments.one_time import OneTimeProvider
from providers.payments.orders import (
    Order,
    amount_text,
    compact_tags,
    read_compact_tags,
    refuse_refund_beyond,
)
from providers.payments.payment_state import PaymentState, PaymentStatus
from providers.payments.reading import Node, read_object, reading_identity
from providers.payments.sightings import REFUND_HORIZON, saw_payment

PROVIDER: Final = "liqpay"
DEFAULT_API_BASE: Final = "https://www.liqpay.ua"
CURRENCIES: Final = frozenset({"UAH", "USD", "EUR"})
SESSION_LIFETIME: Final = timedelta(hours=24)

# Of how many days the archive is asked for at once, so that the answer does not grow too long.
_WINDOW: Final = timedelta(days=3)
# Absent are `sandbox` (see `_status`) and everything that still waits for the payer (`otp_verify`, `3ds_verify`, ...).
_STATUSES: Final = {
    "success": PaymentStatus.PAID,
    # Refunded, so it was paid; how much went back is told beside it.
    "reversed": PaymentStatus.PAID,
    "failure": PaymentStatus.FAILED,
    "error": PaymentStatus.FAILED,
    "processing": PaymentStatus.PROCESSING,
    "hold_wait": PaymentStatus.PROCESSING,
    "cash_wait": PaymentStatus.PROCESSING,
    "wait_accept": PaymentStatus.PROCESSING,
    "wait_card": PaymentStatus.PROCESSING,
    "wait_compensation": PaymentStatus.PROCESSING,
    "wait_lc": PaymentStatus.PROCESSING,
    "wait_reserve": PaymentStatus.PROCESSING,
    "wait_secure": PaymentStatus.PROCESSING,
}
_UNKNOWN_ORDER: Final = frozenset({"payment_not_found", "order_not_found", "err_payment_not_found"})
_BAD_CREDENTIALS: Final = frozenset(
    {"err_access", "err_public_key", "public_key_not_found", "invalid_signature", "err_signature", "shop_blocked"}
)


class LiqPayProvider(OneTimeProvider):
    """The adapter for one LiqPay shop.

    Args:
        public_key, private_key: the shop's keys; the private one signs in both directions.
        webhook_url: our own address that LiqPay is told to call, reached from outside.
        clock: tells when a new address runs out.
        sandbox: whether play payments count; in production they must not.
        api_base: where LiqPay is.
        language: of the payment page: `uk` or `en`.
    """

    def __init__(
        self,
        http: HttpClient,
        *,
        public_key: str,
        private_key: str,
        webhook_url: str,
        clock: Clock,
        sandbox: bool = False,
        api_base: str = DEFAULT_API_BASE,
        language: str = "uk",
    ) -> None:
        self._api = ProviderApi(http, provider=PROVIDER, base_url=api_base, reason=_reason)
        self._public_key = public_key
        self._private_key = private_key
        self._webhook_url = webhook_url
        self._clock = clock
        self._sandbox = sandbox
        self._language = language

    @property
    def name(self) -> str:
        return PROVIDER

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            recurring=False,
            fetch_subscription=False,
            fetch_payment=True,
            list_events=True,
            capture=False,
            refund=True,
            tells_refunds=True,
            withdraw=False,
            tells_expiry=False,
            may_differ=False,
            currencies=CURRENCIES,
            signature_header=None,
            development_only=False,
        )

    def verify(self, *, body: bytes, headers: Mapping[str, str], now: datetime) -> VerifiedEvent:  # noqa: ARG002
        """See `PaymentProvider.verify`; the signature stands in the body, over the exact text beside it."""
        if not self._private_key:
            raise BadSignature(SignatureFault.NOT_CONFIGURED, "LiqPay private key is not configured")
        data, signature = _read_form(body)
        if not hmac.compare_digest(self._sign(data).encode(), signature.encode("utf-8", "replace")):
            raise BadSignature(SignatureFault.INVALID_SIGNATURE, "Invalid LiqPay webhook signature")
        try:
            content = base64.b64decode(data)
        except (binascii.Error, ValueError):
            content = b""
        payload = read_object(content, provider="LiqPay")
        callback = Node(payload, "callback")
        with reading_identity("LiqPay"):
            status, order_id = callback.ref("status"), callback.ref("order_id")
            return VerifiedEvent(
                event_id=_event_id(callback, order_id, status),
                account="",
                type=f"{callback.text_or_none('action') or 'payment'}.{status}",
                occurred_at=_moment(callback) or now,
                payload=payload,
            )

    def to_fetch(self, event: VerifiedEvent) -> str | None:
        """See `PaymentProvider.to_fetch`."""
        return Node(event.payload, "callback").ref("order_id")

    async def fetch_payment(self, reference: str) -> PaymentState | None:
        """See `PaymentProvider.fetch_payment`. An order whose payer never came is unknown to LiqPay."""
        try:
            answer = await self._ask("fetch_payment", {"action": "status", "order_id": reference}, repeatable=True)
        except ProviderRejected as refusal:
            if is_missing(refusal):
                return None
            raise
        return self._read_state(answer)

    async def list_events(self, *, since: datetime, until: datetime, cursor: str | None = None) -> EventPage:
        """See `PaymentProvider.list_events`: the archive of payments as they stand, a few days at a time."""
        begin = since - REFUND_HORIZON if cursor is None else datetime.fromisoformat(cursor)
        end = min(begin + _WINDOW, until)
        dates = {"date_from": int(begin.timestamp() * 1000), "date_to": int(end.timestamp() * 1000)}
        answer = await self._ask("list_payments", {"action": "reports", **dates}, repeatable=True)
        with reading_answer():
            events = tuple(
                _saw(row, at=until)
                for row in answer.required_rows("data")
                if _is_ours(row) and self._status(row.ref("status")) is not PaymentStatus.PENDING
            )
        return EventPage(events=events, next_cursor=end.isoformat() if end < until else None)

    async def refund(self, request: RefundRequest) -> RefundCreated:
        """See `PaymentProvider.refund`.

        LiqPay has no idempotency keys: what it says to be refunded decides whether this refund has been made.
        """
        state = await self.capture(request.session_id)
        before = request.refunded_before
        amount = request.amount
        refuse_refund_beyond(amount, state.received - before)
        reference = f"{request.session_id}:{before + amount}"
        if state.refunded == before + amount:
            return _refunded(reference, amount, RefundStatus.SUCCEEDED)
        if state.status is not PaymentStatus.PAID or state.refunded != before:
            raise ProviderRejected("The refund is not possible", details={"reason": "refund_not_possible"})
        text = amount_text(amount, state.currency, currencies=CURRENCIES)
        answer = await self._ask(
            "refund", {"action": "refund", "order_id": request.session_id, "amount": Decimal(text)}, repeatable=False
        )
        return _refunded(reference, amount, _refund_status(answer))

    async def _open(self, order: Order) -> CheckoutCreated:
        """Make the address of a payment page; LiqPay learns of the order when the payer arrives with it."""
        expires_at = (self._clock.now() + SESSION_LIFETIME).astimezone(UTC)
        order_id = compact_tags(order.tags)
        params: dict[str, object] = {
            "version": 3,
            "public_key": self._public_key,
            "action": "pay",
            "amount": Decimal(amount_text(order.amount, order.currency, currencies=CURRENCIES)),
            "currency": order.currency,
            "description": order.title,
            "order_id": order_id,
            "server_url": self._webhook_url,
            "result_url": order.success_url,
            "language": self._language,
            "expired_date": f"{expires_at:%Y-%m-%d %H:%M:%S}",
        }
        if self._sandbox:
            params["sandbox"] = 1
        query = urlencode(self._signed(params))
        return CheckoutCreated(
            session_id=order_id,
            url=f"{self._api.base_url}/api/3/checkout?{query}",
            customer_ref=None,
            expires_at=expires_at,
        )

    async def _ask(self, operation: str, params: Mapping[str, object], *, repeatable: bool) -> Node:
        """Call the API, whose refusals come with status 200."""
        form = self._signed({"version": 3, "public_key": self._public_key, **params})
        answer = await self._api.call(
            operation,
            "POST",
            "/api/request",
            repeatable=repeatable,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            body=urlencode(form).encode(),
        )
        code = None if _is_payment(answer) else _reason(answer)
        if code is None:
            return answer
        if code in _UNKNOWN_ORDER:
            raise ProviderRejected(details={"reason": "resource_missing"})
        if code in _BAD_CREDENTIALS:
            raise ProviderUnavailable(retryable=False)
        raise ProviderRejected(details={"reason": code})

    def _read_state(self, answer: Node) -> PaymentState:
        with reading_answer():
            word = answer.ref("status")
            order_id = answer.ref("order_id")
            asked = answer.amount("amount")
            status = self._status(word)
            received = asked if status in (PaymentStatus.PAID, PaymentStatus.PROCESSING) else Decimal(0)
            refunded = answer.amount_or_none("refund_amount") or (asked if word == "reversed" else Decimal(0))
            return PaymentState(
                session_id=order_id,
                tags=read_compact_tags(order_id),
                status=status,
                provider_status=word,
                asked=asked,
                received=received,
                refunded=refunded,
                currency=answer.currency("currency"),
                payment_key=order_id,
                payment_ref=_payment_id(answer),
                invoice_ref=None,
                subscription_ref=None,
                customer_ref=None,
                is_late=False,
                is_test=word == "sandbox",
                changed_at=_moment(answer) or self._clock.now(),
                paid_at=_moment(answer, "end_date") if status is PaymentStatus.PAID else None,
                fee=_fee(answer),
            )

    def _status(self, word: str) -> PaymentStatus:
        if word == "sandbox":
            # Play money: worth something only where everything is play.
            return PaymentStatus.PAID if self._sandbox else PaymentStatus.FAILED
        return _STATUSES.get(word, PaymentStatus.PENDING)

    def _signed(self, params: Mapping[str, object]) -> dict[str, str]:
        data = base64.b64encode(json.dumps(params)).decode()
        return {"data": data, "signature": self._sign(data)}

    def _sign(self, data: str) -> str:
        signed = (self._private_key + data + self._private_key).encode("utf-8", "replace")
        # SHA-1 is what LiqPay's protocol prescribes.
        return base64.b64encode(hashlib.sha1(signed, usedforsecurity=False).digest()).decode()


def _read_form(body: bytes) -> tuple[str, str]:
    try:
        fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        fields = []
    found = {name: [value for key, value in fields if key == name] for name in ("data", "signature")}
    # Two of a kind would let the one that is checked differ from the one that is read.
    if len(found["data"]) == len(found["signature"]) == 1:
        return found["data"][0], found["signature"][0]
    raise BadSignature(SignatureFault.INVALID_HEADER, "Invalid LiqPay form")


def _event_id(callback: Node, order_id: str, status: str) -> str:
    facts = [order_id, status, _payment_id(callback) or "", *map(str, _dates(callback)), str(_refund_amount(callback))]
    return "liqpay_" + hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _fee(answer: Node) -> Fee | None:
    """Read what LiqPay keeps, in the payment's own currency; what it takes from the payer besides is not ours."""
    kept = answer.amount_or_none("receiver_commission")
    return None if kept is None else Fee(amount=kept, currency=answer.currency("currency"))


def _is_ours(payment: Node) -> bool:
    return read_compact_tags(payment.text_or_none("order_id")) is not None


def _saw(payment: Node, *, at: datetime) -> VerifiedEvent:
    words = (payment.ref("status"), _refund_amount(payment), *_dates(payment))
    return saw_payment(payment.ref("order_id"), *words, at=_moment(payment) or at)


def _refund_amount(callback: Node) -> object:
    return callback.data.get("refund_amount")


def _dates(callback: Node, *names: str) -> list[int]:
    names = names or ("end_date", "refund_date_last", "create_date")
    return [found for name in names if (found := callback.integer_or_none(name)) is not None]


def _moment(node: Node, *names: str) -> datetime | None:
    """Read when a payment last changed, or the newest of the dates `names`: unix milliseconds."""
    dates = _dates(node, *names)
    if not dates:
        return None
    try:
        return datetime.fromtimestamp(max(dates) / 1000, UTC)
    except (OverflowError, OSError, ValueError):
        return node.refuse("end_date", "is not a time")


def _payment_id(node: Node) -> str | None:
    for name in ("payment_id", "transaction_id"):
        number = node.data.get(name)
        if isinstance(number, int) and not isinstance(number, bool):
            return str(number)[:64]
        if isinstance(number, str) and number:
            return number[:64]
    return None


def _is_payment(answer: Node) -> bool:
    # A payment that failed says `result: error` too, but tells which payment it is.
    return answer.data.get("result") != "error" or ("order_id" in answer and "amount" in answer)


def _reason(answer: Node) -> str:
    return answer.text_or_none("err_code") or answer.text_or_none("code") or "error"


def _refund_status(answer: Node) -> RefundStatus:
    with reading_answer():
        word = answer.text("status")
        if word in ("error", "failure"):
            raise ProviderRejected("The refund is not possible", details={"reason": _reason(answer)})
        if word in ("reversed", "success") and not answer.flag("wait_amount"):
            return RefundStatus.SUCCEEDED
    return RefundStatus.PENDING


def _refunded(reference: str, amount: Decimal, status: RefundStatus) -> RefundCreated:
    return RefundCreated(refund_ref=reference, status=status, amount=amount, claim_url=None)
