"""Who is asking: the actor of a use case, and the checks every service makes of one."""

from dataclasses import dataclass
from uuid import UUID

from core.errors import DomainError, ErrorKind, PermissionDenied
from models.tenants import Role
from services.permissions import HOLDERS, KeyScope, Permission, allows, grants


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks: a signed-in user, or one of a tenant's API keys, which has `scopes`.

    It holds what a token tells, so that nobody need be looked up to be recognised. A use case that needs more of the
    person, such as a name, asks for the user. `impersonator_id` is set when one of the platform's people acts in the
    user's name.

    Of a user, `tenant_id` and `role` are those of the token's tenant and go together. A key has a tenant and no role.
    Its `user_id` and its `session_id` are its own id, which is no user's and no session's: whatever is looked up by
    them is not found, and what ends a session ends it.
    """

    user_id: UUID
    session_id: UUID
    tenant_id: UUID | None
    role: Role | None
    is_superuser: bool
    impersonator_id: UUID | None = None
    scopes: frozenset[KeyScope] | None = None

    @property
    def key_id(self) -> UUID | None:
        """The API key that asks, if it is one."""
        return None if self.scopes is None else self.user_id

    @property
    def person_id(self) -> UUID | None:
        """The user who asks, unless it is an API key; for columns that refer to users."""
        return self.user_id if self.scopes is None else None

    @property
    def manages(self) -> bool:
        """Whether the principal hears what concerns only those who run the tenant."""
        return self.may(Permission.MANAGERS_HEAR)

    def may(self, permission: Permission) -> bool:
        """Tell whether the principal may do something in the tenant of the token."""
        return allows(self.role, permission) if self.scopes is None else grants(self.scopes, permission)


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


class ApiKeyRefused(PermissionDenied):
    """This is for people; no API key may do it, whatever its scopes."""

    code = "API_KEY_REFUSED"
    message = "This cannot be done with an API key"


class ScopeRequired(PermissionDenied):
    """The API key was not made for this; `details` name the scope that it lacks, where one would do."""

    code = "SCOPE_REQUIRED"
    message = "The API key was not made for this"

    def __init__(self, scope: KeyScope | None = None) -> None:
        if scope is None:
            super().__init__()
        else:
            super().__init__(f"The API key lacks the scope {scope.value}", details={"scope": scope.value})


def require_tenant(actor: Principal) -> UUID:
    """Return the tenant the actor speaks for; raises NoTenantInToken."""
    if actor.tenant_id is None:
        raise NoTenantInToken
    return actor.tenant_id


def require_permission(role: Role | None, permission: Permission) -> None:
    """Raise RoleRequired unless somebody of this role may do it."""
    if not allows(role, permission):
        raise RoleRequired(*HOLDERS[permission])


def require_may(actor: Principal, permission: Permission) -> None:
    """Raise RoleRequired, or for an API key ScopeRequired, unless the actor may do it in the token's tenant."""
    if actor.scopes is None:
        require_permission(actor.role, permission)
    elif not actor.may(permission):
        raise ScopeRequired


def require_scope(actor: Principal, scope: KeyScope | None) -> None:
    """Let people pass, and an API key that has the scope; without one no key passes.

    Raises ApiKeyRefused and ScopeRequired.
    """
    if actor.scopes is None:
        return
    if scope is None:
        raise ApiKeyRefused
    if scope not in actor.scopes:
        raise ScopeRequired(scope)


def require_oneself(actor: Principal) -> None:
    """Raise Impersonated if somebody acts in the user's name; for what would outlast that, or cannot be undone.

    Raises ApiKeyRefused for an API key, which is nobody.
    """
    if actor.scopes is not None:
        raise ApiKeyRefused
    refuse_impersonator(actor)


def refuse_impersonator(actor: Principal) -> None:
    """Raise Impersonated if somebody acts in the user's name; where an API key that has the scope may pass."""
    if actor.impersonator_id is not None:
        raise Impersonated


def require_superuser(actor: Principal) -> None:
    """Raise SuperuserRequired unless the actor is one of the platform's own."""
    if not actor.is_superuser:
        raise SuperuserRequired
