"""Coinbase Business checkouts: single-use pages paid in USDC on Base, priced in USDC or in money.

Wire facts are in providers.md 2.4. Each request carries a token that is signed for this request alone; webhooks are
signed together with some of their headers.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final
from urllib.parse import urlencode, urlsplit
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from core.clock import Clock
from core.money import round_money
from providers.http import HttpClient
from providers.payments.api import ProviderApi, is_missing, known_ref, reading_answer, require_ref
from providers.payments.contract import (
    Capabilities,
    CheckoutCreated,
    EventPage,
    RefundCreated,
    RefundRequest,
    RefundStatus,
    VerifiedEvent,
)
from providers.payments.errors import BadSignature, ProviderRejected, SignatureFault
from providers.payments.facts import Fee
from providers.payments.one_time import OneTimeProvider
from providers.payments.orders import (
    Order,
    amount_text,
    tags_as_metadata,
    tags_of_metadata,
)
from providers.payments.payment_state import PaymentState, PaymentStatus
from providers.payments.reading import Node, read_object, reading_identity
from providers.payments.sightings import REFUND_HORIZON, saw_state
from providers.payments.signature import find_header, parse_signature_header, refuse_wrong_time

PROVIDER: Final = "coinbase_business"
DEFAULT_API_BASE: Final = "https://business.coinbase.com"
CURRENCIES: Final = frozenset({"USDC", "USD", "EUR", "GBP", "SGD"})
SESSION_LIFETIME: Final = timedelta(hours=24)
SIGNATURE_HEADER: Final = "X-Hook0-Signature"

_PAGE: Final = 100
_ROOT: Final = "/api/v1/checkouts"
# Prices are in hundredths, though USDC itself is finer.
_DECIMALS: Final = 2
_TOKEN_LIFETIME: Final = timedelta(seconds=120)
_STATUSES: Final = {
    "ACTIVE": PaymentStatus.PENDING,
    "PROCESSING": PaymentStatus.PROCESSING,
    "COMPLETED": PaymentStatus.PAID,
    "PARTIALLY_REFUNDED": PaymentStatus.PAID,
    "REFUNDED": PaymentStatus.PAID,
    "DEACTIVATED": PaymentStatus.CANCELLED,
    "EXPIRED": PaymentStatus.EXPIRED,
    "FAILED": PaymentStatus.FAILED,
}
_REFUNDS: Final = {
    "COMPLETED": RefundStatus.SUCCEEDED,
    "SUCCESS": RefundStatus.SUCCEEDED,
    "FAILED": RefundStatus.FAILED,
}


class CoinbaseBusinessProvider(OneTimeProvider):
    """The adapter for one Coinbase Business account.

    Args:
        key_id: the id of the CDP API key.
        key_secret: its secret: base64 of an Ed25519 key, or a PEM with an EC key.
        webhook_secrets: the subscription's secret, several while one is rolled; empty refuses every webhook.
        clock: tells when tokens run out.
        api_base: where the API is.

    Raises:
        ValueError: the secret is neither kind of key.
    """

    def __init__(
        self,
        http: HttpClient,
        *,
        key_id: str,
        key_secret: str,
        webhook_secrets: Sequence[str],
        clock: Clock,
        api_base: str = DEFAULT_API_BASE,
    ) -> None:
        self._api = ProviderApi(http, provider=PROVIDER, base_url=api_base, reason=_reason)
        self._host = urlsplit(self._api.base_url).netloc
        self._key_id = key_id
        self._key = _read_key(key_secret)
        self._webhook_secrets = tuple(webhook_secrets)
        self._clock = clock

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
            withdraw=True,
            tells_expiry=True,
            may_differ=False,
            currencies=CURRENCIES,
            signature_header=SIGNATURE_HEADER,
            development_only=False,
        )

    def verify(self, *, body: bytes, headers: Mapping[str, str], now: datetime) -> VerifiedEvent:
        """See `PaymentProvider.verify`."""
        if not self._webhook_secrets:
            raise BadSignature(SignatureFault.NOT_CONFIGURED, "Coinbase Business webhook secret is not configured")
        value = find_header(headers, SIGNATURE_HEADER)
        signed = parse_signature_header(value, provider="X-Hook0")
        names = _signed_names(value or "")
        content = [str(signed.timestamp), " ".join(names), ".".join(find_header(headers, name) or "" for name in names)]
        message = ".".join(content).encode("utf-8", "replace") + b"." + body
        digests = [hmac.new(key.encode(), message, hashlib.sha256).hexdigest() for key in self._webhook_secrets]
        if not any(hmac.compare_digest(digest, given) for digest in digests for given in signed.signatures):
            raise BadSignature(SignatureFault.INVALID_SIGNATURE, "Invalid Coinbase Business webhook signature")
        refuse_wrong_time(signed.timestamp, now=now, provider="Coinbase Business")
        payload = read_object(body, provider="Coinbase Business")
        event = Node(payload, "event")
        with reading_identity("Coinbase Business"):
            kind = event.ref("eventType")
            signed_id = find_header(headers, "X-Event-Id") if "x-event-id" in names else None
            return VerifiedEvent(
                event_id=signed_id if signed_id and len(signed_id) <= 255 else _event_id(event, kind),
                account="",
                type=kind,
                occurred_at=event.instant_or_none("updatedAt") or signed.signed_at,
                payload=payload,
            )

    def to_fetch(self, event: VerifiedEvent) -> str | None:
        """See `PaymentProvider.to_fetch`."""
        return Node(event.payload, "event").ref("id") if event.type.startswith("checkout.") else None

    async def fetch_payment(self, reference: str) -> PaymentState | None:
        """See `PaymentProvider.fetch_payment`."""
        if not known_ref(reference):
            return None
        try:
            answer = await self._call("fetch_payment", "GET", f"{_ROOT}/{reference}")
        except ProviderRejected as refusal:
            if is_missing(refusal):
                return None
            raise
        with reading_answer():
            return _read_state(answer)

    async def list_events(self, *, since: datetime, until: datetime, cursor: str | None = None) -> EventPage:
        """See `PaymentProvider.list_events`: checkouts as they stand, listed by when they were made."""
        query = {"pageSize": _PAGE, "startTime": _moment(since - REFUND_HORIZON), "endTime": _moment(until)}
        if cursor is not None:
            query["pageToken"] = cursor
        answer = await self._call("list_checkouts", "GET", f"{_ROOT}?{urlencode(query)}")
        with reading_answer():
            states = [_read_state(row) for row in answer.required_rows("checkouts")]
            token = answer.text_or_none("nextPageToken")
        # A refund that fails moves nothing but the amount, so each change counts, whenever it was.
        events = tuple(saw_state(state) for state in states if state.tags and state.status is not PaymentStatus.PENDING)
        return EventPage(events=events, next_cursor=token or None)

    async def refund(self, request: RefundRequest) -> RefundCreated:
        """See `PaymentProvider.refund`."""
        currency = request.currency.upper()
        answer = await self._call(
            "refund",
            "POST",
            f"{_ROOT}/{require_ref(request.session_id)}/refund",
            key=request.refund_id,
            json_body={
                "amount": amount_text(request.amount, currency, currencies=CURRENCIES, decimals=_DECIMALS),
                "currency": currency,
                "reason": "Refund",
            },
        )
        with reading_answer():
            made = answer.node("refund")
            return RefundCreated(
                refund_ref=made.ref("id"),
                status=_REFUNDS.get(made.text("status"), RefundStatus.PENDING),
                amount=request.amount,
                claim_url=None,
            )

    async def withdraw(self, session_id: str) -> None:
        """See `PaymentProvider.withdraw`."""
        try:
            await self._call("withdraw", "POST", f"{_ROOT}/{require_ref(session_id)}/deactivate")
        except ProviderRejected:
            # Only an active checkout can be closed; one that is over already is all that was asked for.
            state = await self.fetch_payment(session_id)
            if state is None or state.status not in (PaymentStatus.CANCELLED, PaymentStatus.EXPIRED):
                raise

    async def _open(self, order: Order) -> CheckoutCreated:
        # Under one key Coinbase wants one body, whenever it is asked.
        expires_at = order.begun_at + SESSION_LIFETIME
        answer = await self._call(
            "create_checkout",
            "POST",
            _ROOT,
            key=order.tags.order_id,
            json_body={
                "amount": amount_text(order.amount, order.currency, currencies=CURRENCIES, decimals=_DECIMALS),
                "currency": order.currency,
                "network": "base",
                "description": order.title[:500],
                "expiresAt": _moment(expires_at),
                "successRedirectUrl": order.success_url,
                "failRedirectUrl": order.cancel_url,
                "metadata": tags_as_metadata(order.tags),
            },
        )
        with reading_answer():
            return CheckoutCreated(
                session_id=answer.ref("id"),
                url=answer.text("url"),
                customer_ref=None,
                expires_at=answer.instant_or_none("expiresAt") or expires_at,
            )

    async def _call(
        self,
        operation: str,
        method: str,
        path: str,
        *,
        key: UUID | None = None,
        json_body: Mapping[str, object] | None = None,
    ) -> Node:
        """Call the API; reads, closing and whatever has an idempotency key may be repeated."""
        headers = {"Authorization": f"Bearer {self._token(method, path)}"}
        if key is not None:
            # The key must be a version 4 UUID. Ours are; any other is bent into the form, the same way each time.
            headers["X-Idempotency-Key"] = str(UUID(int=key.int, version=4))
        return await self._api.call(operation, method, path, repeatable=True, headers=headers, json_body=json_body)

    def _token(self, method: str, path: str) -> str:
        now = self._clock.now()
        claims = {
            "sub": self._key_id,
            "iss": "cdp",
            "iat": now,
            "nbf": now,
            "exp": now + _TOKEN_LIFETIME,
            # What is asked of an address is not signed, only the address.
            "uris": [f"{method} {self._host}{path.partition('?')[0]}"],
        }
        algorithm = "EdDSA" if isinstance(self._key, Ed25519PrivateKey) else "ES256"
        return jwt.encode(
            claims, self._key, algorithm=algorithm, headers={"kid": self._key_id, "nonce": secrets.token_hex(16)}
        )


def _moment(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


def _read_key(secret: str) -> Ed25519PrivateKey | EllipticCurvePrivateKey:
    # In an environment variable a PEM's line ends are often written out.
    text = secret.replace("\\n", "\n").strip()
    if text.startswith("-----"):
        key = load_pem_private_key(text.encode(), password=None)
        if isinstance(key, EllipticCurvePrivateKey | Ed25519PrivateKey):
            return key
    else:
        try:
            raw = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        # The private key and, behind it, the public one.
        if len(raw) in (32, 64):
            return Ed25519PrivateKey.from_private_bytes(raw[:32])
    raise ValueError("the secret of the CDP API key is neither an Ed25519 nor an EC key")


def _signed_names(value: str) -> list[str]:
    lists = [text for key, _, text in (item.strip().partition("=") for item in value.split(",")) if key == "h"]
    # Two lists would let the headers that are signed differ from those that are read.
    if len(lists) != 1 or not lists[0]:
        raise BadSignature(SignatureFault.INVALID_HEADER, f"Invalid {SIGNATURE_HEADER} header")
    return lists[0].split(" ")


def _event_id(event: Node, kind: str) -> str:
    told = [event.ref("id"), kind, event.text_or_none("updatedAt") or "", event.text_or_none("status") or ""]
    return "checkout_" + hashlib.sha256("\n".join(told).encode()).hexdigest()


def _reason(answer: Node) -> str | None:
    return answer.text_or_none("errorType") or answer.text_or_none("code")


def _read_state(checkout: Node) -> PaymentState:
    # Priced in money, a checkout has both: the USDC to pay and the money that was asked.
    is_fiat = "fiatAmount" in checkout and "fiatCurrency" in checkout
    asked = checkout.amount("fiatAmount" if is_fiat else "amount")
    currency = checkout.currency("fiatCurrency" if is_fiat else "currency")
    word = checkout.text("status")
    status = _STATUSES.get(word, PaymentStatus.PENDING)
    checkout_id = checkout.ref("id")
    has_money = status in (PaymentStatus.PAID, PaymentStatus.PROCESSING)
    refunded = sum((_refunded(refund, currency) for refund in checkout.rows("refunds")), Decimal(0))
    return PaymentState(
        session_id=checkout_id,
        tags=tags_of_metadata(checkout.node_or_none("metadata")),
        status=status,
        provider_status=word,
        asked=asked,
        received=asked if has_money else Decimal(0),
        refunded=asked if word == "REFUNDED" else refunded,
        currency=currency,
        payment_key=checkout_id,
        payment_ref=checkout_id,
        invoice_ref=None,
        subscription_ref=None,
        customer_ref=None,
        is_late=False,
        is_test=False,
        changed_at=checkout.instant_or_none("updatedAt") or checkout.instant("createdAt"),
        # When it was paid is not told, and a refund moves `updatedAt`; a checkout lives for a day at the most.
        paid_at=checkout.instant_or_none("createdAt") if has_money else None,
        fee=_fee(checkout, asked, currency),
        refunds_made=_ended(checkout, RefundStatus.SUCCEEDED),
        refunds_failed=_ended(checkout, RefundStatus.FAILED),
    )


def _fee(checkout: Node, asked: Decimal, currency: str) -> Fee | None:
    """Tell the fee in the currency that was asked, by the checkout's own rate: it is settled in coins."""
    settled = checkout.node_or_none("settlement")
    if settled is None or not (total := settled.amount("totalAmount")):
        return None
    return Fee(amount=round_money(asked * settled.amount("feeAmount") / total, currency), currency=currency)


def _ended(checkout: Node, end: RefundStatus) -> frozenset[str]:
    refunds = checkout.rows("refunds")
    return frozenset(refund.ref("id") for refund in refunds if _REFUNDS.get(refund.text("status")) is end)


def _refunded(refund: Node, currency: str) -> Decimal:
    if refund.text("status") == "FAILED":
        return Decimal(0)
    if refund.text_or_none("fiatCurrency") == currency:
        return refund.amount("fiatAmount")
    return refund.amount("amount") if refund.currency("currency") == currency else Decimal(0)
