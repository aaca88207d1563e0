"""All services of the house in one typed place, built by the composition root and handed to the doors."""

from dataclasses import dataclass

from services.api_keys import ApiKeyService
from services.attempts import AttemptCounts
from services.audit import AuditService
from services.auth import AuthService
from services.billing import BillingService
from services.billing.reconciling import Reconciling
from services.documents import DocumentService
from services.entitlements import EntitlementService
from services.history import HistoryService
from services.mail import MailService
from services.merchants import MerchantService
from services.notifications import NotificationService
from services.phones import PhoneService
from services.platform import PlatformService
from services.provisioning import ProvisioningService
from services.reports import ReportService
from services.sso import SsoService
from services.tenants import TenantService


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """One instance of each service; they hold no state of a request."""

    api_keys: ApiKeyService
    attempts: AttemptCounts
    audit: AuditService
    auth: AuthService
    tenants: TenantService
    billing: BillingService
    reconciling: Reconciling
    documents: DocumentService
    entitlements: EntitlementService
    merchants: MerchantService
    provisioning: ProvisioningService
    sso: SsoService
    notifications: NotificationService
    mail: MailService
    phones: PhoneService
    platform: PlatformService
    reports: ReportService
    history: HistoryService
