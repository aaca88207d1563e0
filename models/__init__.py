"""Floor 1: tables, enums and pure state transitions. Importing this package registers every table."""

from models import (
    api_keys,
    attempts,
    audit,
    billing,
    documents,
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
    reconciliations,
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
    "api_keys",
    "attempts",
    "audit",
    "billing",
    "documents",
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
    "reconciliations",
    "recurring",
    "second_factors",
    "sso",
    "tenants",
    "usage",
    "users",
]
