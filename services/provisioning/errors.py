"""Refusals about provisioning jobs (texts of contract.md 1.5)."""

from core.errors import DomainError, ErrorKind, NotFound, PermissionDenied


class JobNotFound(NotFound):
    """There is no such job, or it is another tenant's."""

    message = "ProvisioningJob not found"


class JobNotRetryable(DomainError):
    """The job has not ended yet; a conflict that the released clients expect as a bad request."""

    kind = ErrorKind.BAD_REQUEST
    code = "CONFLICT"
    message = "Only failed/completed jobs can be retried"


class JobTypeUnavailable(DomainError):
    """The recipe this server runs has no such job."""

    kind = ErrorKind.BAD_REQUEST
    code = "PROVISIONING_ERROR"
    message = "This job type is not available here"


class SiteNotFound(NotFound):
    """No tenant has its site under this name."""

    message = "Site not found"


class TenantEnding(PermissionDenied):
    """The tenant is to be deleted; nothing is begun for it any more."""

    code = "TENANT_DELETED"
    message = "This tenant is to be deleted"
