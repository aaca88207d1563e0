"""All services of the house in one typed place, built by the composition root and handed to the doors."""

from dataclasses import dataclass

from services.audit import AuditService
from services.auth import AuthService
from services.billing import BillingService
from services.history import HistoryService
from services.mail import MailService
from services.merchants import MerchantService
from services.notifications import NotificationService
from services.phones import PhoneService
from services.platform import PlatformService
from services.provisioning import ProvisioningService
from services.sso import SsoService
from services.tenants import TenantService


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """One instance of each service; they hold no state of a request."""

    audit: AuditService
    auth: AuthService
    tenants: TenantService
    billing: BillingService
    merchants: MerchantService
    provisioning: ProvisioningService
    sso: SsoService
    notifications: NotificationService
    mail: MailService
    phones: PhoneService
    platform: PlatformService
    history: HistoryService
