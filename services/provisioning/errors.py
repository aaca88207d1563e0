"""Refusals about provisioning jobs (texts of contract.md 1.5)."""

from core.errors import DomainError, ErrorKind, NotFound, RateLimited

# Jobs run one after another, and a short one may take this long.
_RETRY_AFTER_S = 30


class JobNotFound(NotFound):
    """There is no such job, or it is another tenant's."""

    message = "ProvisioningJob not found"


class JobNotRetryable(DomainError):
    """The job has not ended yet; a conflict that the released clients expect as a bad request (contract.md 1.5)."""

    kind = ErrorKind.BAD_REQUEST
    code = "CONFLICT"
    message = "Only failed/completed jobs can be retried"


class JobTypeUnavailable(DomainError):
    """The recipe this server runs has no such job."""

    kind = ErrorKind.BAD_REQUEST
    code = "PROVISIONING_ERROR"
    message = "This job type is not available here"


class TooManyJobs(RateLimited):
    """As many of the tenant's jobs wait already as may; jobs that are alike are allowed, but not without end."""

    code = "TOO_MANY_JOBS"
    message = "Too many jobs of this tenant are waiting already"

    def __init__(self) -> None:
        super().__init__(retry_after_s=_RETRY_AFTER_S)


class SiteNotFound(NotFound):
    """No tenant has its site under this name."""

    message = "Site not found"
