"""BTCPay Server by its Greenfield API: somebody's own server, and payments that arrive in parts, late or not at all.

Wire facts are in providers.md 2.5. Webhooks carry no amounts and their flags are wrong at times (btcpayserver #3966,
#4146), so every event leads to a fetch and amounts decide (`btcpay_states.py`). A refund is a pull payment: the payer
claims it at an address of its own.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlencode

from providers.http import HttpClient
from providers.payments.api import MISSING, ProviderApi, is_missing, known_ref, reading_answer, require_ref
from providers.payments.btcpay_states import paid_by, read_invoice
from providers.payments.contract import (
    Capabilities,
    CheckoutCreated,
    EventPage,
    RefundCreated,
    RefundRequest,
    RefundStatus,
    VerifiedEvent,
)
from providers.payments.errors import ProviderRejected
from providers.payments.one_time import OneTimeProvider
from providers.payments.orders import Order, amount_text, refuse_refund_beyond, tags_as_metadata, tags_of_metadata
from providers.payments.payment_state import PaymentState, PaymentStatus
from providers.payments.reading import Node, read_object, reading_identity
from providers.payments.sightings import saw_payment
from providers.payments.signature import refuse_wrong_digest

PROVIDER: Final = "btcpay"
SIGNATURE_HEADER: Final = "BTCPay-Sig"

# How many invoices are listed at once, and how long after an invoice's time its coins are still watched for: a day by
# the server's own default, and a day for whoever runs it otherwise.
_PAGE: Final = 100
_WATCHED: Final = timedelta(days=2)
# Of the events about invoices, the one that tells nothing new to whoever made the invoice.
_OWN_DOING: Final = "InvoiceCreated"


class BtcPayProvider(OneTimeProvider):
    """The adapter for one store of one BTCPay Server.

    Args:
        base_url: where the server is.
        api_key: a key with the permissions to create invoices, to modify them and to create pull payments.
        store_id: the store that is paid.
        webhook_secrets: the webhook's secret, several while one is rolled; empty refuses every webhook.
        lifetime: how long a payer has; the rate is fixed for so long.
    """

    def __init__(
        self,
        http: HttpClient,
        *,
        base_url: str,
        api_key: str,
        store_id: str,
        webhook_secrets: Sequence[str],
        lifetime: timedelta = timedelta(hours=1),
    ) -> None:
        self._api = ProviderApi(http, provider=PROVIDER, base_url=base_url, reason=_reason)
        self._headers = {"Authorization": f"token {api_key}"}
        self._store_id = store_id
        self._webhook_secrets = tuple(webhook_secrets)
        self._lifetime = lifetime
        # Servers before 2.4 know an invoice only below its store.
        self._is_older = False

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
            tells_refunds=False,
            withdraw=True,
            tells_expiry=True,
            may_differ=True,
            currencies=None,
            signature_header=SIGNATURE_HEADER,
            development_only=False,
        )

    def verify(self, *, body: bytes, headers: Mapping[str, str], now: datetime) -> VerifiedEvent:
        """See `PaymentProvider.verify`. No time is signed: a delivery sent again is known by its first one's id."""
        refuse_wrong_digest(
            body, headers, secrets=self._webhook_secrets, header=SIGNATURE_HEADER, provider="BTCPay", prefix="sha256="
        )
        payload = read_object(body, provider="BTCPay")
        event = Node(payload, "event")
        with reading_identity("BTCPay"):
            return VerifiedEvent(
                event_id=event.ref_or_none("originalDeliveryId") or event.ref("deliveryId"),
                account="",
                type=event.ref("type"),
                occurred_at=event.moment_or_none("timestamp") or now,
                payload=payload,
            )

    def to_fetch(self, event: VerifiedEvent) -> str | None:
        """See `PaymentProvider.to_fetch`."""
        if not event.type.startswith("Invoice") or event.type == _OWN_DOING:
            return None
        content = Node(event.payload, "event")
        # One webhook secret may serve several stores of an operator; another store's invoices are not ours.
        return content.ref("invoiceId") if content.ref_or_none("storeId") in (None, self._store_id) else None

    async def fetch_payment(self, reference: str) -> PaymentState | None:
        """See `PaymentProvider.fetch_payment`. Refunds are not part of an invoice and count as none here."""
        found = await self._fetch(reference)
        return None if found is None else found[0]

    async def list_events(self, *, since: datetime, until: datetime, cursor: str | None = None) -> EventPage:
        """See `PaymentProvider.list_events`: invoices as they stand, listed by when they were made."""
        skip = int(cursor or 0)
        begun = int((since - self._lifetime - _WATCHED).timestamp())
        query = {"startDate": begun, "endDate": int(until.timestamp()), "skip": skip, "take": _PAGE}
        answer = await self._api.call(
            "list_invoices",
            "GET",
            f"/api/v1/stores/{self._store_id}/invoices?{urlencode(query)}",
            repeatable=True,
            headers=self._headers,
        )
        with reading_answer():
            invoices = list(answer.required_rows("items"))
            events = tuple(_saw(invoice) for invoice in invoices if _has_moved(invoice))
        return EventPage(events=events, next_cursor=str(skip + _PAGE) if len(invoices) == _PAGE else None)

    async def refund(self, request: RefundRequest) -> RefundCreated:
        """See `PaymentProvider.refund`. Named after our id, the pull payment is found again instead of made twice."""
        state, methods = await self._fetched(request.session_id)
        name = f"refund {request.refund_id}"
        made = await self._refunded_before(name)
        if made is None:
            refuse_refund_beyond(request.amount, state.received - request.refunded_before)
            if state.status not in (PaymentStatus.PAID, PaymentStatus.UNDERPAID):
                raise ProviderRejected("The refund is not possible", details={"reason": "refund_not_possible"})
            method = paid_by(methods)
            made = await self._call_invoice(
                "refund",
                "POST",
                request.session_id,
                "/refund",
                repeatable=False,
                json_body={
                    "name": name,
                    "refundVariant": "Custom",
                    "customAmount": amount_text(request.amount, state.currency, currencies=None),
                    "customCurrency": state.currency,
                    # The first is read by servers before 2.4.1, the second by later ones.
                    **({"payoutMethodId": method, "payoutMethods": [method]} if method else {}),
                },
            )
        with reading_answer():
            return RefundCreated(
                refund_ref=made.ref("id"),
                status=RefundStatus.PENDING,
                amount=made.amount("amount"),
                claim_url=made.text_or_none("viewLink"),
            )

    async def withdraw(self, session_id: str) -> None:
        """See `PaymentProvider.withdraw`. Money that comes in spite of it is still told of, as an invalid invoice's."""
        state, _ = await self._fetched(session_id)
        if state.status in (PaymentStatus.CANCELLED, PaymentStatus.EXPIRED):
            return
        if state.status is not PaymentStatus.PENDING or state.received > 0:
            raise ProviderRejected(details={"reason": "being_paid"})
        await self._call_invoice(
            "withdraw", "POST", session_id, "/status", repeatable=True, json_body={"status": "Invalid"}
        )

    async def _open(self, order: Order) -> CheckoutCreated:
        amount = amount_text(order.amount, order.currency, currencies=None)
        invoice = await self._opened_before(order)
        if invoice is None:
            invoice = await self._api.call(
                "create_invoice",
                "POST",
                f"/api/v1/stores/{self._store_id}/invoices",
                # There are no idempotency keys; asking again searches first.
                repeatable=False,
                headers=self._headers,
                json_body={
                    "amount": amount,
                    "currency": order.currency,
                    "metadata": {
                        "orderId": str(order.tags.order_id),
                        "itemDesc": order.title,
                        **({"buyerEmail": order.customer_email} if order.customer_email else {}),
                        **tags_as_metadata(order.tags),
                    },
                    "checkout": {
                        "expirationMinutes": int(self._lifetime.total_seconds() // 60),
                        "redirectURL": order.success_url,
                        "redirectAutomatically": False,
                    },
                },
            )
        with reading_answer():
            return CheckoutCreated(
                session_id=invoice.ref("id"),
                url=invoice.text("checkoutLink"),
                customer_ref=None,
                expires_at=invoice.moment("expirationTime"),
            )

    async def _opened_before(self, order: Order) -> Node | None:
        """Find the invoice of an order, in case the answer to a first request was lost."""
        answer = await self._api.call(
            "find_invoice",
            "GET",
            f"/api/v1/stores/{self._store_id}/invoices?orderId={order.tags.order_id}",
            repeatable=True,
            headers=self._headers,
        )
        with reading_answer():
            found = (
                invoice
                for invoice in answer.rows("items")
                if tags_of_metadata(invoice.node_or_none("metadata")) == order.tags
            )
            return next(found, None)

    async def _refunded_before(self, name: str) -> Node | None:
        answer = await self._api.call(
            "find_refund",
            "GET",
            f"/api/v1/stores/{self._store_id}/pull-payments?includeArchived=true",
            repeatable=True,
            headers=self._headers,
        )
        with reading_answer():
            return next((made for made in answer.rows("items") if made.text_or_none("name") == name), None)

    async def _fetched(self, session_id: str) -> tuple[PaymentState, list[Node]]:
        found = await self._fetch(require_ref(session_id))
        if found is None:
            raise ProviderRejected(details={"reason": MISSING})
        return found

    async def _fetch(self, invoice_id: str) -> tuple[PaymentState, list[Node]] | None:
        if not known_ref(invoice_id):
            return None
        try:
            invoice = await self._call_invoice("fetch_payment", "GET", invoice_id, "", repeatable=True)
            answer = await self._call_invoice(
                "fetch_payment_methods", "GET", invoice_id, "/payment-methods", repeatable=True
            )
        except ProviderRejected as refusal:
            if is_missing(refusal):
                return None
            raise
        with reading_answer():
            methods = list(answer.rows("items"))
            if invoice.ref_or_none("storeId") not in (None, self._store_id):
                return None
            return read_invoice(invoice, methods), methods

    async def _call_invoice(
        self,
        operation: str,
        method: str,
        invoice_id: str,
        rest: str,
        *,
        repeatable: bool,
        json_body: Mapping[str, object] | None = None,
    ) -> Node:
        """Call an invoice's own address, which older servers have below the store."""
        below_store = f"/api/v1/stores/{self._store_id}/invoices/{require_ref(invoice_id)}{rest}"
        if not self._is_older:
            try:
                return await self._api.call(
                    operation,
                    method,
                    f"/api/v1/invoices/{invoice_id}{rest}",
                    repeatable=repeatable,
                    headers=self._headers,
                    json_body=json_body,
                )
            except ProviderRejected as refusal:
                # A server that knows the address but not the invoice says so by a code.
                if not is_missing(refusal) or refusal.details.get("code") is not None:
                    raise
        answer = await self._api.call(
            operation, method, below_store, repeatable=repeatable, headers=self._headers, json_body=json_body
        )
        self._is_older = True
        return answer


def _has_moved(invoice: Node) -> bool:
    """Tell whether an invoice of ours is more than made."""
    is_ours = tags_of_metadata(invoice.node_or_none("metadata")) is not None
    return is_ours and (invoice.text("status") != "New" or bool(invoice.amount_or_none("paidAmount")))


def _saw(invoice: Node) -> VerifiedEvent:
    words = (invoice.text("status"), invoice.text_or_none("additionalStatus"), invoice.amount_or_none("paidAmount"))
    return saw_payment(invoice.ref("id"), *words, at=invoice.moment("createdTime"))


def _reason(answer: Node) -> str | None:
    return answer.text_or_none("code")
