"""What nobody told us but we saw ourselves when we looked at a provider: events of our own making, for the inbox.

Their ids follow from what was seen, so the same sight is taken in once however often we look. They hold no amounts:
whoever acts on one asks the provider again, for what is fetched last is the truth.
"""

import hashlib
from datetime import datetime, timedelta
from typing import Final

from providers.payments.contract import VerifiedEvent
from providers.payments.facts import Fee, SubscriptionState
from providers.payments.payment_state import PaymentState
from providers.payments.reading import Node

PAYMENT_SEEN: Final = "reconciliation.payment"
SUBSCRIPTION_SEEN: Final = "reconciliation.subscription"
FEE_SEEN: Final = "reconciliation.fee"

REFUND_HORIZON: Final = timedelta(days=31)
"""How old a payment may be whose refund is still looked for, where payments are listed by when they were made."""

_REFERENCE: Final = "reference"


def saw_payment(reference: str, *words: object, at: datetime) -> VerifiedEvent:
    """Tell that a payment was seen; `reference` is for `fetch_payment`, `words` are all that tells this sight apart."""
    return _seen(PAYMENT_SEEN, reference, *words, at=at)


def saw_state(state: PaymentState) -> VerifiedEvent:
    """Tell that a payment was fetched."""
    words = (state.status, state.received, state.refunded, state.changed_at.isoformat())
    # How a refund has ended, and what was kept, need move nothing else.
    ended = (*sorted(state.refunds_made), *(f"{ref} failed" for ref in sorted(state.refunds_failed)))
    kept = () if state.fee is None else (f"{state.fee.amount} {state.fee.currency} kept",)
    return saw_payment(state.session_id, *words, *ended, *kept, at=state.changed_at)


def saw_fee(payment_ref: str, fee: Fee, *, at: datetime) -> VerifiedEvent:
    """Tell that the provider now says what it kept of the payment of `at`, which a fact named before."""
    return _seen(FEE_SEEN, payment_ref, fee.amount, fee.currency, at=at)


def saw_subscription(state: SubscriptionState, *, by: object, at: datetime) -> VerifiedEvent:
    """Tell that a subscription was fetched at `at`.

    It may come back to a state that it was in before, so `by` whom it was looked at is a part of the id.
    """
    return _seen(SUBSCRIPTION_SEEN, state.subscription_ref, by, at=at)


def seen_reference(event: VerifiedEvent) -> str:
    """Name what was seen."""
    return Node(event.payload, "event").ref(_REFERENCE)


def _seen(kind: str, reference: str, *words: object, at: datetime) -> VerifiedEvent:
    told = "\n".join((reference, *map(str, words)))
    return VerifiedEvent(
        event_id=f"{kind}:{hashlib.sha256(told.encode()).hexdigest()}",
        account="",
        type=kind,
        occurred_at=at,
        payload={_REFERENCE: reference},
    )
