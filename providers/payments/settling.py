"""From an event to what it means, when the provider must be asked first: the one path of webhooks and reconciliation.

Everything here calls the provider, so none of it belongs inside a unit of work.
"""

from dataclasses import dataclass, replace

from providers.payments.contract import PaymentProvider, VerifiedEvent
from providers.payments.errors import ProviderRejected, ProviderUnavailable
from providers.payments.facts import (
    CheckoutPaid,
    Fact,
    PaymentLinked,
    PaymentRefunded,
    RefundFailed,
    Source,
    SubscriptionChanged,
)
from providers.payments.payment_state import PaymentState, PaymentStatus, facts_of_payment
from providers.payments.sightings import FEE_SEEN, PAYMENT_SEEN, SUBSCRIPTION_SEEN, seen_reference


async def settle_payment(provider: PaymentProvider, reference: str) -> PaymentState | None:
    """Fetch a payment, and take its money first if it is ours and approved; None if the provider knows it not.

    A payment that is approved but whose money is refused stays `APPROVED`: the payer may choose another way to pay.

    Raises:
        ProviderUnavailable, ProviderRejected: as `fetch_payment` and `capture` do.
    """
    state = await provider.fetch_payment(reference)
    # Somebody else's payment in the same account is not ours to take.
    if state is None or state.tags is None or state.status is not PaymentStatus.APPROVED:
        return state
    try:
        return await provider.capture(state.session_id)
    except ProviderRejected:
        return state


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What an event means.

    `payment` is the payment that it led to, None where it speaks of none or of somebody else's. `is_missing` tells
    that the provider does not know (yet) what its own event speaks of.
    """

    facts: tuple[Fact, ...]
    payment: PaymentState | None = None
    is_missing: bool = False


async def read_event(provider: PaymentProvider, event: VerifiedEvent) -> Reading:
    """Tell what an event means, fetching what it speaks of where it does not say all or may be out of date.

    Raises:
        BadPayload: the event cannot be read.
        ProviderUnavailable, ProviderRejected: what it speaks of could not be fetched.
    """
    if event.type == SUBSCRIPTION_SEEN:
        return await _read_subscription(provider, event)
    if event.type == FEE_SEEN:
        return await _read_fee(provider, event)
    is_seen = event.type == PAYMENT_SEEN
    told = () if is_seen else provider.interpret(event)
    facts = tuple([await _as_it_is_now(provider, fact) for fact in told])
    reference = seen_reference(event) if is_seen else provider.to_fetch(event)
    if reference is None:
        return Reading(facts=facts)
    state = await settle_payment(provider, reference)
    if state is None:
        return Reading(facts=facts, is_missing=True)
    return Reading(facts=facts + facts_of_fetched(provider, state), payment=state)


async def _read_subscription(provider: PaymentProvider, event: VerifiedEvent) -> Reading:
    state = await provider.fetch_subscription(seen_reference(event))
    if state is None:
        return Reading(facts=(), is_missing=True)
    source = Source(provider=provider.name, event_id=event.event_id, occurred_at=event.occurred_at)
    return Reading(facts=(SubscriptionChanged(**source, state=state),))


async def _read_fee(provider: PaymentProvider, event: VerifiedEvent) -> Reading:
    payment_ref = seen_reference(event)
    fee = await provider.fetch_fee(payment_ref)
    if fee is None:
        return Reading(facts=(), is_missing=True)
    source = Source(provider=provider.name, event_id=event.event_id, occurred_at=event.occurred_at)
    return Reading(facts=(PaymentLinked(**source, invoice_ref=payment_ref, payment_ref=payment_ref, fee=fee),))


async def _as_it_is_now(provider: PaymentProvider, fact: Fact) -> Fact:
    if isinstance(fact, CheckoutPaid | PaymentLinked) and fact.payment_ref is not None and fact.fee is None:
        return await _with_fee(provider, fact, fact.payment_ref)
    if isinstance(fact, RefundFailed) and fact.refunded_total is None:
        reference = fact.charge_ref or fact.payment_ref
        left = None if reference is None else await provider.fetch_refunded(reference)
        return fact if left is None else replace(fact, refunded_total=left.total)
    if isinstance(fact, PaymentRefunded):
        # Beside a failure of its own second only who knows of that can tell which of both is the newer.
        now = await provider.fetch_refunded(fact.charge_ref)
        if now is not None and now.failed:
            return replace(fact, refunded_total=now.total, refunds_failed=now.failed)
        return fact
    # Several changes of one second cannot be put in order by their times, and late ones are out of date.
    if not isinstance(fact, SubscriptionChanged) or not provider.capabilities.fetch_subscription:
        return fact
    state = await provider.fetch_subscription(fact.state.subscription_ref)
    return fact if state is None else replace(fact, state=state)


async def _with_fee(
    provider: PaymentProvider, fact: CheckoutPaid | PaymentLinked, payment_ref: str
) -> CheckoutPaid | PaymentLinked:
    try:
        return replace(fact, fee=await provider.fetch_fee(payment_ref))
    except ProviderUnavailable:
        if isinstance(fact, PaymentLinked):
            raise
        # Whoever has paid is served at once; a sweep finds later that the fee is not known.
        return fact


def facts_of_fetched(provider: PaymentProvider, state: PaymentState) -> tuple[Fact, ...]:
    """Tell a state in facts that happened when the provider last changed the payment.

    They bear a name of the payment's own: it is the payment that tells them, whichever event or reconciliation led
    to it, and so they are the same whichever came first.
    """
    told_by = f"{state.payment_key}:{state.status}"[:255]
    return facts_of_payment(state, Source(provider=provider.name, event_id=told_by, occurred_at=state.changed_at))
