"""The sandbox's desk: what its hosted page shows, and the signed event that a press of a button becomes.

Development only: without the sandbox among the providers there is no desk (providers/payments/sandbox.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final

from sqlalchemy import select

from core.errors import DomainError, ErrorKind
from models.billing import BillingPeriod, CheckoutSession, CheckoutState
from providers.payments import PaymentProvider
from providers.payments.sandbox import SIGNATURE_HEADER, SandboxProvider
from providers.payments.sandbox_events import declined_event, expired_event, paid_event
from providers.payments.sandbox_session import SandboxSession, SandboxSessionUnknown
from services.unit_of_work import UnitOfWork

# Stripe fills in this place of the address that a payer returns to, so clients count on it.
_SESSION_PLACE: Final = "{CHECKOUT_SESSION_ID}"


class SandboxAction(StrEnum):
    """What the payer does."""

    PAY = "pay"
    DECLINE = "decline"
    EXPIRE = "expire"


class SandboxSessionClosed(DomainError):
    """The session has expired, so nothing can be done with it any more."""

    kind = ErrorKind.CONFLICT
    code = "CONFLICT"
    message = "This payment page is closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxPage:
    """All that the page shows; `state` tells whether its buttons still do anything."""

    session_id: str
    plan_name: str
    billing_period: BillingPeriod
    amount: Decimal
    currency: str
    customer_email: str | None
    expires_at: datetime
    state: CheckoutState
    success_url: str
    cancel_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxEvent:
    """A signed event to POST to our webhook route, and where the payer goes once it is taken."""

    body: bytes
    headers: Mapping[str, str]
    return_url: str


class SandboxDesk:
    """Opens the sandbox's sessions; every method raises SandboxSessionUnknown for an address that we did not make."""

    def __init__(self, providers: Mapping[str, PaymentProvider]) -> None:
        self._provider = next(
            (provider for provider in providers.values() if isinstance(provider, SandboxProvider)), None
        )

    async def page(self, uow: UnitOfWork, *, session_id: str, token: str) -> SandboxPage:
        """Show a session; needs a PlatformScope, for the address is all that a payer has."""
        _, session = self._open(session_id, token)
        return SandboxPage(
            session_id=session.session_id,
            plan_name=session.plan_name,
            billing_period=BillingPeriod(session.purchase.billing_period),
            amount=session.amount,
            currency=session.currency,
            customer_email=session.customer_email,
            expires_at=session.expires_at,
            state=await _state(uow, session),
            success_url=_with_session(session.success_url, session),
            cancel_url=_with_session(session.cancel_url, session),
        )

    async def act(self, uow: UnitOfWork, action: SandboxAction, *, session_id: str, token: str) -> SandboxEvent:
        """Turn a press of a button into an event; needs a PlatformScope. Raises SandboxSessionClosed."""
        provider, session = self._open(session_id, token)
        state = await _state(uow, session)
        if state is CheckoutState.EXPIRED:
            raise SandboxSessionClosed
        # A second press after the payment repeats its event, which has an effect only once.
        paid = action is SandboxAction.PAY or state is CheckoutState.PAID
        build = paid_event if paid else declined_event if action is SandboxAction.DECLINE else expired_event
        body = build(session, at=uow.now)
        return SandboxEvent(
            body=body,
            headers={"Content-Type": "application/json", SIGNATURE_HEADER: provider.sign(body, uow.now)},
            return_url=_with_session(session.success_url if paid else session.cancel_url, session),
        )

    def _open(self, session_id: str, token: str) -> tuple[SandboxProvider, SandboxSession]:
        if self._provider is None:
            raise SandboxSessionUnknown
        return self._provider, self._provider.open_session(session_id, token)


async def _state(uow: UnitOfWork, session: SandboxSession) -> CheckoutState:
    """Tell how the checkout stands; a declined one is still open, for another card may do."""
    stored = await uow.session.scalar(
        select(CheckoutSession.state).where(CheckoutSession.id == session.purchase.checkout_id)
    )
    if stored is None:
        # The address outlived its checkout, such as in a database that was made anew.
        raise SandboxSessionUnknown
    if stored is CheckoutState.PAID:
        return CheckoutState.PAID
    is_late = uow.now >= session.expires_at
    return CheckoutState.EXPIRED if stored is CheckoutState.EXPIRED or is_late else CheckoutState.PENDING


def _with_session(url: str, session: SandboxSession) -> str:
    return url.replace(_SESSION_PLACE, session.session_id)
