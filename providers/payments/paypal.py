"""PayPal by its Orders API: an order is approved by the payer and captured by us.

Wire facts are in providers.md 2.3. PayPal's own SDK is synchronous and checks no webhooks, so it drives the fake in
tests and nothing here.
"""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlencode, urlsplit

import certifi

from core.clock import Clock
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
from providers.payments.errors import BadPayload, BadSignature, ProviderRejected, ProviderUnavailable, SignatureFault
from providers.payments.facts import Fact, Source
from providers.payments.one_time import OneTimeProvider
from providers.payments.orders import Order, amount_text, compact_tags, refuse_refund_beyond
from providers.payments.payment_state import PaymentState, PaymentStatus
from providers.payments.paypal_orders import read_dispute, read_order
from providers.payments.paypal_webhooks import Certificates, Transmission, is_signed
from providers.payments.reading import Node, read_object, reading_identity
from providers.payments.signature import find_header

PROVIDER: Final = "paypal"
SIGNATURE_HEADER: Final = "PAYPAL-TRANSMISSION-SIG"
LIVE_API_BASE: Final = "https://api-m.paypal.com"
SANDBOX_API_BASE: Final = "https://api-m.sandbox.paypal.com"
CURRENCIES: Final = frozenset(
    (
        *("AUD", "BRL", "CAD", "CHF", "CNY", "CZK", "DKK", "EUR", "GBP", "HKD", "HUF", "ILS", "JPY"),
        *("MXN", "MYR", "NOK", "NZD", "PHP", "PLN", "SEK", "SGD", "THB", "TWD", "USD"),
    )
)
SESSION_LIFETIME: Final = timedelta(hours=3)
"""An order that nobody has approved is forgotten after this."""

# PayPal takes no decimals of these, whatever ISO 4217 says.
_WHOLE_ONLY: Final = frozenset({"HUF", "JPY", "TWD"})
# How many events are asked for at once, as many as it gives.
_PAGE: Final = 100
_CAPTURE_REFERENCE: Final = "capture:"
_DISPUTES: Final = {"CUSTOMER.DISPUTE.CREATED": False, "CUSTOMER.DISPUTE.RESOLVED": True}
_REFUNDS: Final = {"COMPLETED": RefundStatus.SUCCEEDED, "PENDING": RefundStatus.PENDING}


class PayPalProvider(OneTimeProvider):
    """The adapter for one PayPal application.

    Args:
        client_id, client_secret: the application's credentials.
        webhook_ids: the webhook's id, which PayPal signs; several while one is replaced, none refuses every webhook.
        clock: tells when tokens and orders run out.
        api_base: where the API is; the sandbox has another one.
        trust_roots: PEM certificates that may vouch for PayPal's; by default those that browsers trust.
    """

    def __init__(
        self,
        http: HttpClient,
        *,
        client_id: str,
        client_secret: str,
        webhook_ids: Sequence[str],
        clock: Clock,
        api_base: str = LIVE_API_BASE,
        trust_roots: bytes | None = None,
    ) -> None:
        self._api = ProviderApi(http, provider=PROVIDER, base_url=api_base, reason=_reason)
        self._credentials = base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
        self._webhook_ids = tuple(webhook_ids)
        self._clock = clock
        roots = Path(certifi.where()).read_bytes() if trust_roots is None else trust_roots
        self._certificates = Certificates(http, roots=roots, api_base=api_base, clock=clock)
        self._token: tuple[str, datetime] | None = None
        self._token_lock = asyncio.Lock()

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
            capture=True,
            refund=True,
            tells_refunds=True,
            withdraw=False,
            tells_expiry=False,
            may_differ=False,
            currencies=CURRENCIES,
            signature_header=SIGNATURE_HEADER,
            development_only=False,
        )

    async def prepare(self, headers: Mapping[str, str]) -> None:
        """See `PaymentProvider.prepare`: the certificate that the headers name."""
        url = find_header(headers, "PAYPAL-CERT-URL")
        if url is not None and self._webhook_ids:
            await self._certificates.fetch(url)

    def verify(self, *, body: bytes, headers: Mapping[str, str], now: datetime) -> VerifiedEvent:
        """See `PaymentProvider.verify`."""
        if not self._webhook_ids:
            raise BadSignature(SignatureFault.NOT_CONFIGURED, "PayPal webhook id is not configured")
        sent = Transmission.read(headers)
        certificate = self._certificates.find(sent.cert_url)
        if certificate is None or not any(
            is_signed(body, sent, webhook_id=webhook_id, certificate=certificate) for webhook_id in self._webhook_ids
        ):
            raise BadSignature(SignatureFault.INVALID_SIGNATURE, "Invalid PayPal webhook signature")
        sent.refuse_wrong_time(now)
        return _envelope(read_object(body, provider="PayPal"), at=sent.sent_at)

    def interpret(self, event: VerifiedEvent) -> tuple[Fact, ...]:
        """See `PaymentProvider.interpret`: disputes say all; whatever is about an order is fetched."""
        is_closed = _DISPUTES.get(event.type)
        if is_closed is None:
            return ()
        source = Source(provider=PROVIDER, event_id=event.event_id, occurred_at=event.occurred_at)
        fact = read_dispute(Node(event.payload, "event").node("resource"), source, is_closed=is_closed)
        return () if fact is None else (fact,)

    def to_fetch(self, event: VerifiedEvent) -> str | None:
        """See `PaymentProvider.to_fetch`: an order, or the capture that leads to it."""
        resource = Node(event.payload, "event")
        if event.type.startswith("CHECKOUT.ORDER."):
            return resource.node("resource").ref("id")
        if not event.type.startswith("PAYMENT.CAPTURE."):
            return None
        return _order_of(resource.node("resource"), is_refund=event.type.endswith(".REFUNDED"))

    async def fetch_payment(self, reference: str) -> PaymentState | None:
        """See `PaymentProvider.fetch_payment`. An order that nobody approved in time is unknown."""
        try:
            if reference.startswith(_CAPTURE_REFERENCE):
                capture_id = require_ref(reference.removeprefix(_CAPTURE_REFERENCE))
                capture = await self._call("fetch_capture", "GET", f"/v2/payments/captures/{capture_id}")
                reference = _related_order(capture) or ""
            if not known_ref(reference):
                return None
            return read_order(await self._call("fetch_payment", "GET", f"/v2/checkout/orders/{reference}"))
        except ProviderRejected as refusal:
            if is_missing(refusal):
                return None
            raise
        except BadPayload as nonsense:
            raise ProviderUnavailable(retryable=True) from nonsense

    async def list_events(self, *, since: datetime, until: datetime, cursor: str | None = None) -> EventPage:
        """See `PaymentProvider.list_events`: the application's notifications, delivered or not."""
        times = {"start_time": f"{since:%Y-%m-%dT%H:%M:%SZ}", "end_time": f"{until:%Y-%m-%dT%H:%M:%SZ}"}
        query = cursor or urlencode({"page_size": _PAGE, **times})
        answer = await self._call("list_events", "GET", f"/v1/notifications/webhooks-events?{query}")
        with reading_answer():
            events = tuple(_envelope(row.data, at=until) for row in answer.required_rows("events"))
            pages = [link.text("href") for link in answer.rows("links") if link.text_or_none("rel") == "next"]
        # Only what is asked of the address is the answer's to say, not where the token is sent to.
        return EventPage(events=events, next_cursor=urlsplit(pages[0]).query if pages and events else None)

    async def capture(self, session_id: str) -> PaymentState:
        """See `PaymentProvider.capture`."""
        state = await super().capture(session_id)
        if state.status is not PaymentStatus.APPROVED:
            return state
        try:
            await self._call(
                "capture",
                "POST",
                f"/v2/checkout/orders/{session_id}/capture",
                key=f"capture-{session_id}",
                json_body={},
            )
        except ProviderRejected as refusal:
            # Somebody was faster, which is as good.
            if refusal.details.get("reason") != "ORDER_ALREADY_CAPTURED":
                raise
        return await super().capture(session_id)

    async def refund(self, request: RefundRequest) -> RefundCreated:
        """See `PaymentProvider.refund`."""
        state = await super().capture(request.session_id)
        capture_id = state.payment_ref or request.payment_ref
        amount = request.amount
        refuse_refund_beyond(amount, state.received - request.refunded_before)
        if capture_id is None:
            raise ProviderRejected("The refund is not possible", details={"reason": "refund_not_possible"})
        value = amount_text(amount, state.currency, currencies=CURRENCIES, decimals=_decimals(state.currency))
        answer = await self._call(
            "refund",
            "POST",
            f"/v2/payments/captures/{require_ref(capture_id)}/refund",
            key=f"refund-{request.refund_id}",
            json_body={"amount": {"value": value, "currency_code": state.currency}},
        )
        with reading_answer():
            return RefundCreated(
                refund_ref=answer.ref("id"),
                status=_REFUNDS.get(answer.text("status"), RefundStatus.FAILED),
                amount=amount,
                claim_url=None,
            )

    async def _open(self, order: Order) -> CheckoutCreated:
        expires_at = self._clock.now() + SESSION_LIFETIME
        value = amount_text(order.amount, order.currency, currencies=CURRENCIES, decimals=_decimals(order.currency))
        answer = await self._call(
            "create_order",
            "POST",
            "/v2/checkout/orders",
            key=f"order-{order.tags.order_id}",
            json_body={
                "intent": "CAPTURE",
                "purchase_units": [
                    {
                        "reference_id": str(order.tags.order_id),
                        # PayPal takes money for one invoice id only once, whatever becomes of our own keys.
                        "invoice_id": str(order.tags.order_id),
                        "custom_id": compact_tags(order.tags),
                        "description": order.title[:127],
                        "amount": {"currency_code": order.currency, "value": value},
                    }
                ],
                "payment_source": {
                    "paypal": {
                        **({"email_address": order.customer_email} if order.customer_email else {}),
                        "experience_context": {
                            "return_url": order.success_url,
                            "cancel_url": order.cancel_url,
                            "user_action": "PAY_NOW",
                            "shipping_preference": "NO_SHIPPING",
                        },
                    }
                },
            },
        )
        with reading_answer():
            links = {link.text("rel"): link for link in answer.rows("links")}
            page = links.get("payer-action") or links.get("approve")
            if page is None:
                answer.refuse("links", "lead nowhere")
            return CheckoutCreated(
                session_id=answer.ref("id"), url=page.text("href"), customer_ref=None, expires_at=expires_at
            )

    async def _call(
        self,
        operation: str,
        method: str,
        path: str,
        *,
        key: str | None = None,
        json_body: Mapping[str, object] | None = None,
    ) -> Node:
        """Call the API with a token, a new one if PayPal no longer takes the old; all writes have a key."""
        token = await self._current_token()
        headers = {"Prefer": "return=representation", **({"PayPal-Request-Id": key} if key else {})}
        try:
            return await self._api.call(
                operation,
                method,
                path,
                repeatable=True,
                headers={**headers, "Authorization": f"Bearer {token}"},
                json_body=json_body,
            )
        except ProviderUnavailable as refusal:
            if refusal.retryable or self._token is None:
                raise
        self._token = None
        return await self._api.call(
            operation,
            method,
            path,
            repeatable=True,
            headers={**headers, "Authorization": f"Bearer {await self._current_token()}"},
            json_body=json_body,
        )

    async def _current_token(self) -> str:
        async with self._token_lock:
            if self._token is None or self._clock.now() >= self._token[1]:
                answer = await self._api.call(
                    "token",
                    "POST",
                    "/v1/oauth2/token",
                    repeatable=True,
                    headers={
                        "Authorization": f"Basic {self._credentials}",
                        "Content-Type": "application/x-www-form-urlencoded",
                    },
                    body=b"grant_type=client_credentials",
                )
                with reading_answer():
                    # A minute early, so that it does not run out on the way.
                    lifetime = timedelta(seconds=min(max(answer.integer("expires_in") - 60, 0), 86_400))
                    self._token = answer.text("access_token"), self._clock.now() + lifetime
            return self._token[0]


def _envelope(payload: Mapping[str, object], *, at: datetime) -> VerifiedEvent:
    event = Node(payload, "event")
    with reading_identity("PayPal"):
        return VerifiedEvent(
            event_id=event.ref("id"),
            account="",
            type=event.ref("event_type"),
            occurred_at=event.instant_or_none("create_time") or at,
            payload=dict(payload),
        )


def _decimals(currency: str) -> int:
    return 0 if currency in _WHOLE_ONLY else 2


def _reason(answer: Node) -> str | None:
    # The first detail is finer than the name: UNPROCESSABLE_ENTITY says nothing, ORDER_ALREADY_CAPTURED says all.
    details = next(answer.rows("details"), None)
    issue = None if details is None else details.text_or_none("issue")
    return issue or answer.text_or_none("name") or answer.text_or_none("error")


def _related_order(resource: Node) -> str | None:
    supplement = resource.node_or_none("supplementary_data")
    related = None if supplement is None else supplement.node_or_none("related_ids")
    return None if related is None else related.ref_or_none("order_id")


def _order_of(resource: Node, *, is_refund: bool) -> str:
    order_id = _related_order(resource)
    if order_id is not None:
        return order_id
    if not is_refund:
        return _CAPTURE_REFERENCE + resource.ref("id")
    for link in resource.rows("links"):
        if link.text_or_none("rel") == "up":
            return _CAPTURE_REFERENCE + link.text("href").rstrip("/").rpartition("/")[2]
    return resource.refuse("links", "lead to no capture")
