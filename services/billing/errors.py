"""Refusals about money (texts of contract.md 1.5), and the two ways in which a provider's fact cannot be applied."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from core.errors import DomainError, ErrorKind, InvalidInput, NotFound, Unavailable


class SubscriptionNotFound(NotFound):
    """The tenant has no subscription."""

    message = "Subscription not found"


class SubscriptionRuleBroken(DomainError):
    """The subscription does not allow this."""

    code = "SUBSCRIPTION_ERROR"


class PlanNotFound(SubscriptionRuleBroken):
    """There is no such plan, or it is not sold any more."""

    message = "Plan not found"


class PlanNotForSale(SubscriptionRuleBroken):
    """The plan costs nothing, so there is nothing to check out."""

    message = "This plan cannot be bought"


class AlreadySubscribed(DomainError):
    """The plan is in force and the provider renews it by itself: a second purchase would be charged twice."""

    kind = ErrorKind.CONFLICT
    code = "CONFLICT"
    message = "This plan is already active and renews by itself"


class ChangeAtPeriodEnd(DomainError):
    """The plan is cheaper than what is paid for, so it begins when that ends; `details` says when."""

    kind = ErrorKind.CONFLICT
    code = "CHANGE_AT_PERIOD_END"
    message = "This plan can begin when the paid period ends"

    def __init__(self, effective_at: datetime) -> None:
        super().__init__(details={"effective_at": effective_at.isoformat().replace("+00:00", "Z")})


class CancellationPending(DomainError):
    """The subscription ends with its period, so a change of its plan would come to nothing."""

    kind = ErrorKind.CONFLICT
    code = "CANCELLATION_PENDING"
    message = "This subscription is being cancelled: reinstate it before you change the plan"


class PaymentOverdue(DomainError):
    """A renewal has failed and must be paid before anything else is bought."""

    kind = ErrorKind.CONFLICT
    code = "PAYMENT_OVERDUE"
    message = "The last renewal has not been paid"


class NothingPending(DomainError):
    """No change of plan is to come."""

    kind = ErrorKind.CONFLICT
    code = "CONFLICT"
    message = "No change of plan is pending"


class NotEnding(DomainError):
    """The subscription does not end with its period, so there is nothing to take back."""

    kind = ErrorKind.CONFLICT
    code = "CONFLICT"
    message = "This subscription is not being cancelled"


class SubscriptionOver(SubscriptionRuleBroken):
    """The subscription was cancelled or has expired before."""

    message = "Subscription is already cancelled or expired"


class TenantUnknown(NotFound):
    """A superuser wants to buy for a tenant that does not exist."""

    message = "Tenant not found"


class ProviderNotSupported(DomainError):
    """The checkout names a provider that this server does not work with."""

    code = "PAYMENT_ERROR"
    message = "Only 'stripe' payment provider is supported currently"

    def __init__(self, names: Sequence[str] = ()) -> None:
        listed = ", ".join(f"'{name}'" for name in names)
        noun = "provider is" if len(names) == 1 else "providers are"
        super().__init__(f"Only {listed} payment {noun} supported currently" if names else None)


class CurrencyNotTaken(DomainError):
    """The provider does not take the plan's currency, and the plan has no price of its own for it."""

    code = "PAYMENT_ERROR"
    message = "This plan has no price in a currency that the payment provider takes"


class PriceInOtherCurrency(DomainError):
    """The plan is to be paid in a currency in which it has no price at the provider."""

    code = "PAYMENT_ERROR"

    def __init__(self, currency: str) -> None:
        super().__init__(f"This plan is paid in {currency}")


class UnknownCurrency(InvalidInput):
    """A price or an amount has a code that is no currency's."""

    code = "UNKNOWN_CURRENCY"
    message = "This currency does not exist"

    def __init__(self) -> None:
        problem = {"field": "body -> currency", "message": "is no currency", "type": "value_error"}
        super().__init__(details={"errors": [problem]})


class UnknownProvider(InvalidInput):
    """A price is for a payment provider that this server cannot work with, so nobody would ever pay it."""

    code = "UNKNOWN_PROVIDER"
    message = "This payment provider does not exist"

    def __init__(self, names: Sequence[str]) -> None:
        problem = {
            "field": "body -> provider",
            "message": f"should be one of: {', '.join(names)}",
            "type": "value_error",
        }
        super().__init__(details={"errors": [problem]})


class PageBeingOpened(Unavailable):
    """Somebody else has just asked the provider for this purchase's page, and the answer is not there yet."""

    code = "PAYMENT_ERROR"
    message = "The payment page is being opened, try again in a moment"


class StripeNotConfigured(DomainError):
    """Stripe is asked for but has no key."""

    code = "PAYMENT_ERROR"
    message = "Stripe secret key is not configured"


class WebhookUnknown(NotFound):
    """No provider sends webhooks to this address: none has this name, or its webhook's secret is not set."""

    message = "Payment provider not found"


class CreditNotFound(NotFound):
    """There is no such credit."""

    message = "Credit not found"


class CreditSettled(DomainError):
    """The money was given back or credited before."""

    kind = ErrorKind.CONFLICT
    code = "CONFLICT"
    message = "This credit is settled already"


class PaymentNotFound(NotFound):
    """There is no such payment."""

    message = "Payment not found"


class NothingLeftToRefund(DomainError):
    """Less is left of the payment than is to be given back."""

    kind = ErrorKind.CONFLICT
    code = "PAYMENT_ERROR"
    message = "There is less left of this payment than is to be refunded"


class RefundIsTold(DomainError):
    """The provider tells of its refunds: what is given back there is booked when it says so."""

    kind = ErrorKind.CONFLICT
    code = "PAYMENT_ERROR"
    message = "Refund this payment at its provider, which tells us of it"


class ProviderEventNotFound(NotFound):
    """There is no such event in the inbox."""

    message = "Event not found"


class ProviderEventNotDead(DomainError):
    """The event waits for its turn or has taken effect, so there is nothing to resend."""

    kind = ErrorKind.CONFLICT
    code = "CONFLICT"
    message = "Only dead events can be resent"


class ProviderEventEmptied(DomainError):
    """The event is so old that its content was removed, so there is nothing left to try."""

    kind = ErrorKind.CONFLICT
    code = "CONFLICT"
    message = "The content of this event was removed; have its provider's data compared instead"


class NothingToReconcile(DomainError):
    """Nothing can be asked of a provider at which neither the platform nor a merchant has an account."""

    code = "PAYMENT_ERROR"
    message = "No keys of this payment provider are set, so there is nothing to compare"

    def __init__(self, names: Sequence[str] = ()) -> None:
        super().__init__(f"{self.message}; there is something at: {', '.join(names)}" if names else None)


class ReconciliationNotFound(NotFound):
    """There is no such reconciliation."""

    message = "Reconciliation not found"


class ReconciliationRunning(DomainError):
    """Of each provider one reconciliation runs at a time."""

    kind = ErrorKind.CONFLICT
    code = "CONFLICT"
    message = "A reconciliation of this provider is running already"


class NotThereYet(Exception):
    """A fact speaks of something that we do not know yet: events overtake each other, so it is tried again."""


class FactRefused(Exception):
    """A fact contradicts what we know, such as the price asked: a person must look, repeating will not help."""

    def __init__(self, reason: str, *, tenant_id: UUID | None = None) -> None:
        self.tenant_id = tenant_id
        super().__init__(reason)
