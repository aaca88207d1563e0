"""Refusals about money (texts of contract.md 1.5), and the two ways in which a provider's fact cannot be applied."""

from uuid import UUID

from core.errors import DomainError, ErrorKind, NotFound


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


class SubscriptionOver(SubscriptionRuleBroken):
    """The subscription was cancelled or has expired before."""

    message = "Subscription is already cancelled or expired"


class ProviderNotSupported(DomainError):
    """The checkout names a provider that this server does not work with."""

    code = "PAYMENT_ERROR"
    message = "Only 'stripe' payment provider is supported currently"


class StripeNotConfigured(DomainError):
    """Stripe is asked for but has no key."""

    code = "PAYMENT_ERROR"
    message = "Stripe secret key is not configured"


class WebhookUnknown(NotFound):
    """No provider sends webhooks to this address."""

    message = "Payment provider not found"


class NotThereYet(Exception):
    """A fact speaks of something that we do not know yet: events overtake each other, so it is tried again."""


class FactRefused(Exception):
    """A fact contradicts what we know, such as the price asked: a person must look, repeating will not help."""

    def __init__(self, reason: str, *, tenant_id: UUID | None = None) -> None:
        self.tenant_id = tenant_id
        super().__init__(reason)
