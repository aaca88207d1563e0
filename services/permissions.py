"""Who may do what in a tenant: the one table that REST, sockets and jobs share (contract.md 2.7, 3.2)."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType

from models.tenants import Role


class Permission(StrEnum):
    """Something that a tenant's people may be allowed to do: `noun.verb`."""

    TENANT_CHANGE = "tenant.change"
    TENANT_TRANSFER = "tenant.transfer"
    TENANT_DELETE = "tenant.delete"
    TENANT_EXPORT = "tenant.export"
    MEMBERS_READ = "members.read"
    MEMBERS_INVITE = "members.invite"
    MEMBERS_REMOVE = "members.remove"
    MEMBERS_CHANGE_ROLE = "members.change_role"
    INVOICES_READ = "invoices.read"
    PLAN_BUY = "plan.buy"
    PLAN_CANCEL = "plan.cancel"
    PROVIDER_CONFIGURE = "provider.configure"
    ORDERS_MANAGE = "orders.manage"
    ORDERS_REFUND = "orders.refund"
    JOBS_MANAGE = "jobs.manage"
    SITE_ENTER = "site.enter"
    SITE_CONFIGURE = "site.configure"
    PRESENCE_READ = "presence.read"
    AUDIT_READ = "audit.read"
    MANAGERS_HEAR = "managers.hear"
    KEYS_MANAGE = "keys.manage"


_OWNER = (Role.OWNER,)
_MANAGERS = (Role.OWNER, Role.ADMIN)
_STAFF = (Role.OWNER, Role.ADMIN, Role.USER, Role.MEMBER)

# The order of the roles is that in which a refusal names them. What is not here, such as seeing the tenant, its jobs
# and its subscription, is open to everybody who belongs to it.
HOLDERS: Mapping[Permission, tuple[Role, ...]] = MappingProxyType(
    {
        Permission.TENANT_CHANGE: _MANAGERS,
        Permission.TENANT_TRANSFER: _OWNER,
        Permission.TENANT_DELETE: _OWNER,
        Permission.TENANT_EXPORT: _OWNER,
        Permission.MEMBERS_READ: _MANAGERS,
        Permission.MEMBERS_INVITE: _MANAGERS,
        Permission.MEMBERS_REMOVE: _MANAGERS,
        Permission.MEMBERS_CHANGE_ROLE: _OWNER,
        Permission.INVOICES_READ: _MANAGERS,
        Permission.PLAN_BUY: _MANAGERS,
        Permission.PLAN_CANCEL: _OWNER,
        Permission.PROVIDER_CONFIGURE: _OWNER,
        Permission.ORDERS_MANAGE: _MANAGERS,
        Permission.ORDERS_REFUND: _OWNER,
        Permission.JOBS_MANAGE: _MANAGERS,
        Permission.SITE_ENTER: _STAFF,
        Permission.SITE_CONFIGURE: _OWNER,
        Permission.PRESENCE_READ: _MANAGERS,
        Permission.AUDIT_READ: _MANAGERS,
        Permission.MANAGERS_HEAR: _MANAGERS,
        Permission.KEYS_MANAGE: _MANAGERS,
    }
)


class KeyScope(StrEnum):
    """Something that an API key may be made for: `noun:read` or `noun:write`; neither implies the other.

    What is not here is for people: whatever gives somebody else access, ends something for good, or leads people
    somewhere (docs/adr/0018).
    """

    TENANT_READ = "tenant:read"
    MEMBERS_READ = "members:read"
    BILLING_READ = "billing:read"
    BILLING_WRITE = "billing:write"
    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    EVENTS_READ = "events:read"
    AUDIT_READ = "audit:read"


# Of what not everybody in the tenant may do, what a scope allows; nothing that an admin may not.
GRANTS: Mapping[KeyScope, tuple[Permission, ...]] = MappingProxyType(
    {
        KeyScope.TENANT_READ: (),
        KeyScope.MEMBERS_READ: (Permission.MEMBERS_READ,),
        KeyScope.BILLING_READ: (Permission.INVOICES_READ,),
        KeyScope.BILLING_WRITE: (Permission.PLAN_BUY,),
        KeyScope.JOBS_READ: (),
        KeyScope.JOBS_WRITE: (Permission.JOBS_MANAGE,),
        KeyScope.EVENTS_READ: (),
        KeyScope.AUDIT_READ: (Permission.AUDIT_READ,),
    }
)


def allows(role: Role | None, permission: Permission) -> bool:
    """Tell whether somebody of this role, or of none, may do it."""
    return role in HOLDERS[permission]


def grants(scopes: Iterable[KeyScope], permission: Permission) -> bool:
    """Tell whether a key with these scopes may do it."""
    return any(permission in GRANTS[scope] for scope in scopes)
