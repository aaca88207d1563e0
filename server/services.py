"""The wiring of services: each is built once, of what stands below it and of those before it."""

from contextlib import AsyncExitStack
from datetime import timedelta

from aiohttp import ClientSession
from sqlalchemy.ext.asyncio import AsyncEngine

from core.clock import Clock
from realtime.log import EventLog
from server.billing import open_billing
from server.documents import build_documents
from server.identity import open_identity
from server.mail import build_mail
from server.merchants import open_merchants
from server.provisioning import build_provisioning
from server.settings import Settings
from services.attempts import AttemptCounts
from services.audit import AuditService
from services.billing import BillingService
from services.entitlements import EntitlementDesk, EntitlementService
from services.history import HistoryService
from services.mail import MailService
from services.notifications import NotificationService
from services.provisioning import ProvisioningService
from services.registry import Services
from services.reports import ReportService
from services.tenants import TenantService
from services.unit_of_work import UnitOfWorkFactory
from services.verification import Verification


def open_services(
    settings: Settings,
    engine: AsyncEngine,
    units: UnitOfWorkFactory,
    *,
    http: ClientSession,
    log: EventLog,
    clock: Clock,
    stack: AsyncExitStack,
) -> Services:
    """Build every service; `stack` closes what they hold open."""
    grace = timedelta(days=settings.entitlement_grace_days)
    notifications, mail = NotificationService(), build_mail(settings, units)
    documents = build_documents(settings, units, mail, notifications)
    merchants = open_merchants(settings, units, notifications, clock=clock, stack=stack)
    billing = open_billing(
        settings,
        units,
        notifications,
        documents=documents,
        mail=mail,
        merchants=merchants,
        grace=grace,
        clock=clock,
        stack=stack,
    )
    desk = EntitlementDesk(grace=grace)
    provisioning = build_provisioning(settings, engine, units, notifications=notifications, entitlements=desk)
    tenants = _tenants(settings, units, billing=billing, provisioning=provisioning, entitlements=desk, mail=mail)
    identity = open_identity(
        settings, units, tenants=tenants, mail=mail, notifications=notifications, http=http, stack=stack
    )
    return Services(
        api_keys=identity.api_keys,
        attempts=AttemptCounts(units),
        audit=AuditService(),
        auth=identity.auth,
        tenants=tenants,
        billing=billing,
        reconciling=billing.reconciling,
        documents=documents,
        entitlements=EntitlementService(units=units, desk=desk, announcer=billing.announcer, clock=clock, grace=grace),
        merchants=merchants,
        provisioning=provisioning,
        sso=identity.sso,
        notifications=notifications,
        mail=mail,
        phones=identity.phones,
        platform=identity.platform,
        reports=ReportService(),
        history=_history(settings, log, clock),
    )


def _tenants(
    settings: Settings,
    units: UnitOfWorkFactory,
    *,
    billing: BillingService,
    provisioning: ProvisioningService,
    entitlements: EntitlementDesk,
    mail: MailService,
) -> TenantService:
    return TenantService(
        units=units,
        billing=billing,
        provisioning=provisioning,
        entitlements=entitlements,
        mail=mail,
        public_url=settings.public_base,
        max_owned=settings.tenants_per_owner,
        deletion_grace=timedelta(days=settings.tenant_deletion_grace_days),
        verification=Verification(required=settings.require_verified_email),
        disclosed=settings.accounts_disclosed,
    )


def _history(settings: Settings, log: EventLog, clock: Clock) -> HistoryService:
    return HistoryService(
        log, clock=clock, keep=timedelta(hours=settings.events_keep_hours), keep_count=settings.events_keep_count
    )
