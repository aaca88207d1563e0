"""The platform: what its own people do about everybody's accounts and tenants."""

from providers.uploads import UploadFolder
from services.auth.new_passwords import NewPasswords
from services.auth.notices import SecurityNotices
from services.auth.second_factor import SecondFactors
from services.auth.tokens import TokenDesk
from services.platform.content import PlatformContents
from services.platform.impersonation import Impersonation
from services.platform.plans import Plans
from services.platform.second_factors import SecondFactorResets
from services.platform.tariffs import Tariffs
from services.platform.tenants import PlatformTenants
from services.platform.uploads import Uploads
from services.platform.users import PlatformUsers
from services.tenants.suspension import Suspension
from services.unit_of_work import UnitOfWorkFactory

__all__ = ["PlatformService"]


class PlatformService:
    """Its parts hold the use cases, one for each noun."""

    def __init__(
        self,
        *,
        units: UnitOfWorkFactory,
        new_passwords: NewPasswords,
        desk: TokenDesk,
        notices: SecurityNotices,
        factors: SecondFactors,
        suspension: Suspension,
        folder: UploadFolder,
    ) -> None:
        self.users = PlatformUsers(units=units, new_passwords=new_passwords)
        self.content = PlatformContents()
        self.plans = Plans()
        self.tariffs = Tariffs()
        self.tenants = PlatformTenants(suspension)
        self.uploads = Uploads(units=units, folder=folder)
        self.impersonation = Impersonation(desk=desk, notices=notices)
        self.second_factors = SecondFactorResets(factors=factors, notices=notices)
