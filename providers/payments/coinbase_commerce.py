"""Coinbase Commerce, which Coinbase closed on 2026-03-31: kept for charges of before, and for those who still have it.

Wire facts are in providers.md 2.4. Its refunds were made by hand in the wallet, so there are none here.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

from providers.http import HttpClient
from providers.payments.api import ProviderApi, is_missing, known_ref, reading_answer, require_ref
from providers.payments.contract import (
    Capabilities,
    CheckoutCreated,
    EventPage,
    RefundCreated,
    RefundRequest,
    VerifiedEvent,
)
from providers.payments.errors import ProviderRejected
from providers.payments.one_time import OneTimeProvider, not_supported
from providers.payments.orders import (
    Order,
    amount_text,
    tags_as_metadata,
    tags_of_metadata,
)
from providers.payments.payment_state import PaymentState, PaymentStatus
from providers.payments.reading import Node, read_object, reading_identity
from providers.payments.signature import refuse_wrong_digest

PROVIDER: Final = "coinbase_commerce"
SIGNATURE_HEADER: Final = "X-CC-Webhook-Signature"
DEFAULT_API_BASE: Final = "https://api.commerce.coinbase.com"
API_VERSION: Final = "2018-03-22"

_STATUSES: Final = {
    "NEW": PaymentStatus.PENDING,
    "SIGNED": PaymentStatus.PENDING,
    "PENDING": PaymentStatus.PROCESSING,
    "COMPLETED": PaymentStatus.PAID,
    "RESOLVED": PaymentStatus.PAID,
    "EXPIRED": PaymentStatus.EXPIRED,
    "CANCELED": PaymentStatus.CANCELLED,
    "FAILED": PaymentStatus.FAILED,
}
# How many of the newest charges are searched for one that a lost answer hid from us, and how many events at once.
_SEARCHED: Final = 100


class CoinbaseCommerceProvider(OneTimeProvider):
    """The adapter for one Coinbase Commerce account.

    Args:
        api_key: the account's key.
        webhook_secrets: the shared secrets, several while one is rolled; empty refuses every webhook.
        api_base: where the API is.
    """

    def __init__(
        self, http: HttpClient, *, api_key: str, webhook_secrets: Sequence[str], api_base: str = DEFAULT_API_BASE
    ) -> None:
        self._api = ProviderApi(http, provider=PROVIDER, base_url=api_base, reason=_reason)
        self._headers = {"X-CC-Api-Key": api_key, "X-CC-Version": API_VERSION}
        self._webhook_secrets = tuple(webhook_secrets)

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
            refund=False,
            tells_refunds=False,
            withdraw=True,
            tells_expiry=True,
            may_differ=True,
            currencies=None,
            signature_header=SIGNATURE_HEADER,
            development_only=False,
        )

    def verify(self, *, body: bytes, headers: Mapping[str, str], now: datetime) -> VerifiedEvent:
        """See `PaymentProvider.verify`. No time is signed: an event sent again is known by its id."""
        refuse_wrong_digest(
            body, headers, secrets=self._webhook_secrets, header=SIGNATURE_HEADER, provider="Coinbase Commerce"
        )
        return _envelope(read_object(body, provider="Coinbase Commerce"), at=now)

    def to_fetch(self, event: VerifiedEvent) -> str | None:
        """See `PaymentProvider.to_fetch`."""
        if not event.type.startswith("charge:"):
            return None
        charge = Node(event.payload, "delivery").node("event").node("data")
        if charge.text_or_none("pricing_type") == "no_price":
            # A donation, which we never ask for.
            return None
        return charge.ref_or_none("id") or charge.ref("code")

    async def fetch_payment(self, reference: str) -> PaymentState | None:
        """See `PaymentProvider.fetch_payment`."""
        if not known_ref(reference):
            return None
        try:
            answer = await self._call("fetch_payment", "GET", f"/charges/{reference}", repeatable=True)
        except ProviderRejected as refusal:
            if is_missing(refusal):
                return None
            raise
        with reading_answer():
            return _read_state(answer.node("data"))

    async def list_events(self, *, since: datetime, until: datetime, cursor: str | None = None) -> EventPage:
        """See `PaymentProvider.list_events`: the newest first, since no times can be asked for."""
        after = "" if cursor is None else f"&starting_after={require_ref(cursor)}"
        answer = await self._call("list_events", "GET", f"/events?limit={_SEARCHED}&order=desc{after}", repeatable=True)
        with reading_answer():
            # As a webhook brings it, the event stands within a delivery.
            listed = [_envelope({"event": row.data}, at=until) for row in answer.required_rows("data")]
            is_more = "next_uri" in answer.node("pagination")
        events = tuple(event for event in listed if since <= event.occurred_at <= until)
        is_over = not listed or listed[-1].occurred_at < since or not is_more
        return EventPage(events=events, next_cursor=None if is_over else listed[-1].event_id)

    async def refund(self, request: RefundRequest) -> RefundCreated:  # noqa: ARG002
        """See `PaymentProvider.refund`."""
        raise not_supported()

    async def withdraw(self, session_id: str) -> None:
        """See `PaymentProvider.withdraw`."""
        try:
            await self._call("withdraw", "POST", f"/charges/{require_ref(session_id)}/cancel", repeatable=True)
        except ProviderRejected:
            # Only a charge that waits can be cancelled; one that is over already is all that was asked for.
            state = await self.fetch_payment(session_id)
            if state is None or state.status not in (PaymentStatus.CANCELLED, PaymentStatus.EXPIRED):
                raise

    async def _open(self, order: Order) -> CheckoutCreated:
        amount = amount_text(order.amount, order.currency, currencies=None)
        charge = await self._opened_before(order)
        if charge is None:
            answer = await self._call(
                "create_charge",
                "POST",
                "/charges",
                # There are no idempotency keys; asking again searches first.
                repeatable=False,
                json_body={
                    "name": order.title[:100],
                    "description": order.title[:200],
                    "pricing_type": "fixed_price",
                    "local_price": {"amount": amount, "currency": order.currency},
                    "metadata": tags_as_metadata(order.tags),
                    "redirect_url": order.success_url,
                    "cancel_url": order.cancel_url,
                },
            )
            charge = answer
        with reading_answer():
            data = charge.node("data") if "data" in charge else charge
            return CheckoutCreated(
                session_id=data.ref("id"),
                url=data.text("hosted_url"),
                customer_ref=None,
                expires_at=data.instant("expires_at"),
            )

    async def _opened_before(self, order: Order) -> Node | None:
        """Find the charge of an order among the newest, in case the answer to a first request was lost."""
        answer = await self._call("find_charge", "GET", f"/charges?limit={_SEARCHED}&order=desc", repeatable=True)
        with reading_answer():
            found = (
                charge
                for charge in answer.rows("data")
                if tags_of_metadata(charge.node_or_none("metadata")) == order.tags
            )
            return next(found, None)

    async def _call(
        self,
        operation: str,
        method: str,
        path: str,
        *,
        repeatable: bool,
        json_body: Mapping[str, object] | None = None,
    ) -> Node:
        return await self._api.call(
            operation, method, path, repeatable=repeatable, headers=self._headers, json_body=json_body
        )


def _envelope(payload: Mapping[str, object], *, at: datetime) -> VerifiedEvent:
    with reading_identity("Coinbase Commerce"):
        # The outer id and the number of the attempt change with each delivery; the event's own do not.
        event = Node(payload, "delivery").node("event")
        return VerifiedEvent(
            event_id=event.ref("id"),
            account="",
            type=event.ref("type"),
            occurred_at=event.instant_or_none("created_at") or at,
            payload=dict(payload),
        )


def _reason(answer: Node) -> str | None:
    error = answer.node_or_none("error")
    return None if error is None else error.text_or_none("type")


def _read_state(charge: Node) -> PaymentState | None:
    if "pricing" not in charge:
        # Without a price it is a donation, which we never ask for.
        return None
    price = charge.node("pricing").node("local")
    asked, currency = price.amount("amount"), price.currency("currency")
    received = sum((_received(payment, currency) for payment in charge.rows("payments")), Decimal(0))
    entries = list(charge.rows("timeline"))
    last = entries[-1] if entries else charge
    word, context = (last.text("status"), last.text_or_none("context")) if entries else ("NEW", None)
    status = _status(word, asked=asked, received=received)
    if status is PaymentStatus.PAID:
        # An operator who resolved a charge by hand has decided that it is paid.
        received = max(received, asked)
    charge_id = charge.ref("id")
    return PaymentState(
        session_id=charge_id,
        tags=tags_of_metadata(charge.node_or_none("metadata")),
        status=status,
        provider_status=word if context is None else f"{word}/{context}",
        asked=asked,
        received=received,
        refunded=Decimal(0),
        currency=currency,
        payment_key=charge_id,
        payment_ref=charge_id,
        invoice_ref=None,
        subscription_ref=None,
        customer_ref=None,
        is_late=any(entry.text_or_none("context") == "DELAYED" for entry in entries),
        is_test=False,
        paid_at=_paid_at(entries) if status is PaymentStatus.PAID else None,
        changed_at=last.instant("time") if entries else charge.instant("created_at"),
    )


def _paid_at(entries: Sequence[Node]) -> datetime | None:
    # What was paid late or in parts was never completed: the first word that tells of all of it counts.
    done = ("COMPLETED", "RESOLVED", "UNRESOLVED")
    return next((entry.instant("time") for entry in entries if entry.text("status") in done), None)


def _status(word: str, *, asked: Decimal, received: Decimal) -> PaymentStatus:
    if word == "UNRESOLVED":
        # Underpaid, overpaid, delayed or paid in several parts: what has come decides, not the word for it.
        return PaymentStatus.PAID if received >= asked else PaymentStatus.UNDERPAID
    return _STATUSES.get(word, PaymentStatus.PENDING)


def _received(payment: Node, currency: str) -> Decimal:
    if (payment.text_or_none("status") or "").upper() == "FAILED":
        return Decimal(0)
    local = payment.node("value").node("local")
    return local.amount("amount") if local.currency("currency") == currency else Decimal(0)
