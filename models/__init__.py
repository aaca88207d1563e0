"""Floor 1: tables, enums and pure state transitions. Importing this package registers every table."""

from models import (
    audit,
    billing,
    entitlements,
    events,
    inbox,
    journal,
    mail,
    messengers,
    notifications,
    overrides,
    phones,
    platform,
    provisioning,
    recurring,
    second_factors,
    sso,
    tenants,
    usage,
    users,
)
from models.base import Base
from models.isolation import protect

protect()

__all__ = [
    "Base",
    "audit",
    "billing",
    "entitlements",
    "events",
    "inbox",
    "journal",
    "mail",
    "messengers",
    "notifications",
    "overrides",
    "phones",
    "platform",
    "provisioning",
    "recurring",
    "second_factors",
    "sso",
    "tenants",
    "usage",
    "users",
]
