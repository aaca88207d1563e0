"""What the demo reads of answers: as a released client does, a few fields and no others (contract.md 1.7)."""

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from pydantic import BaseModel


class User(BaseModel):
    """Somebody who has signed in."""

    id: UUID
    email: str
    full_name: str


class Tenant(BaseModel):
    """A company and the address of its site, once it has one."""

    id: UUID
    name: str
    slug: str
    status: str
    erpnext_site_url: str | None


class SignedIn(BaseModel):
    """The answer to a registration."""

    access_token: str
    refresh_token: str
    user: User
    current_tenant: Tenant


class Plan(BaseModel):
    """Something to subscribe to."""

    id: UUID
    slug: str
    name: str
    price_monthly: Decimal
    currency: str


class Subscription(BaseModel):
    """What the company has subscribed to."""

    id: UUID
    status: str
    billing_period: str
    trial_ends_at: datetime | None
    current_period_end: datetime
    plan: Plan


class Job(BaseModel):
    """A piece of work on the company's site."""

    id: UUID
    job_type: str
    status: str
    progress: int
    message: str | None
    error: str | None


class Checkout(BaseModel):
    """Where to pay."""

    checkout_url: str
    session_id: str


class Invoice(BaseModel):
    """A payment that was recorded."""

    amount: Decimal
    currency: str
    status: str


class Notification(BaseModel):
    """A message to the user."""

    id: UUID
    title: str
    read: bool


class Entry(BaseModel):
    """A way into the instance that works once."""

    sso_url: str
    token: str
    expires_in: int


class Health(BaseModel):
    """What the server says of itself."""

    status: str
    environment: str
    version: str
