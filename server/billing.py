"""The wiring of billing: the payment providers, and what the settings say of payments and of access without them."""

from contextlib import AsyncExitStack
from datetime import timedelta

from core.clock import Clock
from providers.http import HttpClient, HttpPolicy
from server.payments import KNOWN, open_payments
from server.settings import Settings
from services.billing import BillingService
from services.documents import DocumentService
from services.mail import MailService
from services.merchants import MerchantService
from services.notifications import NotificationService
from services.unit_of_work import UnitOfWorkFactory
from services.verification import Verification


def open_billing(
    settings: Settings,
    units: UnitOfWorkFactory,
    notifications: NotificationService,
    *,
    documents: DocumentService,
    mail: MailService,
    merchants: MerchantService,
    grace: timedelta,
    clock: Clock,
    stack: AsyncExitStack,
) -> BillingService:
    """Build the service of billing; `stack` closes the connections to payment providers."""
    http = HttpClient(HttpPolicy(retry_enabled=settings.http_retry_enabled), clock=clock)
    stack.push_async_callback(http.aclose)
    payments = open_payments(settings, http, clock=clock)
    for provider in payments.providers.values():
        stack.push_async_callback(provider.aclose)
    return BillingService(
        units=units,
        providers=payments.providers,
        default_provider=payments.default,
        aliases=payments.aliases,
        known=KNOWN,
        notifications=notifications,
        dunning=[timedelta(days=days) for days in settings.dunning_retry_days],
        verification=Verification(required=settings.require_verified_email),
        keep_events=timedelta(days=settings.provider_events_keep_days),
        reconcile_hour=settings.reconcile_hour,
        documents=documents,
        mail=mail,
        grace=grace,
        merchants=merchants.inbox,
        return_url=f"{settings.public_base}/dashboard",
    )
