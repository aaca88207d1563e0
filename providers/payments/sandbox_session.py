"""A session of the sandbox: all that its page shows and its events tell, and how that is written down and read."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation

from core.errors import NotFound
from providers.payments.facts import Purchase
from providers.payments.orders import read_tags, tags_as_metadata
from providers.payments.payment_state import OrderTags
from providers.payments.reading import Node


class SandboxSessionUnknown(NotFound):
    """The address of a sandbox page is not one that we made."""

    message = "This payment page does not exist"


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSession:
    """All that the hosted page shows, and all that its events tell."""

    session_id: str
    tags: OrderTags
    plan_name: str
    amount: Decimal
    currency: str
    customer_email: str | None
    customer_ref: str
    subscription_ref: str
    success_url: str
    cancel_url: str
    expires_at: datetime

    @property
    def purchase(self) -> Purchase:
        """What is bought; the page shows plans only, so it does not exist for an invoice."""
        if self.tags.purchase is None:
            raise SandboxSessionUnknown
        return self.tags.purchase


def session_fields(session: SandboxSession) -> dict[str, object]:
    """Write a session down; `read_session` reads it."""
    return {
        "id": session.session_id,
        **tags_as_metadata(session.tags),
        "plan_name": session.plan_name,
        # As text: JSON numbers turn into floats on the way back.
        "amount": str(session.amount),
        "currency": session.currency,
        "customer_email": session.customer_email,
        "customer": session.customer_ref,
        "subscription": session.subscription_ref,
        "success_url": session.success_url,
        "cancel_url": session.cancel_url,
        "expires_at": int(session.expires_at.timestamp()),
    }


def read_session(fields: Node) -> SandboxSession:
    """Read what `session_fields` wrote; raises BadPayload."""
    return SandboxSession(
        session_id=fields.ref("id"),
        tags=read_tags(fields),
        plan_name=fields.text("plan_name"),
        amount=_read_amount(fields),
        currency=fields.text("currency"),
        customer_email=fields.text_or_none("customer_email"),
        customer_ref=fields.ref("customer"),
        subscription_ref=fields.ref("subscription"),
        success_url=fields.text("success_url"),
        cancel_url=fields.text("cancel_url"),
        expires_at=fields.moment("expires_at"),
    )


def _read_amount(fields: Node) -> Decimal:
    try:
        amount = Decimal(fields.text("amount"))
    except InvalidOperation:
        return fields.refuse("amount", "is not an amount")
    return amount if amount.is_finite() and amount >= 0 else fields.refuse("amount", "is not an amount")
