"""The sandbox's events: the bodies that its page sends, and what they mean."""

from datetime import datetime
from decimal import Decimal
from typing import Final

from core import json
from providers.payments.contract import VerifiedEvent
from providers.payments.facts import CheckoutExpired, CheckoutFailed, CheckoutPaid, Fact, Source
from providers.payments.payment_state import PaymentState, PaymentStatus
from providers.payments.sandbox_session import SandboxSession, session_fields

PROVIDER: Final = "sandbox"

_PAID: Final = "checkout.paid"
_DECLINED: Final = "checkout.declined"
_EXPIRED: Final = "checkout.expired"
STATUSES: Final = {
    _PAID: PaymentStatus.PAID,
    _DECLINED: PaymentStatus.FAILED,
    _EXPIRED: PaymentStatus.EXPIRED,
}


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
        {"id": event_id, "type": kind, "created": int(at.timestamp()), "session": session_fields(session)}
    )


def fact_of_event(event: VerifiedEvent, session: SandboxSession) -> Fact:
    """Say in our own words what an event tells of a plan's purchase."""
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


def state_of_session(session: SandboxSession, *, kind: str, at: datetime) -> PaymentState:
    """Say what has become of an invoice's payment by an event of this kind."""
    return PaymentState(
        session_id=session.session_id,
        tags=session.tags,
        status=STATUSES[kind],
        provider_status=kind,
        asked=session.amount,
        received=session.amount if kind == _PAID else Decimal(0),
        refunded=Decimal(0),
        currency=session.currency,
        payment_key=session.session_id,
        payment_ref=session.session_id,
        invoice_ref=None,
        subscription_ref=None,
        customer_ref=session.customer_ref,
        is_late=False,
        is_test=True,
        changed_at=at,
        paid_at=at if kind == _PAID else None,
    )
