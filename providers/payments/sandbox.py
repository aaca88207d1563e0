"""The sandbox: the payment provider of development, with a hosted page on our own server and real signatures.

It walks the true path. `create_checkout` answers with the address of a page; the page shows the purchase and,
on pay, decline or expire, POSTs an event of this module over HTTP to our own webhook route, signed like a
stranger's. What the page (an aiohttp handler that lives elsewhere) needs is exactly:

* `SandboxProvider.open_session(session_id, token)`, where both come from the address,
  `/sandbox/pay/{session_id}` and its query parameter `TOKEN_PARAMETER`: all there is to show, and where to
  send the payer afterwards.
* `paid_event`, `declined_event` and `expired_event`, which build the body to POST.
* `SandboxProvider.sign`, whose value goes into the header `SIGNATURE_HEADER`.

No store is needed and restarts lose nothing: the session travels in the address, sealed with our secret. The
session id is short (it fits any column) and cannot be guessed, for half of it is a keyed hash. Like a real
provider's page, the address is all that a payer needs, so it must be shown to nobody else.

Nothing of this may run in production: `capabilities.development_only` says so, and `server/wiring.py` obeys.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from core import json
from core.clock import Clock
from core.errors import NotFound
from core.money import exponent
from providers.payments.contract import (
    BadSignature,
    Capabilities,
    CheckoutCreated,
    CheckoutRequest,
    ProviderRejected,
    SignatureFault,
    VerifiedEvent,
)
from providers.payments.facts import (
    BillingPeriod,
    CheckoutExpired,
    CheckoutFailed,
    CheckoutPaid,
    Fact,
    Purchase,
    Source,
    SubscriptionState,
)
from providers.payments.reading import Node, read_envelope
from providers.payments.signature import find_header, parse_signature_header, refuse_wrong_time

PROVIDER: Final = "sandbox"
SIGNATURE_HEADER: Final = "Sandbox-Signature"
TOKEN_PARAMETER: Final = "token"  # noqa: S105 - the name of a query parameter, not a token
SESSION_LIFETIME: Final = timedelta(hours=24)

_PAID: Final = "checkout.paid"
_DECLINED: Final = "checkout.declined"
_EXPIRED: Final = "checkout.expired"
_PERIODS: Final[dict[str, BillingPeriod]] = {"monthly": "monthly", "yearly": "yearly"}


class SandboxSessionUnknown(NotFound):
    """The address of a sandbox page is not one that we made."""

    message = "This payment page does not exist"


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSession:
    """All that the hosted page shows, and all that its events tell."""

    session_id: str
    purchase: Purchase
    plan_name: str
    amount: Decimal
    currency: str
    customer_email: str | None
    customer_ref: str
    subscription_ref: str
    success_url: str
    cancel_url: str
    expires_at: datetime


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
        return Capabilities(recurring=False, fetch_subscription=False, development_only=True)

    async def create_checkout(self, request: CheckoutRequest) -> CheckoutCreated:
        """See `PaymentProvider.create_checkout`."""
        fits = request.amount.is_finite() and request.amount >= 0
        if not fits or request.amount.scaleb(exponent(request.currency)) % 1 != 0:
            raise ProviderRejected(
                f"{request.amount} {request.currency} cannot be charged",
                details={"reason": "amount_not_payable"},
            )
        session = SandboxSession(
            session_id=self._mint("cs", request.checkout_id),
            purchase=Purchase(
                checkout_id=request.checkout_id,
                tenant_id=request.tenant_id,
                plan_id=request.plan_id,
                billing_period=request.billing_period,
            ),
            plan_name=request.plan_name,
            amount=request.amount,
            currency=request.currency.upper(),
            customer_email=request.customer_email,
            customer_ref=request.customer_ref or self._mint("cus", request.tenant_id),
            subscription_ref=self._mint("sub", request.checkout_id),
            success_url=request.success_url,
            cancel_url=request.cancel_url,
            expires_at=self._clock.now() + SESSION_LIFETIME,
        )
        query = urlencode({TOKEN_PARAMETER: self._seal(json.dumps(_session_fields(session)))})
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
        session = _read_session(Node(fields, "session"))
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
        if event.type not in {_PAID, _DECLINED, _EXPIRED}:
            return ()
        session = _read_session(Node(event.payload, "event").node("session"))
        return (_fact(event, session),)

    async def cancel(self, subscription_ref: str, *, at_period_end: bool) -> None:  # noqa: ARG002 - see below
        """See `PaymentProvider.cancel`. Nobody is ever charged again here, so there is nothing to stop."""
        if not self._minted("sub", subscription_ref):
            raise ProviderRejected(details={"reason": "resource_missing"})

    async def fetch_subscription(self, subscription_ref: str) -> SubscriptionState | None:  # noqa: ARG002
        """See `PaymentProvider.fetch_subscription`. The sandbox remembers nothing, so it cannot tell."""
        raise ProviderRejected("The sandbox keeps no subscriptions", details={"reason": "not_supported"})

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


def paid_event(session: SandboxSession, *, at: datetime) -> bytes:
    """Build the body that says the session is paid.

    Its event id depends on the session alone, so paying twice (a double click) is one event delivered twice.
    """
    return _event(_PAID, f"sbx_evt_paid_{session.session_id}", session, at=at)


def declined_event(session: SandboxSession, *, at: datetime) -> bytes:
    """Build the body that says a payment was declined at `at`; a second try that fails is another event."""
    return _event(_DECLINED, f"sbx_evt_declined_{int(at.timestamp())}_{session.session_id}", session, at=at)


def expired_event(session: SandboxSession, *, at: datetime) -> bytes:
    """Build the body that says nobody paid in time; like `paid_event`, one event per session."""
    return _event(_EXPIRED, f"sbx_evt_expired_{session.session_id}", session, at=at)


def _event(kind: str, event_id: str, session: SandboxSession, *, at: datetime) -> bytes:
    return json.dumps(
        {"id": event_id, "type": kind, "created": int(at.timestamp()), "session": _session_fields(session)}
    )


def _fact(event: VerifiedEvent, session: SandboxSession) -> Fact:
    source = Source(provider=PROVIDER, event_id=event.event_id, occurred_at=event.occurred_at)
    if event.type == _EXPIRED:
        return CheckoutExpired(**source, session_id=session.session_id, purchase=session.purchase)
    if event.type == _DECLINED:
        return CheckoutFailed(
            **source,
            session_id=session.session_id,
            purchase=session.purchase,
            amount=session.amount,
            currency=session.currency,
        )
    return CheckoutPaid(
        **source,
        session_id=session.session_id,
        purchase=session.purchase,
        customer_ref=session.customer_ref,
        subscription_ref=session.subscription_ref,
        invoice_ref=None,
        payment_ref=session.session_id,
        payment_key=session.session_id,
        amount=session.amount,
        currency=session.currency,
    )


def _session_fields(session: SandboxSession) -> dict[str, object]:
    return {
        "id": session.session_id,
        "checkout_id": str(session.purchase.checkout_id),
        "tenant_id": str(session.purchase.tenant_id),
        "plan_id": str(session.purchase.plan_id),
        "billing_period": session.purchase.billing_period,
        "plan_name": session.plan_name,
        # As text: JSON numbers turn into floats on the way back.
        "amount": str(session.amount),
        "currency": session.currency,
        "customer_email": session.customer_email,
        "customer": session.customer_ref,
        "subscription": session.subscription_ref,
        "success_url": session.success_url,
        "cancel_url": session.cancel_url,
        "expires_at": int(session.expires_at.timestamp()),
    }


def _read_session(fields: Node) -> SandboxSession:
    period = _PERIODS.get(fields.text("billing_period"))
    if period is None:
        fields.refuse("billing_period", "is neither monthly nor yearly")
    return SandboxSession(
        session_id=fields.ref("id"),
        purchase=Purchase(
            checkout_id=fields.uuid("checkout_id"),
            tenant_id=fields.uuid("tenant_id"),
            plan_id=fields.uuid("plan_id"),
            billing_period=period,
        ),
        plan_name=fields.text("plan_name"),
        amount=_read_amount(fields),
        currency=fields.text("currency"),
        customer_email=fields.text_or_none("customer_email"),
        customer_ref=fields.ref("customer"),
        subscription_ref=fields.ref("subscription"),
        success_url=fields.text("success_url"),
        cancel_url=fields.text("cancel_url"),
        expires_at=fields.moment("expires_at"),
    )


def _read_amount(fields: Node) -> Decimal:
    try:
        amount = Decimal(fields.text("amount"))
    except InvalidOperation:
        return fields.refuse("amount", "is not an amount")
    return amount if amount.is_finite() and amount >= 0 else fields.refuse("amount", "is not an amount")


def _digest(key: bytes, content: bytes) -> bytes:
    return hmac.new(key, content, hashlib.sha256).digest()


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
