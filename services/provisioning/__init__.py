"""Provisioning: turning a paid subscription into a running site, one resumable step at a time (contract.md 5).

`requests` is what people ask for; `claims`, `execution` and `journal` are how a worker carries a job out without ever
sharing it with another; `outcomes` is what follows for everybody else; `sweep` repairs what was lost.
"""

from uuid import UUID

from providers.provisioning.contract import ProvisioningDriver
from services.entitlements.desk import EntitlementDesk
from services.notifications import NotificationService
from services.provisioning.claims import Claims
from services.provisioning.errors import JobNotFound, JobNotRetryable, JobTypeUnavailable, SiteNotFound, TooManyJobs
from services.provisioning.outcomes import Outcomes
from services.provisioning.removal import SiteRemoval
from services.provisioning.requests import JobFilter, JobRequests
from services.provisioning.runner import JobRunner
from services.provisioning.sites import SiteAddresses, site_view
from services.provisioning.sweep import Sweep
from services.provisioning.timing import PRODUCTION, Timing
from services.provisioning.views import SiteView
from services.unit_of_work import UnitOfWork, UnitOfWorkFactory

__all__ = [
    "JobFilter",
    "JobNotFound",
    "JobNotRetryable",
    "JobTypeUnavailable",
    "ProvisioningService",
    "SiteNotFound",
    "Timing",
    "TooManyJobs",
]


class ProvisioningService(JobRequests):
    """Everything about jobs: the requests of people, and the work on them.

    `site_url_template` is the address of a site with `{slug}` in its host or its path; `max_waiting` is how many jobs
    of one tenant may wait at once.
    """

    def __init__(
        self,
        units: UnitOfWorkFactory,
        driver: ProvisioningDriver,
        *,
        notifications: NotificationService,
        entitlements: EntitlementDesk,
        site_url_template: str,
        max_waiting: int,
        timing: Timing = PRODUCTION,
    ) -> None:
        outcomes = Outcomes(notifications)
        super().__init__(driver, outcomes, entitlements=entitlements, max_waiting=max_waiting)
        addresses = SiteAddresses(site_url_template)
        claims = Claims(units, outcomes, addresses=addresses, entitlements=entitlements, timing=timing)
        self._runner = JobRunner(units, driver, claims=claims, outcomes=outcomes, timing=timing)
        self._sweep = Sweep(units, timing=timing)
        self.removal = SiteRemoval(self)

    async def run(self, job_id: UUID) -> None:
        """Run a job if it is its turn; may be called again, and elsewhere, for the same job at any time."""
        await self._runner.run(job_id)

    async def sweep(self) -> int:
        """Ring for jobs whose doorbell or worker was lost; return how many."""
        return await self._sweep.run()

    async def stop(self) -> None:
        """End the steps under way in this process and hand their jobs to other workers; nothing is begun after it."""
        await self._runner.stop()

    async def site(self, uow: UnitOfWork, *, slug: str) -> SiteView:
        """Show a site; needs a PlatformScope. Raises SiteNotFound."""
        return await site_view(uow, slug=slug)
