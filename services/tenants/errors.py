"""Refusals about tenants and who belongs to them (texts of contract.md 1.5)."""

from core.errors import DomainError, ErrorKind, NotFound, PermissionDenied


class NoTenantAccess(PermissionDenied):
    """The tenant is not one of the caller's; whether it exists is not told."""

    message = "You don't have access to this tenant"


class MemberNotFound(NotFound):
    """Nobody by this id belongs to the tenant."""

    message = "User in this tenant not found"


class AlreadyMember(DomainError):
    """Whoever is invited belongs to the tenant already."""

    kind = ErrorKind.CONFLICT
    code = "ALREADY_EXISTS"
    message = "User in this tenant already exists"

    def __init__(self, email: str) -> None:
        super().__init__(f"User {email} in this tenant already exists")


class TenantRuleBroken(DomainError):
    """A rule about members would be broken."""

    code = "TENANT_ERROR"


class OwnerRoleFixed(TenantRuleBroken):
    """The owner's role was to be changed."""

    message = "Cannot change owner role"


class OwnerRoleNotGrantable(TenantRuleBroken):
    """Somebody was to become an owner other than by a transfer of ownership (contract.md 3.2)."""

    message = "Owner role cannot be granted"


class OwnerNotRemovable(TenantRuleBroken):
    """The owner was to be removed."""

    message = "Cannot remove owner from tenant"


class SelfNotRemovable(TenantRuleBroken):
    """The caller was to be removed by the caller."""

    message = "Cannot remove yourself from tenant"


class InvitationNotFound(NotFound):
    """There is no such invitation, or not in this tenant."""

    message = "Invitation not found"


class InvitationExpired(TenantRuleBroken):
    """The invitation's time is over."""

    message = "Invitation has expired"


class InvitationClosed(DomainError):
    """The invitation was accepted or revoked before."""

    kind = ErrorKind.CONFLICT
    code = "CONFLICT"
    message = "Invitation is no longer open"


class InvitationForAnother(PermissionDenied):
    """The invitation names another e-mail address than the caller's."""

    message = "This invitation was sent to another e-mail address"


class TenantSuspended(PermissionDenied):
    """The tenant is closed to its people for now."""

    code = "TENANT_SUSPENDED"
    message = "This tenant is suspended"
