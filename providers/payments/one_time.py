"""What the providers without subscriptions have in common: each purchase is one payment, and our own clock renews."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from providers.payments.api import MISSING
from providers.payments.contract import CheckoutCreated, CheckoutRequest, InvoiceRequest, Terms, VerifiedEvent
from providers.payments.errors import ProviderRejected
from providers.payments.facts import Fact, Fee, GoneBack, SubscriptionState
from providers.payments.orders import Order, order_of_checkout, order_of_invoice
from providers.payments.payment_state import PaymentState


class OneTimeProvider(ABC):
    """Answers of `PaymentProvider` that follow from there being no subscriptions; adapters give the others."""

    async def create_checkout(self, request: CheckoutRequest) -> CheckoutCreated:
        """See `PaymentProvider.create_checkout`."""
        return await self._open(order_of_checkout(request))

    async def create_invoice(self, request: InvoiceRequest) -> CheckoutCreated:
        """See `PaymentProvider.create_invoice`."""
        return await self._open(order_of_invoice(request))

    async def prepare(self, headers: Mapping[str, str]) -> None:  # noqa: B027 - nothing to fetch is an answer
        """See `PaymentProvider.prepare`: as a rule there is nothing to fetch."""

    def interpret(self, event: VerifiedEvent) -> tuple[Fact, ...]:  # noqa: ARG002 - of the contract
        """See `PaymentProvider.interpret`: an event only says which payment to fetch."""
        return ()

    @abstractmethod
    async def fetch_payment(self, reference: str) -> PaymentState | None:
        """See `PaymentProvider.fetch_payment`."""

    async def fetch_fee(self, payment_ref: str) -> Fee | None:  # noqa: ARG002 - of the contract
        """See `PaymentProvider.fetch_fee`: where there is a fee, the payment itself tells it (`PaymentState.fee`)."""
        return None

    async def fetch_refunded(self, payment_ref: str) -> GoneBack | None:  # noqa: ARG002 - of the contract
        """See `PaymentProvider.fetch_refunded`: the payment itself tells it (`PaymentState.refunded`)."""
        return None

    async def capture(self, session_id: str) -> PaymentState:
        """See `PaymentProvider.capture`: as a rule the money moves by itself."""
        state = await self.fetch_payment(session_id)
        if state is None:
            raise ProviderRejected(details={"reason": MISSING})
        return state

    async def withdraw(self, session_id: str) -> None:  # noqa: ARG002 - of the contract
        """See `PaymentProvider.withdraw`."""
        raise not_supported()

    async def cancel(self, subscription_ref: str, *, at_period_end: bool) -> None:  # noqa: ARG002 - of the contract
        """See `PaymentProvider.cancel`: nobody is charged twice, so there is nothing to stop."""
        raise not_supported()

    async def resume(self, subscription_ref: str) -> None:  # noqa: ARG002 - of the contract
        """See `PaymentProvider.resume`."""
        raise not_supported()

    async def reprice(self, subscription_ref: str, terms: Terms) -> None:  # noqa: ARG002 - of the contract
        """See `PaymentProvider.reprice`."""
        raise not_supported()

    async def collect(self, invoice_ref: str) -> None:  # noqa: ARG002 - of the contract
        """See `PaymentProvider.collect`."""
        raise not_supported()

    async def fetch_subscription(self, subscription_ref: str) -> SubscriptionState | None:  # noqa: ARG002 - likewise
        """See `PaymentProvider.fetch_subscription`."""
        raise not_supported()

    async def aclose(self) -> None:  # noqa: B027 - nothing to close is an answer
        """See `PaymentProvider.aclose`: the connections are the `HttpClient`'s, which others use too."""

    @abstractmethod
    async def _open(self, order: Order) -> CheckoutCreated:
        """Open a hosted page for one payment; idempotent by the order's id."""


def not_supported() -> ProviderRejected:
    """Say that this provider has no such thing; its capabilities say so too."""
    return ProviderRejected(details={"reason": "not_supported"})
