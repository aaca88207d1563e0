"""From an event to what it means, when the provider must be asked first: the one path of webhooks and reconciliation.

Everything here calls the provider, so none of it belongs inside a unit of work.
"""

from providers.payments.contract import PaymentProvider, ProviderRejected, VerifiedEvent
from providers.payments.facts import Fact, Source
from providers.payments.payment_state import PaymentState, PaymentStatus, facts_of_payment


async def settle_payment(provider: PaymentProvider, reference: str) -> PaymentState | None:
    """Fetch a payment, and take its money first if the payer has approved it; None if the provider knows it not.

    A payment that is approved but whose money is refused stays `APPROVED`: the payer may choose another way to pay.

    Raises:
        ProviderUnavailable, ProviderRejected: as `fetch_payment` and `capture` do.
    """
    state = await provider.fetch_payment(reference)
    if state is None or state.status is not PaymentStatus.APPROVED:
        return state
    try:
        return await provider.capture(state.session_id)
    except ProviderRejected:
        return state


async def read_event(provider: PaymentProvider, event: VerifiedEvent) -> tuple[Fact, ...]:
    """Turn an event into facts, fetching the payment that it speaks of where it does not say all by itself.

    Raises:
        BadPayload: the event cannot be read.
        ProviderUnavailable, ProviderRejected: the payment could not be fetched.
    """
    facts = provider.interpret(event)
    reference = provider.to_fetch(event)
    if reference is None:
        return facts
    state = await settle_payment(provider, reference)
    return facts if state is None else facts + facts_of_fetched(provider, event, state)


def facts_of_fetched(provider: PaymentProvider, event: VerifiedEvent, state: PaymentState) -> tuple[Fact, ...]:
    """Tell a state that an event led to; each fact happened when the provider last changed the payment."""
    source = Source(provider=provider.name, event_id=event.event_id, occurred_at=state.changed_at)
    return facts_of_payment(state, source)
