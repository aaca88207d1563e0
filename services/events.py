"""The catalogue of events: what is said on the wire, where, and with which fields (contract.md 7.3).

Every class is one event. Payloads are supersets of what the released clients read; `event_id` and `seq` are added
when an event is delivered.
"""

from datetime import datetime
from typing import Any, ClassVar, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from core import json
from core.money import Money
from realtime.exchange import EphemeralEvent
from realtime.rooms import member_room, tenant_room

# The first ancestor's sample client listens to the second name, on the root namespaces only.
ROOT_TWINS = {"notification:new": "notification"}


class DomainEvent(BaseModel):
    """A fact about one tenant that its people may hear of.

    `event` is the wire name, `namespace` the event's own namespace; fields are the payload.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    event: ClassVar[str]
    namespace: ClassVar[str]

    tenant_id: UUID

    def room(self) -> str:
        """Return the room whose members are entitled to the event."""
        return tenant_room(self.tenant_id)

    def payload(self) -> dict[str, Any]:
        """Return the payload as plain JSON values, the same before it is stored and after it is read back."""
        plain: dict[str, Any] = json.loads_exact(json.dumps(self.model_dump()))
        return plain


class StatusUpdate(DomainEvent):
    """A provisioning job has moved on."""

    event = "status:update"
    namespace = "/provisioning"

    job_id: UUID
    job_type: str
    status: str
    state: str
    progress: int
    message: str | None


class StatusCompleted(DomainEvent):
    """A provisioning job has succeeded; `erpnext_url` is the tenant's site, if it has one now."""

    event = "status:completed"
    namespace = "/provisioning"

    job_id: UUID
    job_type: str
    status: Literal["completed"] = "completed"
    state: str = "succeeded"
    progress: int = 100
    erpnext_url: str | None
    result: dict[str, Any]


class StatusFailed(DomainEvent):
    """A provisioning job has failed or was cancelled; `state` tells which."""

    event = "status:failed"
    namespace = "/provisioning"

    job_id: UUID
    job_type: str
    status: Literal["failed"] = "failed"
    state: str
    error: str


class SubscriptionUpdated(DomainEvent):
    """The subscription, or what it entitles to, has changed in any way.

    `subscription` is what GET /billing/subscription would answer, `entitlements` what GET /billing/entitlements would
    without what is used of them.
    """

    event = "subscription:updated"
    namespace = "/billing"

    subscription_id: UUID
    status: str
    plan: str
    updated_at: datetime
    subscription: dict[str, Any]
    entitlements: dict[str, Any] | None = None


class SubscriptionExpiring(DomainEvent):
    """The trial or the paid period ends in `days_left` days."""

    event = "subscription:expiring"
    namespace = "/billing"

    subscription_id: UUID
    days_left: int
    ends_at: datetime


class PaymentReceived(DomainEvent):
    """Money has arrived."""

    event = "payment:received"
    namespace = "/billing"

    payment_id: UUID
    amount: Money
    currency: str
    status: Literal["succeeded"] = "succeeded"
    created_at: datetime


class PaymentFailed(DomainEvent):
    """An attempt to pay was declined; `invoice_url` is where the payer can see the bill, where the provider tells."""

    event = "payment:failed"
    namespace = "/billing"

    payment_id: UUID
    amount: Money
    currency: str
    status: Literal["failed"] = "failed"
    invoice_url: str | None
    created_at: datetime


class InvoiceIssued(DomainEvent):
    """A paper of ours was issued; `kind` tells an invoice from a credit note, whose amount is below zero."""

    event = "invoice:issued"
    namespace = "/billing"

    document_id: UUID
    number: str
    kind: str
    payment_id: UUID
    amount: Money
    currency: str
    issued_at: datetime


class OrderUpdated(DomainEvent):
    """A merchant's order stands elsewhere than before; `order` is what GET /api/tenant/orders/{id} would answer."""

    event = "order:updated"
    namespace = "/billing"

    order_id: UUID
    status: str
    order: dict[str, Any]


class OrderPaid(DomainEvent):
    """A merchant's order is paid, once and for all; `amount` is a text, for coins have many decimals."""

    event = "order:paid"
    namespace = "/billing"

    order_id: UUID
    amount: str
    currency: str
    external_reference: str | None
    paid_at: datetime


class NotificationCreated(DomainEvent):
    """A user has a new notification; only that user hears of it."""

    event = "notification:new"
    namespace = "/notifications"

    user_id: UUID
    id: UUID
    type: str
    title: str
    message: str
    data: dict[str, Any]
    link: str | None
    read: Literal[False] = False
    created_at: datetime

    def room(self) -> str:
        return member_room(self.tenant_id, self.user_id)


AccountChange = Literal[
    "email_changed",
    "email_removed",
    "email_verified",
    "password_changed",
    "password_reset",
    "phone_changed",
    "phone_removed",
    "recovery_codes_renewed",
    "session_reused",
    "two_factor_disabled",
    "two_factor_enabled",
    "two_factor_reset",
]


class AccountChanged(DomainEvent):
    """Something about a user's own sign-in has changed; it concerns no tenant, so the user hears of it in each."""

    event = "account:changed"
    namespace = "/notifications"

    user_id: UUID
    change: AccountChange
    session_id: UUID | None
    at: datetime

    def room(self) -> str:
        return member_room(self.tenant_id, self.user_id)


class EphemeralFact(BaseModel):
    """Something worth telling now or never: it gets no number and is not kept, and the newest of a key is enough.

    `event` is the wire name, `namespace` where it is heard besides the roots; fields are the payload.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    event: ClassVar[str]
    namespace: ClassVar[str]

    tenant_id: UUID

    def key(self) -> str:
        """Return what a newer one must have in common with this one to take its place."""
        return self.event

    def told(self) -> EphemeralEvent:
        """Return the fact as it goes to the tenant's people."""
        return EphemeralEvent(
            tenant_id=self.tenant_id,
            namespace=self.namespace,
            room=tenant_room(self.tenant_id),
            name=self.event,
            payload=self.model_dump(mode="json"),
            key=self.key(),
        )


class JobLogLine(BaseModel):
    """A line that a step's command printed."""

    model_config = ConfigDict(frozen=True)

    step: str
    stream: str
    text: str


class JobLog(EphemeralFact):
    """The newest lines of a running job's log; GET /provisioning/jobs/{id} has them all."""

    event = "job:log"
    namespace = "/provisioning"

    job_id: UUID
    lines: tuple[JobLogLine, ...]

    def key(self) -> str:
        return f"{self.event}:{self.job_id}"


EPHEMERAL: tuple[type[EphemeralFact], ...] = (JobLog,)

CATALOGUE: tuple[type[DomainEvent], ...] = (
    StatusUpdate,
    StatusCompleted,
    StatusFailed,
    SubscriptionUpdated,
    SubscriptionExpiring,
    PaymentReceived,
    PaymentFailed,
    InvoiceIssued,
    OrderUpdated,
    OrderPaid,
    NotificationCreated,
    AccountChanged,
)
