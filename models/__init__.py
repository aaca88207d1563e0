"""Floor 1: tables, enums and pure state transitions. Importing this package registers every table."""

from models import (
    audit,
    billing,
    events,
    inbox,
    journal,
    mail,
    merchants,
    messengers,
    notifications,
    orders,
    phones,
    platform,
    provisioning,
    second_factors,
    sso,
    tenants,
    users,
)
from models.base import Base
from models.isolation import protect

protect()

__all__ = [
    "Base",
    "audit",
    "billing",
    "events",
    "inbox",
    "journal",
    "mail",
    "merchants",
    "messengers",
    "notifications",
    "orders",
    "phones",
    "platform",
    "provisioning",
    "second_factors",
    "sso",
    "tenants",
    "users",
]
