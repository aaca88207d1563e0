"""The sandbox: the payment provider of development, with a hosted page on our own server and real signatures.

It walks the true path. `create_checkout` answers with the address of a page; the page shows the purchase and,
on pay, decline or expire, POSTs an event over HTTP to our own webhook route, signed like a stranger's. What the page
(an aiohttp handler that lives elsewhere) needs is exactly:

* `SandboxProvider.open_session(session_id, token)`, where both come from the address,
  `/sandbox/pay/{session_id}` and its query parameter `TOKEN_PARAMETER`: all there is to show, and where to
  send the payer afterwards.
* `paid_event`, `declined_event` and `expired_event` (sandbox_events.py), which build the body to POST.
* `SandboxProvider.sign`, whose value goes into the header `SIGNATURE_HEADER`.

No store is needed and restarts lose nothing: the session travels in the address, sealed with our secret. The
session id is short (it fits any column) and cannot be guessed, for half of it is a keyed hash. Like a real
provider's page, the address is all that a payer needs, so it must be shown to nobody else.

Nothing of this may run in production: `capabilities.development_only` says so, and `server/payments.py` obeys.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from core import json
from core.clock import Clock
from core.money import exponent
from providers.payments.contract import (
    Capabilities,
    CheckoutCreated,
    CheckoutRequest,
    EventPage,
    InvoiceRequest,
    RefundCreated,
    RefundRequest,
    RefundStatus,
    Terms,
    VerifiedEvent,
)
from providers.payments.errors import BadSignature, ProviderRejected, SignatureFault
from providers.payments.facts import Fact, Fee, GoneBack, SubscriptionState
from providers.payments.orders import Order, order_of_checkout, order_of_invoice
from providers.payments.payment_state import PaymentState
from providers.payments.reading import Node, read_envelope
from providers.payments.sandbox_events import PROVIDER, STATUSES, fact_of_event, state_of_session
from providers.payments.sandbox_session import SandboxSession, SandboxSessionUnknown, read_session, session_fields
from providers.payments.signature import find_header, parse_signature_header, refuse_wrong_time

SIGNATURE_HEADER: Final = "Sandbox-Signature"
TOKEN_PARAMETER: Final = "token"  # noqa: S105 - the name of a query parameter, not a token
SESSION_LIFETIME: Final = timedelta(hours=24)


class SandboxProvider:
    """The adapter.

    Args:
        secret: seals sessions and signs events; any text that is kept over restarts.
        base_url: where our own server is reached by the payer, without a trailing slash or with one.
        clock: tells when a new session expires.
    """

    def __init__(self, secret: str, base_url: str, *, clock: Clock) -> None:
        # One key per purpose, so that nothing sealed for an address can pass for a signed event.
        self._session_key = _digest(secret.encode(), b"sandbox session")
        self._webhook_key = _digest(secret.encode(), b"sandbox webhook")
        self._base_url = base_url.rstrip("/")
        self._clock = clock

    @property
    def name(self) -> str:
        return PROVIDER

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            recurring=False,
            fetch_subscription=False,
            fetch_payment=False,
            list_events=False,
            capture=False,
            refund=True,
            tells_refunds=True,
            withdraw=False,
            tells_expiry=True,
            may_differ=False,
            currencies=None,
            signature_header=SIGNATURE_HEADER,
            development_only=True,
        )

    async def prepare(self, headers: Mapping[str, str]) -> None:
        """See `PaymentProvider.prepare`: there is nothing to fetch."""

    async def create_checkout(self, request: CheckoutRequest) -> CheckoutCreated:
        """See `PaymentProvider.create_checkout`."""
        return self._open(order_of_checkout(request), customer_ref=request.customer_ref)

    async def create_invoice(self, request: InvoiceRequest) -> CheckoutCreated:
        """See `PaymentProvider.create_invoice`."""
        return self._open(order_of_invoice(request), customer_ref=None)

    def _open(self, order: Order, *, customer_ref: str | None) -> CheckoutCreated:
        fits = order.amount.is_finite() and order.amount >= 0
        if not fits or order.amount.scaleb(exponent(order.currency)) % 1 != 0:
            raise ProviderRejected(
                f"{order.amount} {order.currency} cannot be charged",
                details={"reason": "amount_not_payable"},
            )
        session = SandboxSession(
            session_id=self._mint("cs", order.tags.order_id),
            tags=order.tags,
            plan_name=order.title,
            amount=order.amount,
            currency=order.currency,
            customer_email=order.customer_email,
            customer_ref=customer_ref or self._mint("cus", order.tags.tenant_id),
            subscription_ref=self._mint("sub", order.tags.order_id),
            success_url=order.success_url,
            cancel_url=order.cancel_url,
            expires_at=self._clock.now() + SESSION_LIFETIME,
        )
        query = urlencode({TOKEN_PARAMETER: self._seal(json.dumps(session_fields(session)))})
        return CheckoutCreated(
            session_id=session.session_id,
            url=f"{self._base_url}/sandbox/pay/{session.session_id}?{query}",
            customer_ref=session.customer_ref,
            expires_at=session.expires_at,
        )

    def open_session(self, session_id: str, token: str) -> SandboxSession:
        """Read the session behind a page's address; whether it has expired is for the page to say.

        Raises:
            SandboxSessionUnknown: the token is not ours, or belongs to another session.
        """
        fields = self._unseal(token)
        if fields is None:
            raise SandboxSessionUnknown
        session = read_session(Node(fields, "session"))
        if session.session_id != session_id:
            raise SandboxSessionUnknown
        return session

    def sign(self, body: bytes, at: datetime) -> str:
        """Sign an event's exact bytes as sent at `at`: the value of `SIGNATURE_HEADER`."""
        timestamp = int(at.timestamp())
        return f"t={timestamp},v1={self._signature(timestamp, body)}"

    def verify(self, *, body: bytes, headers: Mapping[str, str], now: datetime) -> VerifiedEvent:
        """See `PaymentProvider.verify`."""
        signed = parse_signature_header(find_header(headers, SIGNATURE_HEADER), provider="Sandbox")
        expected = self._signature(signed.timestamp, body)
        if not any(hmac.compare_digest(expected, signature) for signature in signed.signatures):
            raise BadSignature(SignatureFault.INVALID_SIGNATURE, "Invalid Sandbox webhook signature")
        refuse_wrong_time(signed.timestamp, now=now, provider="Sandbox")
        return read_envelope(body, provider="Sandbox", signed_at=signed.signed_at)

    def interpret(self, event: VerifiedEvent) -> tuple[Fact, ...]:
        """See `PaymentProvider.interpret`."""
        if event.type not in STATUSES:
            return ()
        session = read_session(Node(event.payload, "event").node("session"))
        return () if session.tags.purchase is None else (fact_of_event(event, session),)

    def to_fetch(self, event: VerifiedEvent) -> str | None:
        """See `PaymentProvider.to_fetch`. Of an invoice the event is all that there is, so it is named by itself."""
        if event.type not in STATUSES:
            return None
        session = read_session(Node(event.payload, "event").node("session"))
        if session.tags.purchase is not None:
            return None
        told = {"type": event.type, "at": event.occurred_at, "session": session_fields(session)}
        return self._seal(json.dumps(told))

    async def fetch_payment(self, reference: str) -> PaymentState | None:
        """See `PaymentProvider.fetch_payment`. The sandbox remembers nothing but what `to_fetch` has named."""
        fields = self._unseal(reference)
        if fields is None or "type" not in fields:
            return None
        told = Node(fields, "reference")
        return state_of_session(read_session(told.node("session")), kind=told.text("type"), at=told.instant("at"))

    async def fetch_fee(self, payment_ref: str) -> Fee | None:  # noqa: ARG002 - of the contract
        """See `PaymentProvider.fetch_fee`. Play money costs nothing."""
        return None

    async def fetch_refunded(self, payment_ref: str) -> GoneBack | None:  # noqa: ARG002 - of the contract
        """See `PaymentProvider.fetch_refunded`. Play money always arrives."""
        return None

    async def capture(self, session_id: str) -> PaymentState:  # noqa: ARG002 - of the contract
        """See `PaymentProvider.capture`: nothing is ever waiting to be captured."""
        raise ProviderRejected("The sandbox keeps no payments", details={"reason": "not_supported"})

    async def refund(self, request: RefundRequest) -> RefundCreated:
        """See `PaymentProvider.refund`. Play money goes back at once."""
        fits = request.amount.is_finite() and request.amount > 0
        if not self._minted("cs", request.session_id) or not fits:
            raise ProviderRejected("The refund is not possible", details={"reason": "refund_not_possible"})
        return RefundCreated(
            refund_ref=self._mint("re", request.refund_id),
            status=RefundStatus.SUCCEEDED,
            amount=request.amount,
            claim_url=None,
        )

    async def withdraw(self, session_id: str) -> None:  # noqa: ARG002 - of the contract
        """See `PaymentProvider.withdraw`: an address stays good until it runs out."""
        raise ProviderRejected(details={"reason": "not_supported"})

    async def cancel(self, subscription_ref: str, *, at_period_end: bool) -> None:  # noqa: ARG002 - see below
        """See `PaymentProvider.cancel`. Nobody is ever charged again here, so there is nothing to stop."""
        if not self._minted("sub", subscription_ref):
            raise ProviderRejected(details={"reason": "resource_missing"})

    async def resume(self, subscription_ref: str) -> None:
        """See `PaymentProvider.resume`. Nobody is ever charged again here, so there is nothing to go on with."""
        await self.cancel(subscription_ref, at_period_end=True)

    async def reprice(self, subscription_ref: str, terms: Terms) -> None:  # noqa: ARG002 - see below
        """See `PaymentProvider.reprice`. Likewise."""
        await self.cancel(subscription_ref, at_period_end=True)

    async def collect(self, invoice_ref: str) -> None:  # noqa: ARG002 - see below
        """See `PaymentProvider.collect`. The sandbox issues no bills."""
        raise ProviderRejected("The sandbox collects nothing", details={"reason": "not_supported"})

    async def fetch_subscription(self, subscription_ref: str) -> SubscriptionState | None:  # noqa: ARG002
        """See `PaymentProvider.fetch_subscription`. The sandbox remembers nothing, so it cannot tell."""
        raise ProviderRejected("The sandbox keeps no subscriptions", details={"reason": "not_supported"})

    async def list_events(
        self,
        *,
        since: datetime,  # noqa: ARG002 - of the contract
        until: datetime,  # noqa: ARG002 - likewise
        cursor: str | None = None,  # noqa: ARG002 - likewise
    ) -> EventPage:
        """See `PaymentProvider.list_events`. The sandbox remembers nothing: a press of its buttons is the event."""
        raise ProviderRejected("The sandbox keeps no events", details={"reason": "not_supported"})

    async def aclose(self) -> None:
        """See `PaymentProvider.aclose`."""

    def _mint(self, kind: str, seed: UUID) -> str:
        """Make a reference that is the same for the same seed and that nobody else can make."""
        stem = f"sbx_{kind}_{seed.hex}"
        return stem + _digest(self._session_key, stem.encode()).hex()[:32]

    def _minted(self, kind: str, ref: str) -> bool:
        stem_length = len(f"sbx_{kind}_") + 32
        try:
            seed = UUID(ref[stem_length - 32 : stem_length])
        except ValueError:
            return False
        return hmac.compare_digest(self._mint(kind, seed).encode(), ref.encode())

    def _seal(self, content: bytes) -> str:
        return _base64(content) + "." + _base64(_digest(self._session_key, content))

    def _unseal(self, token: str) -> dict[str, object] | None:
        encoded, _, seal = token.partition(".")
        try:
            content = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
        except (binascii.Error, ValueError):
            return None
        expected = _base64(_digest(self._session_key, content))
        if not hmac.compare_digest(expected.encode(), seal.encode("utf-8", "replace")):
            return None
        fields: dict[str, object] = json.loads(content)
        return fields

    def _signature(self, timestamp: int, body: bytes) -> str:
        return _digest(self._webhook_key, str(timestamp).encode() + b"." + body).hex()


def _digest(key: bytes, content: bytes) -> bytes:
    return hmac.new(key, content, hashlib.sha256).digest()


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
