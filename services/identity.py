"""Who is asking: the actor of a use case, and the checks every service makes of one."""

from dataclasses import dataclass
from uuid import UUID

from core.errors import DomainError, ErrorKind, PermissionDenied
from models.tenants import Role
from services.permissions import HOLDERS, Permission, allows


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A signed-in user; `tenant_id` and `role` are those of the token's tenant and go together.

    It holds what a token tells, so that nobody need be looked up to be recognised. A use case that needs more of the
    person, such as a name, asks for the user. `impersonator_id` is set when one of the platform's people acts in the
    user's name.
    """

    user_id: UUID
    session_id: UUID
    tenant_id: UUID | None
    role: Role | None
    is_superuser: bool
    impersonator_id: UUID | None = None

    @property
    def manages(self) -> bool:
        """Whether the principal hears what concerns only those who run the tenant."""
        return self.may(Permission.MANAGERS_HEAR)

    def may(self, permission: Permission) -> bool:
        """Tell whether the principal may do something in the tenant of the token."""
        return allows(self.role, permission)


class NotAuthenticated(DomainError):
    """No credentials were shown."""

    kind = ErrorKind.UNAUTHENTICATED
    code = "AUTH_ERROR"
    message = "Not authenticated"


class NoTenantInToken(DomainError):
    """The token speaks for a user but for no tenant."""

    kind = ErrorKind.UNAUTHENTICATED
    code = "TENANT_ERROR"
    message = "No tenant in token"


class RoleRequired(PermissionDenied):
    """The caller's role in the tenant is not one of those the action needs."""

    def __init__(self, *allowed: Role) -> None:
        names = ", ".join(role.value for role in allowed)
        super().__init__(f"This action requires one of the following roles: {names}")


class SuperuserRequired(PermissionDenied):
    """Only the platform's own people may do this."""

    message = "Superuser access required"


class Impersonated(PermissionDenied):
    """Only the user in person may do this, not whoever acts in their name."""

    code = "IMPERSONATED"
    message = "Only the user in person may do this"


def require_tenant(actor: Principal) -> UUID:
    """Return the tenant the actor speaks for; raises NoTenantInToken."""
    if actor.tenant_id is None:
        raise NoTenantInToken
    return actor.tenant_id


def require_permission(role: Role | None, permission: Permission) -> None:
    """Raise RoleRequired unless somebody of this role may do it."""
    if not allows(role, permission):
        raise RoleRequired(*HOLDERS[permission])


def require_oneself(actor: Principal) -> None:
    """Raise Impersonated if somebody acts in the user's name; for what would outlast that, or cannot be undone."""
    if actor.impersonator_id is not None:
        raise Impersonated


def require_superuser(actor: Principal) -> None:
    """Raise SuperuserRequired unless the actor is one of the platform's own."""
    if not actor.is_superuser:
        raise SuperuserRequired
