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


class BuyerRoleNotGrantable(DomainError):
    """Somebody was to get a place as a buyer, who is a customer of the tenant and none of its people (contract.md 2.7).

    Members see the tenant's subscription, jobs and events; a buyer must not.
    """

    kind = ErrorKind.INVALID
    code = "ROLE_NOT_GRANTABLE"
    message = "A buyer gets no place in a tenant"


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


class LastOwner(DomainError):
    """The tenant would be left without an owner; the database refuses that, whoever races (docs/adr/0015)."""

    kind = ErrorKind.CONFLICT
    code = "LAST_OWNER"
    message = "A tenant needs at least one owner; transfer the ownership first"


class OwnershipNotTransferable(DomainError):
    """Whoever is to own the tenant cannot: it is the caller, or somebody whose account is switched off."""

    kind = ErrorKind.CONFLICT
    code = "TENANT_ERROR"
    message = "Ownership cannot be transferred to this user"


class TooManyTenants(DomainError):
    """The caller owns as many tenants as one person may."""

    kind = ErrorKind.CONFLICT
    code = "TENANT_LIMIT"
    message = "You own as many tenants as you may"


class DeletionNotRequested(DomainError):
    """There is nothing to restore: nobody has asked for the tenant's end."""

    kind = ErrorKind.CONFLICT
    code = "CONFLICT"
    message = "This tenant is not to be deleted"


class DeletionUnderWay(DomainError):
    """The time in which the tenant could be restored is over."""

    kind = ErrorKind.GONE
    code = "TENANT_DELETED"
    message = "This tenant can no longer be restored"
